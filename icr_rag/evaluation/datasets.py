"""Evaluation data in BEIR form: a folder with corpus, queries and relevance judgements."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from icr_rag.errors import DataError
from icr_rag.evaluation.files import read_json_lines, read_lines
from icr_rag.types import Document

T = TypeVar("T")


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


def load_beir(
    folder: str | Path, split: str = "test", keep: Container[str] | None = None
) -> Dataset:
    """Read ``corpus.jsonl``, ``queries.jsonl`` and ``qrels.tsv`` or ``qrels/<split>.tsv``.

    Args:
        folder: the data set's folder.
        split: which judgements, where the folder has a ``qrels`` folder, which then goes before
            ``qrels.tsv``.
        keep: ids of the documents to hold in memory; None: all. Every line is checked.

    Raises:
        DataError: naming the file and line that is missing, malformed, or contradicts another.
    """
    folder = Path(folder)
    check_folder(folder)
    documents = read_corpus(folder, keep)
    queries, judgements = read_labels(folder, split)
    return Dataset(folder.resolve().name, documents, queries, judgements)


def check_folder(folder: Path) -> None:
    """Raises `DataError` if there is no such folder."""
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder; give one with corpus.jsonl, queries.jsonl and qrels.tsv"
        )


def read_labels(folder: Path, split: str) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    """Queries and judgements of a BEIR folder, as in `Dataset`; errors as in `load_beir`."""
    queries: dict[str, str] = {}
    for place, row in _read_jsonl(folder / "queries.jsonl"):
        put_query(queries, row.name, row.text, place)
    judgements = read_judgements(_judgements_file(folder, split))
    check_queries(Dataset(folder.name, {}, queries, judgements), folder / "queries.jsonl")
    return queries, judgements


def read_corpus(folder: Path, keep: Container[str] | None = None) -> dict[str, Document]:
    """The documents of a BEIR folder's ``corpus.jsonl``; ``keep`` and errors as in `load_beir`."""
    documents: dict[str, Document] = {}
    for place, row in _read_jsonl(folder / "corpus.jsonl"):
        if keep is None or row.name in keep:
            document = Document(row.text, row.title if row.title else None, row.name)
            put_once(documents, row.name, document, place)
    return documents


def _judgements_file(folder: Path, split: str) -> Path:
    path, single = folder / "qrels" / f"{split}.tsv", folder / "qrels.tsv"
    if path.is_file():
        return path
    # Where there are splits, a misspelt one must not silently become qrels.tsv.
    splits = sorted(file.stem for file in path.parent.glob("*.tsv"))
    if single.is_file() and not splits:
        return single
    reason = (
        f"there are the splits {', '.join(splits)}" if splits else "there is no qrels.tsv either"
    )
    raise DataError(f"no judgements at {path}; {reason}")


def check_queries(dataset: Dataset, place: str | Path) -> None:
    """Refuse a data set whose mean would be over nothing, or over too few queries.

    Args:
        dataset: what was read; its documents do not matter.
        place: where the queries stand, for messages.

    Raises:
        DataError: if no query has a relevant document, or one that has is not in ``place``.
    """
    # Left out, they would make the mean look better than it is.
    unknown = [
        query
        for query, grades in dataset.judgements.items()
        if query not in dataset.queries and any(grade > 0 for grade in grades.values())
    ]
    if unknown:
        raise DataError(
            f"{place} lacks {len(unknown)} queries that have a relevant document, "
            f"{unknown[0]!r} first; add them, or take their judgements out"
        )
    if not dataset.judged_queries:
        raise DataError(f"{place}: no query has a document judged relevant")


@dataclass(frozen=True)
class _Row:
    name: str
    text: str
    title: str | None


def _read_jsonl(path: Path) -> Iterator[tuple[str, _Row]]:
    """Each line's place, for messages, and what its object holds, checked."""
    for place, row in read_json_lines(path):
        if not isinstance(row, dict) or not {"_id", "text"} <= row.keys():
            raise DataError(f"{place}: expected an object with '_id' and 'text'")
        name, text, title = row["_id"], row["text"], row.get("title")
        # bool is an int to Python but no id.
        if isinstance(name, bool) or not isinstance(name, (str, int)):
            raise DataError(f"{place}: '_id' is {name!r}; it must be a string or an integer")
        if not isinstance(text, str):
            raise DataError(f"{place}: 'text' is a {type(text).__name__}, not a string")
        if not isinstance(title, (str, type(None))):
            raise DataError(f"{place}: 'title' is a {type(title).__name__}, not a string")
        yield place, _Row(str(name), text, title)


def read_judgements(path: Path) -> dict[str, dict[str, int]]:
    """Judgements as BEIR writes them: query-id, corpus-id and grade, separated by tabs.

    Raises:
        DataError: naming the line that is malformed or contradicts another.
    """
    judgements: dict[str, dict[str, int]] = {}
    for number, line in read_lines(path):
        fields = line.split("\t")
        if number == 1 and fields[-1].strip() == "score":
            continue
        try:
            query, document, text = fields
            grade = int(text)
        except ValueError as error:
            raise DataError(
                f"{path}:{number}: expected query-id, corpus-id and a whole number, separated by "
                f"tabs, got {line!r}"
            ) from error
        put_once(judgements.setdefault(query, {}), document, grade, f"{path}:{number}")
    return judgements


def put_query(queries: dict[str, str], name: str, text: str, place: str) -> None:
    """Add a query; a blank one, or another under the same id, is a `DataError`."""
    if not text.strip():
        raise DataError(f"{place}: the text of query {name} is blank")
    put_once(queries, name, text, place)


def put_once(table: dict[str, T], key: str, value: T, place: str) -> None:
    """Add to ``table``; the same again does no harm, something else under the same id does."""
    if table.setdefault(key, value) != value:
        raise DataError(f"{place}: {key!r} stands there twice, with different contents")
