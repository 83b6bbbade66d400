"""Where the queries of a profile come from: labelled data sets, or your own documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from icr_rag.document_files import read_document_file
from icr_rag.errors import DataError, InputError
from icr_rag.evaluation.datasets import load_beir
from icr_rag.evaluation.grid_config import QuerySubset
from icr_rag.evaluation.grid_data import choose_queries, only_run
from icr_rag.evaluation.runs import read_run
from icr_rag.profiling.queries import label_free
from icr_rag.profiling.resume import Task
from icr_rag.types import Document

_KINDS = ("auto", "labelled", "label-free", "both")


@dataclass(frozen=True)
class Wanted:
    """Which queries: "labelled", "label-free", "both" or "auto"; kinds, number, half, depth."""

    queries: str
    kinds: tuple[str, ...]
    limit: int
    parity: str | None
    depth: int


def load_queries(
    paths: Sequence[Path], wanted: Wanted, write: Callable[[str], str] | None = None
) -> list[Task]:
    """The queries of all paths.

    Args:
        paths: BEIR folders, folders with a ``corpus.jsonl`` alone, .jsonl or text files.
        wanted: which queries.
        write: has a model write a question to a text.

    Raises:
        DataError: if something is missing or malformed.
        InputError: for an unknown kind of queries or half.
    """
    if wanted.queries not in _KINDS:
        raise InputError(f"--queries {wanted.queries}; allowed are {', '.join(_KINDS)}")
    if wanted.parity not in (None, "even", "odd"):
        raise InputError(f"--parity {wanted.parity}; allowed are even and odd")
    tasks = []
    for path in paths:
        labelled = path.is_dir() and (path / "queries.jsonl").is_file()
        if wanted.queries in ("labelled", "both") and not labelled:
            raise DataError(
                f"{path} has no queries.jsonl, so that there are no labelled queries; give "
                "--queries label-free"
            )
        if labelled and wanted.queries != "label-free":
            tasks.append(_labelled(path, wanted))
        if not labelled or wanted.queries in ("label-free", "both"):
            tasks.append(_label_free(path, wanted, write))
    return tasks


def _labelled(path: Path, wanted: Wanted) -> Task:
    # A query that is a document of its own corpus would be a negative with all of its words.
    run = {
        query: [name for name in documents if name != query]
        for query, documents in read_run(only_run(path)).items()
    }
    keep = {document for documents in run.values() for document in documents[: wanted.depth]}
    dataset = load_beir(path, keep=keep)
    subset = QuerySubset(parity=wanted.parity, limit=wanted.limit)
    queries = tuple(q for q in choose_queries(dataset.judged_queries, subset) if run.get(q))
    return Task(dataset.name, dataset, run, queries, wanted.depth, label_free=False)


def _label_free(path: Path, wanted: Wanted, write: Callable[[str], str] | None) -> Task:
    corpus = path / "corpus.jsonl" if path.is_dir() else path
    documents: dict[str, Document] = {}
    for number, document in enumerate(read_document_file(str(corpus))):
        documents[document.id if document.id is not None else str(number)] = document
    name = f"{path.resolve().name if path.is_dir() else path.stem}, label-free"
    dataset, run = label_free(
        documents,
        kinds=wanted.kinds,
        count=wanted.limit,
        depth=wanted.depth,
        name=name,
        write=write,
    )
    return Task(name, dataset, run, tuple(dataset.queries), wanted.depth, label_free=True)
