"""Candidates with their texts in one JSON file, as other re-rankers store them.

Two formats, told apart object by object:

- rank_llm's requests: ``{"query": {"text", "qid"}, "candidates": [{"docid", "score", "doc"}]}``;
- ICR's (arXiv 2410.02642): ``{"idx", "question", "paragraphs": [{"idx", "title",
  "paragraph_text", "is_supporting"}]}``. Its multi-hop files name a query "id" instead of "idx";
  their paragraphs are numbered within the query, and so named ``query:paragraph`` here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from icr_rag.errors import DataError
from icr_rag.evaluation.datasets import put_once, put_query
from icr_rag.evaluation.files import json_at, read_json_lines, read_lines
from icr_rag.evaluation.first_stage import ScoredRun
from icr_rag.evaluation.runs import Run
from icr_rag.evaluation.trec import as_id, read_qrels
from icr_rag.evaluation.unread_dataset import UnreadDataset
from icr_rag.types import Document

#: Where rank_llm's documents have their text; the first that is there counts, as it does there.
_TEXT_KEYS = ("text", "segment", "contents", "content", "body", "passage")

_FORMATS = (
    "an object of rank_llm ('query' and 'candidates') or of ICR ('question' and 'paragraphs')"
)


@dataclass
class _Read:
    """What has been read so far; judgements only from objects that hold some."""

    queries: dict[str, str] = field(default_factory=dict)
    documents: dict[str, Document] = field(default_factory=dict)
    run: Run = field(default_factory=dict)
    scores: ScoredRun = field(default_factory=dict)
    judgements: dict[str, dict[str, int]] = field(default_factory=dict)
    excluded: dict[str, frozenset[str]] = field(default_factory=dict)


def open_candidates(
    path: Path, qrels: Path | None = None, name: str | None = None
) -> UnreadDataset:
    """Queries, documents and candidates from one file, in the order that stands there.

    Args:
        path: .jsonl, an object on each line; else JSON, a list of objects or a single one.
        qrels: judgements, as `read_qrels` takes them. None: ICR's "is_supporting", which knows of
            the candidates only: a relevant document that the first stage missed does not count,
            and a query whose candidates are all irrelevant is left out.
        name: None: that of the file.

    Raises:
        DataError: naming what is missing, malformed, or contradicts something else.
    """
    read = _Read()
    for place, row in _objects(path):
        asked = row.get("query")
        if "candidates" in row and isinstance(asked, dict):
            _add_rank_llm(read, asked, row["candidates"], place)
        elif "paragraphs" in row and "question" in row:
            _add_icr(read, row, place)
        else:
            raise DataError(f"{place}: expected {_FORMATS}; its keys: {sorted(row)}")
    if not read.queries:
        raise DataError(f"{path} holds no candidates; expected {_FORMATS}")
    notes: tuple[str, ...] = ()
    if qrels is not None:
        judgements = read_qrels(qrels)
    elif read.judgements:
        judgements = read.judgements
        notes = (
            "Judgements are those of the candidates' file: relevant documents that the first stage "
            "missed are unknown, so that values are higher than with the data set's judgements.",
        )
    else:
        raise DataError(
            f"{path} holds no judgements; name a file of them: candidates:file={path},qrels=FILE"
        )

    def read_documents(keep: Collection[str] | None) -> dict[str, Document]:
        if keep is None:
            return dict(read.documents)
        return {name: document for name, document in read.documents.items() if name in keep}

    # Of a file that has scores only here and there, nothing can be fused.
    complete = all(len(read.scores[query]) == len(read.run[query]) for query in read.run)
    opened = UnreadDataset(
        name=path.stem if name is None else name,
        queries=read.queries,
        judgements=judgements,
        read_documents=read_documents,
        candidates=read.run,
        scores=read.scores if complete else None,
        excluded=read.excluded,
        notes=notes,
    )
    opened.check(str(path))
    return opened


def _objects(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """Each object with its place, for messages."""
    if path.suffix == ".jsonl":
        rows = read_json_lines(path)
    else:
        whole = json_at("\n".join(line for _, line in read_lines(path)), str(path))
        listed = whole if isinstance(whole, list) else [whole]
        rows = ((f"{path}, object {number}", row) for number, row in enumerate(listed, start=1))
    for place, row in rows:
        if not isinstance(row, dict):
            raise DataError(f"{place}: expected {_FORMATS}, got a {type(row).__name__}")
        yield place, row


def _add_rank_llm(read: _Read, asked: dict[str, object], candidates: object, place: str) -> None:
    query = as_id(asked.get("qid"), f"{place}, query.qid")
    _start(read, query, asked.get("text"), place)
    for candidate in _dicts(candidates, place, "candidates"):
        name = as_id(candidate.get("docid"), f"{place}, docid of a candidate")
        doc = candidate.get("doc")
        key = next((key for key in _TEXT_KEYS if isinstance(doc, dict) and key in doc), None)
        if key is None or not isinstance(doc, dict):
            raise DataError(
                f"{place}: the 'doc' of candidate {name!r} has none of {', '.join(_TEXT_KEYS)}"
            )
        _add(read, query, name, doc[key], doc.get("title"), place)
        score = candidate.get("score")
        if isinstance(score, (int, float)) and not isinstance(score, bool):
            read.scores[query][name] = float(score)


def _add_icr(read: _Read, row: dict[str, object], place: str) -> None:
    shared = "idx" in row
    query = as_id(row.get("idx", row.get("id")), f"{place}, idx")
    _start(read, query, row["question"], place)
    grades = read.judgements.setdefault(query, {})
    for number, paragraph in enumerate(_dicts(row["paragraphs"], place, "paragraphs")):
        # Numbers within the query where it has an "id" are no names: each query has a 0.
        name = as_id(paragraph.get("idx", number), f"{place}, idx of a paragraph")
        name = name if shared else f"{query}:{name}"
        _add(read, query, name, paragraph.get("paragraph_text"), paragraph.get("title"), place)
        supporting = paragraph.get("is_supporting")
        if not isinstance(supporting, (bool, int)):
            raise DataError(
                f"{place}: 'is_supporting' of paragraph {name!r} is {supporting!r}; it must be "
                "true or false"
            )
        grades[name] = int(supporting)
    if shared:
        # Some of BEIR's queries are documents of the corpus; ICR's own evaluation drops these.
        read.excluded[query] = frozenset({query})
        grades.pop(query, None)


def _start(read: _Read, query: str, text: object, place: str) -> None:
    if not isinstance(text, str):
        raise DataError(f"{place}: the text of query {query!r} is {text!r}; it must be a string")
    if query in read.queries:
        raise DataError(f"{place}: query {query!r} stands there twice")
    put_query(read.queries, query, text, place)
    read.run[query] = []
    read.scores[query] = {}


def _add(read: _Read, query: str, name: str, text: object, title: object, place: str) -> None:
    """Add a candidate to the query's list and its text to the documents."""
    text = _string(text, "text", name, place)
    title = None if title is None else _string(title, "title", name, place)
    if name in read.run[query]:
        raise DataError(f"{place}: document {name!r} stands twice for query {query!r}")
    put_once(read.documents, name, Document(text, title if title else None, name), place)
    read.run[query].append(name)


def _string(value: object, key: str, name: str, place: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{place}: the {key} of document {name!r} is {value!r}, not a string")
    return value


def _dicts(value: object, place: str, key: str) -> list[dict[str, object]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise DataError(f"{place}: {key!r} must be a list of objects")
    return value
