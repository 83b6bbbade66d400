"""Evaluation data in BEIR form: a folder with corpus, queries and relevance judgements."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icr_rag.errors import DataError
from icr_rag.types import Document


@dataclass(frozen=True)
class Dataset:
    """Queries, documents and judgements.

    Attributes:
        name: the folder's name.
        documents: document id -> document.
        queries: query id -> text, in file order.
        judgements: query id -> document id -> graded relevance; above 0 is relevant.
    """

    name: str
    documents: dict[str, Document]
    queries: dict[str, str]
    judgements: dict[str, dict[str, int]]

    @property
    def judged_queries(self) -> list[str]:
        """Ids of the queries that have a relevant document anywhere, in file order."""
        return [
            query
            for query in self.queries
            if any(grade > 0 for grade in self.judgements.get(query, {}).values())
        ]


def load_beir(folder: str | Path, split: str = "test") -> Dataset:
    """Read ``corpus.jsonl``, ``queries.jsonl`` and ``qrels.tsv`` or ``qrels/<split>.tsv``.

    Raises:
        DataError: naming the file and line that is missing or malformed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"no data set folder at {folder}")
    documents = {
        row["_id"]: Document(row["text"], row.get("title") or None, row["_id"])
        for row in _read_jsonl(folder / "corpus.jsonl")
    }
    queries = {row["_id"]: row["text"] for row in _read_jsonl(folder / "queries.jsonl")}
    single = folder / "qrels.tsv"
    path = single if single.is_file() else folder / "qrels" / f"{split}.tsv"
    return Dataset(folder.resolve().name, documents, queries, _read_judgements(path))


def _read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in read_lines(path):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: not JSON: {error}") from error
        if not isinstance(row, dict) or not {"_id", "text"} <= row.keys():
            raise DataError(f"{path}:{number}: expected an object with '_id' and 'text'")
        if not isinstance(row["text"], str):
            raise DataError(f"{path}:{number}: 'text' is a {type(row['text']).__name__}, not str")
        row["_id"] = str(row["_id"])
        yield row


def _read_judgements(path: Path) -> dict[str, dict[str, int]]:
    judgements: dict[str, dict[str, int]] = {}
    for number, line in read_lines(path):
        fields = line.split("\t")
        if number == 1 and fields[-1].strip() == "score":
            continue
        try:
            query, document, grade = fields
            judgements.setdefault(query, {})[document] = int(grade)
        except ValueError as error:
            raise DataError(
                f"{path}:{number}: expected query-id, corpus-id and a whole number, tab-separated, "
                f"got {line!r}"
            ) from error
    return judgements


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1.

    Raises:
        DataError: if the file cannot be read.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
