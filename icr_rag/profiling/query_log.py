"""Queries that people asked, of which nobody knows what is relevant: taught by scores alone."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

from icr_rag.errors import DataError, InputError
from icr_rag.evaluation.datasets import Dataset
from icr_rag.evaluation.files import json_at, read_lines
from icr_rag.profiling.resume import Task
from icr_rag.profiling.terms import Search
from icr_rag.types import Document


def read_queries(path: Path) -> list[str]:
    """The distinct queries of a file, in order.

    Args:
        path: one query a line; or .jsonl, of which each line has "query" or "text".

    Raises:
        DataError: if it cannot be read, a line is malformed, or there is none.
    """
    found: dict[str, None] = {}
    for number, line in read_lines(path):
        query = _query(line, f"{path}:{number}") if path.suffix == ".jsonl" else line
        if query.strip():
            found[query.strip()] = None
    if not found:
        raise DataError(f"{path} holds no queries; give one a line, or .jsonl with 'query'")
    return list(found)


def log_task(
    path: Path,
    documents: Mapping[str, Document],
    limit: int,
    depth: int,
    language: str = "english",
    seed: int = 0,
) -> Task:
    """A log's queries, with the documents that BM25 finds for them.

    Args:
        path: as for `read_queries`.
        documents: id -> document.
        limit: most queries; of more a random part is taken.
        depth: most candidates per query. Documents without a word of the query are none, and
            queries with fewer than two candidates are left out.
        language: of the documents, see `icr_rag.profiling.terms.terms`.
        seed: of the part that is taken.

    Raises:
        DataError: as `read_queries`. InputError: if no query finds two documents.
        ConfigError: for an unknown language.
    """
    asked = read_queries(path)
    search = Search(documents, language)
    found = [
        (query, names)
        for query, names in zip(asked, search.best(asked, depth, least=True), strict=True)
        if len(names) > 1
    ]
    if not found:
        raise InputError(
            f"of {len(asked)} queries in {path} none has a word in common with two of "
            f"{len(documents)} documents; give the documents that they were asked about"
        )
    taken = sorted(random.Random(seed).sample(range(len(found)), min(limit, len(found))))  # noqa: S311
    name = f"{path.stem}, log"
    queries = {f"{name}-{place}": found[place][0] for place in taken}
    candidates = {f"{name}-{place}": found[place][1] for place in taken}
    dataset = Dataset(name, dict(documents), queries, {})
    return Task(name, dataset, candidates, tuple(queries), depth, unlabelled=True)


def _query(line: str, place: str) -> str:
    value = json_at(line, place)
    query = value.get("query", value.get("text")) if isinstance(value, dict) else None
    if not isinstance(query, str):
        raise DataError(f"{place}: expected an object with 'query' or 'text'; got {line[:80]}")
    return query
