"""Rows of a job: a query and its documents in, ids and scores out.

One row in is one row out, whatever is wrong with it: what cannot be ranked says why.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from icr_rag.errors import (
    ClosedError,
    ConfigError,
    DataError,
    MissingDependencyError,
    ModelLoadError,
    brief,
    shown,
)
from icr_rag.reranker import Reranker
from icr_rag.types import Document, Ranking

logger = logging.getLogger(__name__)

#: What would go wrong with every row: it ends the job.
_ENDS_ALL = (ConfigError, ModelLoadError, ClosedError, MissingDependencyError)
_KEYS = ("id", "query", "documents", "retrieval_scores")


@dataclass(frozen=True)
class JobRow:
    """One row to rank.

    Attributes:
        number: its place in the input, from 0; what identifies it.
        id: the caller's; None: none.
        query: the query.
        documents: in first-stage order, best first.
        retrieval_scores: the first stage's, as in `Reranker.rank`.
    """

    number: int
    id: str | None
    query: str
    documents: tuple[Document, ...]
    retrieval_scores: tuple[float | None, ...] | None = None


def parse_row(number: int, value: object) -> JobRow:
    """The row that a JSON object, or a Parquet row, describes.

    Raises:
        DataError: if something is missing or of a wrong type; the message names it.
    """
    if not isinstance(value, Mapping):
        raise DataError(
            f"the row is {shown(value)}; it must be an object with 'query', 'documents'"
        )
    unknown = [key for key in value if key not in _KEYS]
    if unknown:
        raise DataError(f"unknown key {shown(unknown[0])}; known are {', '.join(_KEYS)}")
    query, documents = value.get("query"), value.get("documents")
    if not isinstance(query, str):
        raise DataError(f"'query' is {shown(query)}; it must be a string")
    if not isinstance(documents, Sequence) or isinstance(documents, str):
        raise DataError(f"'documents' is {shown(documents)}; it must be a list")
    return JobRow(
        number,
        _identifier(value.get("id"), "'id'"),
        query,
        tuple(_document(document, place) for place, document in enumerate(documents)),
        _scores(value.get("retrieval_scores")),
    )


def rank_rows(
    reranker: Reranker, given: Sequence[tuple[int, object]], top_n: int | None = None
) -> list[dict[str, object]]:
    """One result per row, in their order.

    Rows are ranked together, as `Reranker.rank_many` does; where that fails, one by one, so that
    only those fail that are wrong.

    Args:
        reranker: what ranks.
        given: number and content of each row, or the `DataError` that stands for its content.
        top_n: hits per row; None: the reranker's setting.

    Returns:
        JSON objects: ``row`` (the number), ``id``, ``ids`` (of the hits, best first; None for a
        document without one), ``indices`` (their places in the row's documents), ``scores``,
        ``truncated`` (places of documents that were cut), ``degraded``, and ``error``, which is
        null unless the row could not be ranked.

    Raises:
        ConfigError, ModelLoadError, ClosedError, MissingDependencyError: for what is wrong with
            all rows.
    """
    results: dict[int, dict[str, object]] = {}
    rows = []
    for number, value in given:
        try:
            if isinstance(value, DataError):
                raise value
            rows.append(parse_row(number, value))
        except DataError as error:
            results[number] = failed(number, _told_id(value), error)
    together = [row for row in rows if row.retrieval_scores is None]
    rankings = _together(reranker, together, top_n)
    for row in rows:
        ranking = rankings.get(row.number)
        results[row.number] = (
            _alone(reranker, row, top_n) if ranking is None else _result(row, ranking)
        )
    return [results[number] for number, _ in given]


def failed(number: int, identifier: str | None, error: Exception) -> dict[str, object]:
    """The result of a row that could not be ranked."""
    none: dict[str, object] = {"row": number, "id": identifier}
    none |= {"ids": [], "indices": [], "scores": [], "truncated": [], "degraded": None}
    return {**none, "error": brief(f"{type(error).__name__}: {error}")}


def _together(reranker: Reranker, rows: Sequence[JobRow], top_n: int | None) -> dict[int, Ranking]:
    """Rankings by row; empty where not all of them can be ranked."""
    try:
        rankings = reranker.rank_many(
            [row.query for row in rows], [row.documents for row in rows], top_n
        )
    except _ENDS_ALL:
        raise
    except Exception as error:
        logger.info(
            "%d rows are ranked one by one, since together: %s", len(rows), error, exc_info=True
        )
        return {}
    return {row.number: ranking for row, ranking in zip(rows, rankings, strict=True)}


def _alone(reranker: Reranker, row: JobRow, top_n: int | None) -> dict[str, object]:
    try:
        ranking = reranker.rank(
            row.query, row.documents, top_n, retrieval_scores=row.retrieval_scores
        )
    except _ENDS_ALL:
        raise
    except Exception as error:
        logger.debug("row %d cannot be ranked", row.number, exc_info=True)
        return failed(row.number, row.id, error)
    return _result(row, ranking)


def _result(row: JobRow, ranking: Ranking) -> dict[str, object]:
    return {
        "row": row.number,
        "id": row.id,
        "ids": [hit.document.id for hit in ranking],
        "indices": [hit.index for hit in ranking],
        "scores": [hit.score for hit in ranking],
        "truncated": list(ranking.usage.truncated),
        "degraded": ranking.degraded,
        "error": ranking.error,
    }


def _told_id(value: object) -> str | None:
    """The id of a row that has something else wrong."""
    found = value.get("id") if isinstance(value, Mapping) else None
    return str(found) if isinstance(found, (str, int)) and not isinstance(found, bool) else None


def _identifier(value: object, name: str) -> str | None:
    # bool is an int to Python but no id.
    if isinstance(value, bool) or not isinstance(value, (str, int, type(None))):
        raise DataError(f"{name} is {shown(value)}; it must be a string or an integer")
    identifier = None if value is None else str(value)
    # Legal in JSON, but nothing that every format of the output can hold.
    if identifier is not None and any("\ud800" <= letter <= "\udfff" for letter in identifier):
        raise DataError(f"{name} is {shown(value)}, which has half a character")
    return identifier


def _document(value: object, place: int) -> Document:
    name = f"documents[{place}]"
    if isinstance(value, str):
        return Document(value)
    if not isinstance(value, Mapping):
        raise DataError(f"{name} is {shown(value)}; it must be a string or an object with 'text'")
    text, title = value.get("text"), value.get("title")
    if not isinstance(text, str):
        raise DataError(f"{name}.text is {shown(text)}; it must be a string")
    if not isinstance(title, (str, type(None))):
        raise DataError(f"{name}.title is {shown(title)}; it must be a string")
    return Document(text, title, _identifier(value.get("id", value.get("_id")), f"{name}.id"))


def _scores(value: object) -> tuple[float | None, ...] | None:
    if value is None:
        return None
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise DataError(f"'retrieval_scores' is {shown(value)}; it must be a list of numbers")
    for place, score in enumerate(value):
        if isinstance(score, bool) or not isinstance(score, (int, float, type(None))):
            raise DataError(f"retrieval_scores[{place}] is {shown(score)}; it must be a number")
    return tuple(value)
