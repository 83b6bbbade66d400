"""Runs: for each query, documents in ranked order. Read as TREC run or TSV, written as TREC run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from icr_rag.errors import DataError
from icr_rag.evaluation.files import read_lines
from icr_rag.files import write_whole

#: query id -> document ids, best first
Run = dict[str, list[str]]

_TSV_HEADER = ["query-id", "corpus-id", "rank", "score"]
_FORMATS = f"'qid Q0 docid rank score tag', or a TSV with the header {' '.join(_TSV_HEADER)}"


def read_run(path: str | Path) -> Run:
    """Read candidates: a TREC run or a TSV with the header ``query-id corpus-id rank score``.

    The first line tells which it is. Documents are ordered by rank, whatever their scores say;
    equal ranks keep file order.

    Raises:
        DataError: naming the line that is malformed or repeats a document; or if there is none.
    """
    return {
        query: [document for _, document, _ in ranked]
        for query, ranked in _read(Path(path)).items()
    }


def read_run_scores(path: str | Path) -> dict[str, dict[str, float]]:
    """The scores in a run: query id -> document id -> score. Raises as `read_run` does."""
    return {
        query: {document: score for _, document, score in ranked}
        for query, ranked in _read(Path(path)).items()
    }


def _read(path: Path) -> dict[str, list[tuple[int, str, float]]]:
    """Rank, document and score of each line, by rank."""
    rows: dict[str, list[tuple[int, str, float]]] = {}
    seen: set[tuple[str, str]] = set()
    tsv = False
    for number, line in read_lines(path):
        if number == 1 and line.split() == _TSV_HEADER:
            tsv = True
            continue
        try:
            query, document, rank, score = _parse_tsv(line) if tsv else _parse_trec(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: expected {_FORMATS}; got {line!r}") from error
        if (query, document) in seen:
            raise DataError(f"{path}:{number}: document {document} stands twice for query {query}")
        seen.add((query, document))
        rows.setdefault(query, []).append((rank, document, score))
    if not rows:
        raise DataError(f"{path} holds no candidates; expected {_FORMATS}")
    return {query: sorted(ranked, key=lambda row: row[0]) for query, ranked in rows.items()}


def _parse_tsv(line: str) -> tuple[str, str, int, float]:
    # Ids may hold spaces where tabs separate.
    query, document, rank, score = line.split("\t") if "\t" in line else line.split()
    return query, document, int(rank), float(score)


def _parse_trec(line: str) -> tuple[str, str, int, float]:
    query, _, document, rank, score, _ = line.split()
    return query, document, int(rank), float(score)


def write_trec_run(path: str | Path, run: Mapping[str, Sequence[str]], tag: str) -> None:
    """Write a TREC run, whole or not at all.

    Scores are n, n-1, ... 1, so that no tool that sorts by score and breaks ties in its own way
    can change the order.

    Raises:
        DataError: if the file cannot be written, or an id holds white space, which the format
            does not allow.
    """
    write_whole(Path(path), _trec_lines(run, tag))


def _trec_lines(run: Mapping[str, Sequence[str]], tag: str) -> Iterator[str]:
    for query, documents in run.items():
        for place, document in enumerate(documents):
            for name in (query, document):
                if len(name.split()) != 1:
                    raise DataError(f"a TREC run cannot hold the id {name!r}: it has white space")
            yield f"{query} Q0 {document} {place + 1} {len(documents) - place} {tag}\n"
