"""The data sets of a grid, loaded and checked before the first query is ranked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from icr_rag.errors import DataError
from icr_rag.evaluation.datasets import Dataset
from icr_rag.evaluation.grid_config import DataEntry, QuerySubset
from icr_rag.evaluation.runs import Run
from icr_rag.evaluation.sources import load_for_ranking


@dataclass(frozen=True)
class GridData:
    """A data set with its candidates.

    Attributes:
        entry: as the grid names it.
        dataset: queries, judgements, and the documents that may be ranked.
        candidates: the first stage's run.
        scores: its scores, for a fusion; None if there are none.
        queries: ids of the judged queries that count, in file order.
        notes: where the candidates come from, and what else a reader should know.
    """

    entry: DataEntry
    dataset: Dataset
    candidates: Run
    scores: Mapping[str, Mapping[str, float]] | None
    queries: tuple[str, ...]
    notes: tuple[str, ...]


def load_data(entry: DataEntry, depth: int, folder: Path | None = None) -> GridData:
    """Load a data set and the documents among the first ``depth`` candidates.

    Args:
        entry: which.
        depth: the greatest depth of the grid.
        folder: where relative paths begin; None: the working directory.

    Raises:
        DataError: if something is missing or malformed, or no query is left.
        MissingDependencyError: naming the extra that the source needs.
    """
    run = None if entry.candidates is None else Path(entry.candidates)
    source = load_for_ranking(
        entry.source,
        depth,
        split=entry.split,
        run=run,
        base=folder,
        ignore_identical_ids=entry.ignore_identical_ids,
    )
    dataset = replace(source.dataset, name=entry.label)
    if entry.document_words is not None:
        dataset = cut_documents(dataset, entry.document_words)
    queries = choose_queries(dataset.judged_queries, entry.queries)
    if not queries:
        raise DataError(
            f"{entry.label}: no query is left with {entry.queries.model_dump(exclude_none=True)}"
        )
    notes = (f"Candidates are {source.first_stage}.", *source.notes)
    candidates = {} if source.candidates is None else source.candidates
    return GridData(entry, dataset, candidates, source.scores, tuple(queries), notes)


def only_run(folder: Path) -> Path:
    """The one file ``run.*`` of a data set's folder.

    Raises:
        DataError: if there is none or more than one.
    """
    found = sorted(path for path in folder.glob("run.*") if path.is_file())
    if len(found) == 1:
        return found[0]
    if found:
        choices = ", ".join(path.name for path in found)
        raise DataError(f"{folder} holds several runs: {choices}; keep or name one of them")
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give a data set's folder in BEIR form")
    raise DataError(f"{folder} holds no file run.*; put the first stage's run there")


def choose_queries(queries: list[str], subset: QuerySubset) -> list[str]:
    """The queries of a subset, in the order given."""
    if subset.parity is not None:
        wanted = 0 if subset.parity == "even" else 1
        queries = [query for query in queries if _number(query) % 2 == wanted]
    return queries[: subset.limit]


def _number(query: str) -> int:
    if query.isascii() and query.isdigit():
        return int(query)
    return hashlib.sha256(query.encode()).digest()[-1]


def cut_documents(dataset: Dataset, words: int) -> Dataset:
    """The data set with documents of at most so many words, as the papers cut them.

    Words are what stands between white space; the title counts. A document that is cut keeps its
    line breaks as blanks.
    """
    documents = {}
    for name, document in dataset.documents.items():
        title = (document.title or "").split()
        text = document.text.split()
        if len(title) + len(text) > words:
            left = max(0, words - len(title))
            short = " ".join(title[:words]) if document.title else document.title
            document = replace(document, title=short, text=" ".join(text[:left]))
        documents[name] = document
    return replace(dataset, documents=documents)
