"""Runs: for each query, documents in ranked order. Read as TREC run or TSV, written as TREC run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from icr_rag.errors import DataError
from icr_rag.evaluation.datasets import read_lines

#: query id -> document ids, best first
Run = dict[str, list[str]]

_TSV_HEADER = ["query-id", "corpus-id", "rank", "score"]


def read_run(path: str | Path) -> Run:
    """Read candidates: a TREC run (qid Q0 docid rank score tag) or a TSV with the header
    ``query-id corpus-id rank score``, told apart by the first line.

    Documents are ordered by rank; equal ranks keep file order.

    Raises:
        DataError: naming the line that is malformed or repeats a document.
    """
    path = Path(path)
    rows: dict[str, list[tuple[int, str]]] = {}
    seen: set[tuple[str, str]] = set()
    tsv = False
    for number, line in read_lines(path):
        if number == 1 and line.split("\t") == _TSV_HEADER:
            tsv = True
            continue
        fields = line.split("\t") if tsv else line.split()
        try:
            if tsv:
                query, document, rank, _score = fields
            else:
                query, _q0, document, rank, _score, _tag = fields
            place = int(rank)
        except ValueError as error:
            raise DataError(
                f"{path}:{number}: expected 'qid Q0 docid rank score tag', or a TSV with the "
                f"header {' '.join(_TSV_HEADER)}; got {line!r}"
            ) from error
        if (query, document) in seen:
            raise DataError(f"{path}:{number}: document {document} stands twice for query {query}")
        seen.add((query, document))
        rows.setdefault(query, []).append((place, document))
    return {
        query: [document for _, document in sorted(ranked, key=lambda row: row[0])]
        for query, ranked in rows.items()
    }


def write_trec_run(path: str | Path, run: Mapping[str, Sequence[str]], tag: str) -> None:
    """Write a TREC run, whole or not at all. Scores are n, n-1, ... 1, so that no tool that
    sorts by score can change the order.

    Raises:
        DataError: if the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as out:
            for query, documents in run.items():
                for rank, document in enumerate(documents, start=1):
                    score = len(documents) + 1 - rank
                    out.write(f"{query} Q0 {document} {rank} {score} {tag}\n")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(f"cannot write {path}: {error}") from error
