"""Data sets by their name in ir_datasets (MacAvaney et al., SIGIR 2021): TREC DL, BEIR and others.

The library downloads what it needs to ``$IR_DATASETS_HOME`` (``~/.ir_datasets``) on first use.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol, TypeVar

from icr_rag.errors import DataError, require
from icr_rag.evaluation.datasets import put_once, put_query
from icr_rag.evaluation.first_stage import ScoredRun
from icr_rag.evaluation.unread_dataset import UnreadDataset
from icr_rag.types import Document

T = TypeVar("T")


# ir_datasets has no types: what is read of its objects.


class _Query(Protocol):
    query_id: str

    def default_text(self) -> str: ...


class _Judged(Protocol):
    query_id: str
    doc_id: str
    relevance: int


class _Scored(Protocol):
    query_id: str
    doc_id: str
    score: float


class _Document(Protocol):
    doc_id: str

    def default_text(self) -> str: ...


class _Store(Protocol):
    def get_many(self, doc_ids: list[str]) -> Mapping[str, _Document]: ...


class _Data(Protocol):
    def queries_iter(self) -> Iterable[_Query]: ...

    def qrels_iter(self) -> Iterable[_Judged]: ...

    def scoreddocs_iter(self) -> Iterable[_Scored]: ...

    def docs_iter(self) -> Iterable[_Document]: ...

    def docs_store(self) -> _Store: ...


def open_ir_datasets(name: str) -> UnreadDataset:
    """A data set such as ``msmarco-passage/trec-dl-2019/judged`` or ``beir/scifact/test``.

    Candidates are the scored documents that some data sets come with. Wanted documents are looked
    up by id; the corpus is gone through only to build that index, once.

    Raises:
        DataError: for an unknown name, a data set without documents, queries or judgements, or
            one that cannot be downloaded.
        MissingDependencyError: without ir_datasets.
    """
    library = require("ir_datasets", "evaluation", f"The data set ir_datasets:{name}")
    try:
        data = library.load(name)
    except KeyError as error:
        raise DataError(
            f"ir_datasets knows no data set {name!r}; the names are at https://ir-datasets.com"
        ) from error
    lacking = [part for part in ("docs", "queries", "qrels") if not getattr(data, f"has_{part}")()]
    if lacking:
        raise DataError(
            f"the data set {name!r} of ir_datasets has no {' and no '.join(lacking)}; choose a "
            "subset with judgements, as beir/scifact/test is one of beir/scifact"
        )
    place = f"ir_datasets:{name}"
    opened = UnreadDataset(
        name=name,
        queries=_guard(place, lambda: _queries(data, place)),
        judgements=_guard(place, lambda: _judgements(data, place)),
        read_documents=lambda keep: _guard(place, lambda: _documents(data, keep)),
    )
    opened.check(place)
    if not data.has_scoreddocs():
        return opened
    scores = _guard(place, lambda: _scores(data))
    return UnreadDataset(
        name=opened.name,
        queries=opened.queries,
        judgements=opened.judgements,
        read_documents=opened.read_documents,
        candidates={query: list(found) for query, found in scores.items()},
        scores=scores,
    )


def _guard(place: str, read: Callable[[], T]) -> T:
    """``read()``, with the library's failures to download or to read made ours."""
    try:
        return read()
    # RuntimeError is what it raises if all sources of a file failed; requests' errors are OSError.
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{place} could not be read: {error}; it is downloaded on first use, so check the "
            "connection, or copy $IR_DATASETS_HOME from a machine that has it"
        ) from error


def _queries(data: _Data, place: str) -> dict[str, str]:
    queries: dict[str, str] = {}
    for query in data.queries_iter():
        put_query(queries, query.query_id, query.default_text(), place)
    return queries


def _judgements(data: _Data, place: str) -> dict[str, dict[str, int]]:
    judgements: dict[str, dict[str, int]] = {}
    for judged in data.qrels_iter():
        grades = judgements.setdefault(judged.query_id, {})
        put_once(grades, judged.doc_id, int(judged.relevance), f"{place}, query {judged.query_id}")
    return judgements


def _scores(data: _Data) -> ScoredRun:
    found: dict[str, list[tuple[float, str]]] = {}
    for row in data.scoreddocs_iter():
        found.setdefault(row.query_id, []).append((float(row.score), row.doc_id))
    # Stable: equal scores keep the library's order.
    return {
        query: {document: score for score, document in sorted(rows, key=lambda row: -row[0])}
        for query, rows in found.items()
    }


def _documents(data: _Data, keep: Collection[str] | None) -> dict[str, Document]:
    rows: Mapping[str, _Document]
    if keep is None:
        rows = {row.doc_id: row for row in data.docs_iter()}
    else:
        rows = data.docs_store().get_many(list(keep))
    return {name: _document(row) for name, row in rows.items()}


def _document(row: _Document) -> Document:
    """Title and text where there are both; else what the library takes for the whole text."""
    title, text = getattr(row, "title", None), getattr(row, "text", None)
    if isinstance(title, str) and isinstance(text, str):
        return Document(text, title if title else None, row.doc_id)
    return Document(row.default_text(), id=row.doc_id)
