"""Readings for a profile, kept in a file, so that an interrupted collection goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from icr_rag import __version__
from icr_rag.config import RerankerConfig
from icr_rag.evaluation.datasets import Dataset
from icr_rag.evaluation.environment import local_files
from icr_rag.evaluation.harness import Setting, given_order
from icr_rag.profiling.collect import collect
from icr_rag.profiling.samples import Sample, load_samples, save_samples

#: Queries between two writes of the file. Writing grows with what there is; where the process is
#: killed, a few minutes' work may be lost, not more.
_EVERY = 20


@dataclass(frozen=True)
class Task:
    """Queries of one origin, with their candidates.

    Attributes:
        name: tells this origin from others; the ``group`` of its samples.
        dataset: documents, queries, judgements.
        candidates: query id -> document ids, best first. Queries without any are left out.
        queries: ids of those to read.
        depth: how many candidates to read.
        label_free: whether the queries were made from the documents.
        unlabelled: whether nothing is known to be relevant.
    """

    name: str
    dataset: Dataset
    candidates: Mapping[str, Sequence[str]]
    queries: Sequence[str]
    depth: int = 20
    label_free: bool = False
    unlabelled: bool = False

    @property
    def labels(self) -> str:
        """What is known to be relevant: "given" by people, "made" with the queries, "none"."""
        return "none" if self.unlabelled else "made" if self.label_free else "given"


def collect_or_resume(
    reranker: Any,
    tasks: Sequence[Task],
    path: Path,
    *,
    shuffle: int | None = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Sample]:
    """One `Sample` per query of every task, in their order: kept in ``path``, or read now.

    What is kept is used where nothing that it depends on has changed: settings, texts, candidates,
    judgements, files of a local model. The file is replaced by what is asked for here, also if
    reading is interrupted; with nothing to read it stays as it is, and no model is loaded.

    Args:
        reranker: a `Reranker` with `profiling_config`.
        tasks: what to read; no two with the same name.
        path: an .npz file, which need not exist.
        shuffle: seed of the candidates' order in the prompt; None: as given.
        progress: called with (finished, all) queries before the first is read and after each;
            never if there is nothing to read.

    Raises:
        DataError: if the file cannot be written, or holds no samples.
        PromptTooLongError: if a prompt cannot hold a task's ``depth`` documents.
    """
    wanted = {
        _key(reranker.config, task, query, shuffle): (task, query)
        for task in tasks
        for query in task.queries
        if task.candidates.get(query)
    }
    stored = load_samples(path) if path.is_file() else []
    found = {
        sample.key: named
        for sample in stored
        if sample.key in wanted
        and (named := _with_documents(sample, *wanted[sample.key], shuffle)) is not None
    }
    todo = [key for key in wanted if key not in found]
    written = True
    try:
        for number, key in enumerate(todo, start=1):
            if number == 1 and progress is not None:
                progress(len(found), len(wanted))
            task, query = wanted[key]
            (sample,) = collect(
                reranker,
                task.dataset,
                task.candidates,
                [query],
                depth=task.depth,
                shuffle=shuffle,
                group=task.name,
            )
            found[key], written = replace(sample, key=key), False
            if number % _EVERY == 0:
                save_samples(path, list(found.values()))
                written = True
            if progress is not None:
                progress(len(found), len(wanted))
    finally:
        if not written:
            save_samples(path, list(found.values()))
    return [found[key] for key in wanted]


def read_order(task: Task, query: str, shuffle: int | None = 1) -> list[str]:
    """Ids of the candidates of a query that are read, in the order of the prompt."""
    names = given_order(list(task.candidates[query]), query, Setting(task.depth, shuffle))
    return names[: task.depth]


def _with_documents(sample: Sample, task: Task, query: str, shuffle: int | None) -> Sample | None:
    """A sample that names its documents; None: of before they did, with blank ones left out."""
    if sample.documents:
        return sample
    names = read_order(task, query, shuffle)
    same = len(names) == len(sample.grades)
    return replace(sample, documents=tuple(names)) if same else None


def _key(config: RerankerConfig, task: Task, query: str, shuffle: int | None) -> str:
    """Everything that a sample depends on, as a hash."""
    names = read_order(task, query, shuffle)
    texts = [task.dataset.documents[name].content for name in names]
    grades = task.dataset.judgements.get(query, {})
    # As JSON, so that no two lists of parts run together to the same bytes.
    parts = [__version__, config.to_dict(), local_files(config.model), task.name, query,
             task.dataset.queries[query], names, texts, grades]  # fmt: skip
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
