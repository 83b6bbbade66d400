"""Where the queries of a profile come from: labelled data sets, your own documents, or a log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path

from icr_rag.document_files import read_document_file
from icr_rag.errors import DataError, InputError
from icr_rag.evaluation.datasets import load_beir
from icr_rag.evaluation.grid_config import QuerySubset
from icr_rag.evaluation.grid_data import choose_queries, only_run
from icr_rag.evaluation.runs import read_run
from icr_rag.profiling.queries import label_free
from icr_rag.profiling.query_log import log_task
from icr_rag.profiling.resume import Task
from icr_rag.types import Document

_KINDS = ("auto", "labelled", "label-free", "both")

#: Endings of the files of a folder that has no corpus.jsonl.
_TEXTS = (".md", ".markdown", ".rst", ".txt", ".py")


@dataclass(frozen=True)
class Wanted:
    """Which queries.

    Attributes:
        queries: "labelled", "label-free", "both" or "auto", files of queries, or several of these
            with commas.
        kinds: of label-free ones. limit: of each kind and data.
        parity: half of the labelled ones. depth: candidates per query.
        language: of the documents, see `icr_rag.profiling.terms.terms`.
    """

    queries: str
    kinds: tuple[str, ...]
    limit: int
    parity: str | None
    depth: int
    language: str = "english"


def load_queries(
    paths: Sequence[Path], wanted: Wanted, write: Callable[[str], str] | None = None
) -> list[Task]:
    """The queries of all paths, then those of files of queries, searched for in all of them.

    Args:
        paths: BEIR folders, folders with a ``corpus.jsonl`` alone or with text files, .jsonl or
            text files.
        wanted: which queries.
        write: has a model write a question to a text.

    Raises:
        DataError: if something is missing or malformed.
        InputError: for an unknown kind of queries or half.
        ConfigError: for an unknown language.
    """
    kinds, logs = _split(wanted.queries)
    if wanted.parity not in (None, "even", "odd"):
        raise InputError(f"--parity {wanted.parity}; allowed are even and odd")
    tasks = []
    for path in paths if kinds else ():
        labelled = path.is_dir() and (path / "queries.jsonl").is_file()
        if kinds & {"labelled", "both"} and not labelled:
            raise DataError(
                f"{path} has no queries.jsonl, so that there are no labelled queries; give "
                "--queries label-free"
            )
        if labelled and kinds != {"label-free"}:
            tasks.append(_labelled(path, wanted))
        if not labelled or kinds & {"label-free", "both"}:
            tasks.append(_label_free(path, wanted, write))
    if logs:
        documents = _pooled(paths)
        for log in logs:
            tasks.append(log_task(log, documents, wanted.limit, wanted.depth, wanted.language))
    return _told_apart(tasks)


def _told_apart(tasks: Sequence[Task]) -> list[Task]:
    """The same with a number behind a name that another one before has too, as two folders of one
    name in different places have: readings and scores are found by it."""
    names: set[str] = set()
    found = []
    for task in tasks:
        numbered = (f"{task.name} ({number})" for number in count(2))
        name = next(own for own in chain([task.name], numbered) if own not in names)
        names.add(name)
        found.append(task if name == task.name else replace(task, name=name))
    return found


def _split(queries: str) -> tuple[set[str], list[Path]]:
    """Kinds of queries, and files."""
    parts = [queries] if Path(queries).is_file() else queries.split(",")
    wrong = [part for part in parts if part not in _KINDS and not Path(part).is_file()]
    if wrong:
        raise InputError(
            f"--queries {queries}; {wrong[0]!r} is no file, and allowed are {', '.join(_KINDS)}"
        )
    return {part for part in parts if part in _KINDS}, [Path(p) for p in parts if p not in _KINDS]


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
    documents = read_documents(path)
    name = f"{path.resolve().name if path.is_dir() else path.stem}, label-free"
    dataset, run = label_free(
        documents,
        kinds=wanted.kinds,
        count=wanted.limit,
        depth=wanted.depth,
        name=name,
        write=write,
        language=wanted.language,
    )
    return Task(name, dataset, run, tuple(dataset.queries), wanted.depth, label_free=True)


def read_documents(path: Path) -> dict[str, Document]:
    """Id -> document, of a file, a folder's corpus.jsonl, or its text files, whose ids are their
    paths in it. Hidden files and folders are left out.

    Raises:
        DataError: if something cannot be read, or there is nothing.
    """
    corpus = path / "corpus.jsonl" if path.is_dir() else path
    if not path.is_dir() or corpus.is_file():
        found = {}
        for number, document in enumerate(read_document_file(str(corpus))):
            found[document.id if document.id is not None else str(number)] = document
        return found
    files = [
        file
        for file in sorted(path.rglob("*"))
        if file.suffix in _TEXTS
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]
    if not files:
        raise DataError(f"{path} holds no corpus.jsonl, and no file {', '.join(_TEXTS)}")
    return {
        file.relative_to(path).as_posix(): document
        for file in files
        for document in read_document_file(str(file))
    }


def _pooled(paths: Sequence[Path]) -> dict[str, Document]:
    """All documents; of several paths, with the path before the id."""
    if len(paths) == 1:
        return read_documents(paths[0])
    return {
        f"{path}:{name}": document
        for path in paths
        for name, document in read_documents(path).items()
    }
