"""Re-rank the candidates of every query, measure before and after, and survive interruptions."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icr_rag import __version__
from icr_rag.errors import DataError
from icr_rag.evaluation.datasets import Dataset
from icr_rag.evaluation.metrics import evaluate_run, mean_measures
from icr_rag.evaluation.runs import Run
from icr_rag.reranker import Reranker


@dataclass(frozen=True)
class Setting:
    """What is re-ranked.

    Attributes:
        depth: how many of the first-stage candidates; the rest keep their places below.
        shuffle: seed of a random order of these candidates; None: the first-stage order.
        limit: only the first so many queries; None: all.
    """

    depth: int = 100
    shuffle: int | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Evaluation:
    """The outcome.

    Attributes:
        measures: measure -> mean over all queries that have a relevant document.
        candidates: the same for the order that the reranker was given.
        per_query: query id -> measure -> value.
        run: the re-ranked run, with the candidates below ``depth`` in their old places.
        seconds: per re-ranked query.
        tokens: run through the model per re-ranked query.
        truncated: how many documents were cut, over all queries.
    """

    measures: dict[str, float]
    candidates: dict[str, float]
    per_query: dict[str, dict[str, float]]
    run: Run
    seconds: list[float]
    tokens: list[int]
    truncated: int
    setting: Setting
    config: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """JSON types; the measures come first, under ir-measures' names."""
        return {
            **self.measures,
            "candidates": self.candidates,
            "queries": len(self.per_query),
            "depth": self.setting.depth,
            "shuffle": self.setting.shuffle,
            "limit": self.setting.limit,
            "seconds": {
                "median": statistics.median(self.seconds) if self.seconds else 0.0,
                "total": sum(self.seconds),
            },
            "tokens": {
                "median": statistics.median(self.tokens) if self.tokens else 0,
                "total": sum(self.tokens),
            },
            "truncated_documents": self.truncated,
            "config": self.config,
            "versions": versions(),
            "hardware": hardware(),
            "per_query": self.per_query,
        }


def evaluate(
    reranker: Reranker,
    dataset: Dataset,
    candidates: Run,
    setting: Setting,
    state: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Re-rank and measure.

    Args:
        reranker: what is evaluated.
        dataset: queries, documents, judgements.
        candidates: the first stage's run.
        setting: depth, shuffle, limit.
        state: file of finished queries. An evaluation that was interrupted goes on from it; a
            file made with other settings is replaced.
        progress: called with (finished, all) queries.

    Raises:
        DataError: if a candidate is not in the corpus, or no query has a relevant document.
    """
    queries = dataset.judged_queries[: setting.limit]
    if not queries:
        raise DataError(f"{dataset.name}: no query has a document judged relevant")
    given = {
        query: given_order(candidates.get(query, []), query, setting) for query in queries
    }
    finished = _State(state, _fingerprint(reranker, dataset, given, setting))
    for number, query in enumerate(queries):
        if progress is not None:
            progress(number, len(queries))
        if query in finished.rows or not given[query]:
            continue
        head = given[query][: setting.depth]
        missing = [document for document in head if document not in dataset.documents]
        if missing:
            raise DataError(
                f"candidates of query {query} are not in the corpus of {dataset.name}: "
                f"{missing[:3]}; is this the run of another data set?"
            )
        started = time.perf_counter()
        ranking = reranker.rank(
            dataset.queries[query], [dataset.documents[document] for document in head]
        )
        finished.add(
            query,
            {
                "order": [hit.index for hit in ranking],
                "seconds": time.perf_counter() - started,
                "tokens": ranking.usage.tokens,
                "truncated": len(ranking.usage.truncated),
            },
        )
    if progress is not None:
        progress(len(queries), len(queries))

    run = {}
    for query in queries:
        head, rest = given[query][: setting.depth], given[query][setting.depth :]
        order = finished.rows[query]["order"] if head else []
        # A reranker's own top_n must not lose documents: what it left out follows.
        left_out = [index for index in range(len(head)) if index not in set(order)]
        run[query] = [head[index] for index in [*order, *left_out]] + rest
    rows = [finished.rows[query] for query in queries if given[query]]
    per_query = evaluate_run(run, dataset.judgements, queries)
    return Evaluation(
        mean_measures(per_query),
        mean_measures(evaluate_run(given, dataset.judgements, queries)),
        per_query,
        run,
        [row["seconds"] for row in rows],
        [row["tokens"] for row in rows],
        sum(row["truncated"] for row in rows),
        setting,
        reranker.config.to_dict(),
    )


def given_order(candidates: Sequence[str], query: str, setting: Setting) -> list[str]:
    """The candidates as the reranker gets them: the first ``depth`` shuffled if asked for."""
    head, rest = list(candidates[: setting.depth]), list(candidates[setting.depth :])
    if setting.shuffle is not None:
        # Seeded by text: the same on every machine and in every process.
        random.Random(f"{setting.shuffle}:{query}").shuffle(head)  # noqa: S311
    return head + rest


def _fingerprint(
    reranker: Reranker, dataset: Dataset, given: Mapping[str, Sequence[str]], setting: Setting
) -> str:
    """Everything that a finished query's ranking depends on, as a hash."""
    digest = hashlib.sha256()
    for part in (__version__, reranker.config.to_dict(), setting.depth, given):
        digest.update(json.dumps(part, sort_keys=True).encode())
    for query, documents in given.items():
        digest.update(dataset.queries[query].encode())
        for document in documents[: setting.depth]:
            if document in dataset.documents:
                digest.update(dataset.documents[document].content.encode())
    return digest.hexdigest()


class _State:
    """Finished queries, one JSON line each, behind a header with the fingerprint."""

    def __init__(self, path: Path | None, fingerprint: str) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = {}
        if path is None:
            return
        if path.is_file():
            self._read(path, fingerprint)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Written anew, which drops a line that a killed process left half done.
            with path.open("w", encoding="utf-8") as out:
                out.write(json.dumps({"fingerprint": fingerprint}) + "\n")
                for query, row in self.rows.items():
                    out.write(json.dumps({"query": query, **row}) + "\n")
        except OSError as error:
            raise DataError(f"cannot write the state file {path}: {error}") from error

    def _read(self, path: Path, fingerprint: str) -> None:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        try:
            if json.loads(lines[0]) != {"fingerprint": fingerprint}:
                return
        except json.JSONDecodeError:
            return
        for line in lines[1:]:
            try:
                row = json.loads(line)
                self.rows[row.pop("query")] = row
            except (json.JSONDecodeError, KeyError, AttributeError):
                continue  # the half-written last line of a killed process

    def add(self, query: str, row: dict[str, Any]) -> None:
        """Remember a finished query, on disk before in memory."""
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as out:
                out.write(json.dumps({"query": query, **row}) + "\n")
        self.rows[query] = row


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    import torch
    import transformers

    return {
        "icr_rag": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def hardware() -> dict[str, Any]:
    """The machine that the numbers come from."""
    import torch

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "accelerator": device,
    }
