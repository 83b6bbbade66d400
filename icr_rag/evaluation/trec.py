"""TREC's files: judgements, topics as TSV, and collections as TSV or JSON lines.

Runs are read by `icr_rag.evaluation.runs`.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from icr_rag.errors import DataError
from icr_rag.evaluation.datasets import put_once, put_query, read_judgements
from icr_rag.evaluation.files import json_at, read_lines
from icr_rag.evaluation.runs import read_run, read_run_scores
from icr_rag.evaluation.unread_dataset import UnreadDataset
from icr_rag.types import Document

#: Names of a document's id and of its text in JSON lines: ours, BEIR's, MS MARCO's, Anserini's.
_ID_KEYS = ("id", "_id", "docid")
_TEXT_KEYS = ("text", "contents")


def open_trec(
    corpus: Path, topics: Path, qrels: Path, run: Path | None = None, name: str | None = None
) -> UnreadDataset:
    """A data set from single files.

    Args:
        corpus: ``id<TAB>text`` lines; or, named .jsonl, objects with "id", "text" and, if there is
            one, "title" ("_id" or "docid", and "contents", are understood).
        topics: ``query-id<TAB>text`` lines.
        qrels: judgements, as `read_qrels` takes them.
        run: candidates, as `read_run` takes them.
        name: None: that of the judgements' file.

    Raises:
        DataError: naming the file and line that is missing, malformed, or contradicts another.
    """
    opened = UnreadDataset(
        name=qrels.stem if name is None else name,
        queries=read_topics(topics),
        judgements=read_qrels(qrels),
        read_documents=lambda keep: read_collection(corpus, keep),
        candidates=None if run is None else read_run(run),
        scores=None if run is None else read_run_scores(run),
    )
    opened.check(str(topics))
    return opened


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Judgements: ``qid iteration docid grade`` (TREC), or BEIR's TSV. The first line tells.

    Returns:
        query id -> document id -> grade; above 0 is relevant, below it is spam or broken.

    Raises:
        DataError: naming the line that is malformed or contradicts another; or if there is none.
    """
    first = next((line for _, line in read_lines(path)), None)
    if first is None:
        raise DataError(f"{path} holds no judgements; expected lines 'qid 0 docid grade'")
    # A tab-separated line of three is BEIR's even if an id in it holds a blank.
    if first.count("\t") == 2:
        return read_judgements(path)
    judgements: dict[str, dict[str, int]] = {}
    for number, line in read_lines(path):
        try:
            query, _, document, text = line.split()
            grade = int(text)
        except ValueError as error:
            raise DataError(
                f"{path}:{number}: expected 'qid 0 docid grade' with a whole number, got {line!r}"
            ) from error
        put_once(judgements.setdefault(query, {}), document, grade, f"{path}:{number}")
    return judgements


def read_topics(path: Path) -> dict[str, str]:
    """Queries from ``query-id<TAB>text`` lines, in file order.

    Raises:
        DataError: naming the line without a tab, with a blank text, or that contradicts another.
    """
    queries: dict[str, str] = {}
    for number, line in read_lines(path):
        name, text = _split(line, f"{path}:{number}", "query-id")
        put_query(queries, name, text, f"{path}:{number}")
    return queries


def read_collection(path: Path, keep: Collection[str] | None = None) -> dict[str, Document]:
    """Documents from a collection; ``keep``: only these ids are held. Every line is checked.

    Raises:
        DataError: naming the line that is malformed or contradicts another.
    """
    if path.suffix not in (".tsv", ".jsonl"):
        raise DataError(
            f"{path}: a collection is named .tsv (id, tab, text) or .jsonl (objects with 'id' and "
            "'text'); rename or convert the file"
        )
    documents: dict[str, Document] = {}
    for number, line in read_lines(path):
        place = f"{path}:{number}"
        if path.suffix == ".tsv":
            name, text = _split(line, place, "id")
            document = Document(text, id=name)
        else:
            document = _document(line, place)
        if keep is None or document.id in keep:
            put_once(documents, str(document.id), document, place)
    return documents


def _split(line: str, place: str, what: str) -> tuple[str, str]:
    name, tab, text = line.partition("\t")
    if not tab or not name.strip():
        raise DataError(f"{place}: expected {what}, a tab and the text, got {line[:80]!r}")
    return name.strip(), text


def _document(line: str, place: str) -> Document:
    row = json_at(line, place)
    if not isinstance(row, dict):
        raise DataError(f"{place}: expected an object with 'id' and 'text'")
    name = as_id(_first(row, _ID_KEYS, place), place)
    text = _string(_first(row, _TEXT_KEYS, place), "text", place)
    title = row.get("title")
    if title is not None:
        title = _string(title, "title", place)
    return Document(text, title if title else None, name)


def _string(value: object, key: str, place: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{place}: {key!r} is a {type(value).__name__}, not a string")
    return value


def _first(row: dict[str, object], keys: tuple[str, ...], place: str) -> object:
    """The value of the key that the object has."""
    for key in keys:
        if key in row:
            return row[key]
    raise DataError(f"{place}: an object without {' or '.join(map(repr, keys))}")


def as_id(value: object, place: str) -> str:
    """An id as a string; strings and whole numbers are ids, `DataError` for anything else."""
    # bool is an int to Python but no id.
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise DataError(f"{place}: the id is {value!r}; it must be a string or a whole number")
    return str(value)
