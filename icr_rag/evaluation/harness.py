"""Re-rank the candidates of every query, measure before and after, and survive interruptions."""

from __future__ import annotations

import hashlib
import json
import random
import statistics
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from icr_rag import __version__
from icr_rag.config import RerankerConfig
from icr_rag.errors import DataError
from icr_rag.evaluation.datasets import Dataset
from icr_rag.evaluation.environment import device_of, hardware, local_files, versions
from icr_rag.evaluation.finished import Finished, State
from icr_rag.evaluation.metrics import MEASURES, evaluate_run, mean_measures
from icr_rag.evaluation.runs import Run
from icr_rag.profiles.shipped import shipped_profiles
from icr_rag.types import Document, Ranking


class Ranker(Protocol):
    """What can be evaluated: `icr_rag.Reranker`, or anything that ranks like it."""

    config: RerankerConfig

    def rank(
        self,
        query: str,
        documents: Sequence[Document],
        top_n: int | None = None,
        *,
        retrieval_scores: Sequence[float] | None = None,
    ) -> Ranking:
        """As `icr_rag.Reranker.rank`."""


@dataclass(frozen=True)
class Setting:
    """What is re-ranked.

    Attributes:
        depth: how many of the first-stage candidates; the rest keep their places below.
        shuffle: seed of a random order of these candidates; None: the first-stage order.
        limit: only the first so many queries, in file order; None: all.
        ignore_identical_ids: leave out candidates that have their query's id, before they are
            counted and measured. In some data (ArguAna, Quora) queries are documents, and find
            themselves first; BEIR's evaluation leaves them out of every run.
    """

    depth: int = 100
    shuffle: int | None = None
    limit: int | None = None
    ignore_identical_ids: bool = True


@dataclass(frozen=True)
class Evaluation:
    """The outcome.

    Attributes:
        dataset: its name.
        measures: measure -> mean over the queries that have a relevant document. Queries
            without candidates count as 0.
        candidates: the same for the order that the reranker was given.
        per_query: query id -> measure -> value.
        run: the re-ranked run, with the candidates below ``depth`` in their old places.
        finished: query id -> order, seconds, tokens, for each query that was re-ranked.
        setting: depth, shuffle, limit.
        config: the reranker's configuration, or what else tells it from others.
    """

    dataset: str
    measures: dict[str, float]
    candidates: dict[str, float]
    per_query: dict[str, dict[str, float]]
    run: Run
    finished: dict[str, Finished]
    setting: Setting
    config: dict[str, object]

    @property
    def seconds_per_query(self) -> float:
        """Median wall-clock seconds of a re-ranked query; 0 if there was none."""
        return statistics.median([row.seconds for row in self.finished.values()] or [0.0])

    @property
    def truncated(self) -> int:
        """How many documents were cut, over all queries."""
        return sum(row.truncated for row in self.finished.values())

    @property
    def degraded(self) -> int:
        """Of how many queries a deadline left something out, or was missed."""
        return sum(row.degraded for row in self.finished.values())

    def to_dict(self) -> dict[str, object]:
        """JSON types; the measures come first, under ir-measures' names."""
        rows = list(self.finished.values())
        return {
            **self.measures,
            "candidates": self.candidates,
            "dataset": self.dataset,
            "queries": len(self.per_query),
            "depth": self.setting.depth,
            "shuffle": self.setting.shuffle,
            "limit": self.setting.limit,
            "ignore_identical_ids": self.setting.ignore_identical_ids,
            "layers": sorted({layer for row in rows for layer in row.layers}),
            # Several, if the evaluation went on elsewhere.
            "devices": sorted({row.device for row in rows if row.device is not None}),
            "seconds": {
                "median": self.seconds_per_query,
                "total": sum(row.seconds for row in rows),
            },
            "tokens": sum(row.tokens for row in rows),
            "generated_tokens": sum(row.generated_tokens for row in rows),
            "calls": sum(row.calls for row in rows),
            "repairs": sum(row.repairs for row in rows),
            "windows": sum(row.windows for row in rows),
            "truncated_documents": self.truncated,
            "degraded": self.degraded,
            "config": self.config,
            "versions": versions(),
            "hardware": hardware(),
            "per_query": self.per_query,
        }


def evaluate(
    reranker: Ranker,
    dataset: Dataset,
    candidates: Run,
    setting: Setting,
    state: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    prepare: Callable[[], object] | None = None,
    retrieval_scores: Mapping[str, Mapping[str, float]] | None = None,
    *,
    measures: Sequence[str] = MEASURES,
    queries: Container[str] | None = None,
    identity: Mapping[str, object] | None = None,
) -> Evaluation:
    """Re-rank and measure.

    Args:
        reranker: what is evaluated.
        dataset: queries, documents, judgements.
        candidates: the first stage's run.
        setting: depth, shuffle, limit.
        state: file of finished queries. An evaluation that was interrupted goes on from it, and
            one with a larger ``limit`` too; a file made with other settings is replaced. Weights
            given to `Reranker.from_model` are not among what tells settings apart: use a file
            for each.
        progress: called with (finished, all) queries.
        prepare: called before the first query is ranked, and not at all if none is left to
            rank: the place to load a model, once the data are known to be right.
        retrieval_scores: query id -> document id -> the first stage's score, for a fusion.
        measures: names as ir-measures writes them; the means are over all queries.
        queries: ids of the queries to report; None: all with a relevant document.
        identity: JSON types that tell this reranker from others, for one that is made from more
            than its ``config``; None: that alone.

    Raises:
        DataError: if a candidate is not in the corpus, no query has a relevant document, or none
            of those that do has candidates.
    """
    judged = dataset.judged_queries
    given = {query: given_order(candidates.get(query, []), query, setting) for query in judged}
    check_candidates(dataset, given, setting.depth)
    # Scores are for a fusion that is asked for by name: candidates may be shuffled, and what "auto"
    # makes of scores that happen to be there is not what is measured.
    first_stage = None if reranker.config.fusion in ("none", "auto") else retrieval_scores
    described = reranker.config.to_dict() if identity is None else dict(identity)
    fingerprint = _fingerprint(
        described, reranker.config.model, dataset, given, setting.depth, first_stage
    )
    done = State(state, fingerprint)

    chosen = [query for query in judged if queries is None or query in queries]
    chosen = chosen[: setting.limit]
    if prepare is not None and any(given[query] and query not in done for query in chosen):
        prepare()
    for number, query in enumerate(chosen):
        if progress is not None:
            progress(number, len(chosen))
        if given[query] and query not in done:
            names = given[query][: setting.depth]
            documents = [dataset.documents[name] for name in names]
            scores = None if first_stage is None else [first_stage[query][name] for name in names]
            done.add(query, _rank(reranker, dataset.queries[query], documents, scores))
    if progress is not None:
        progress(len(chosen), len(chosen))

    finished = {query: done[query] for query in chosen if given[query]}
    run = {
        query: [given[query][place] for place in row.order] + given[query][setting.depth :]
        for query, row in finished.items()
    }
    per_query = evaluate_run(run, dataset.judgements, chosen, measures)
    before = evaluate_run(given, dataset.judgements, chosen, measures)
    return Evaluation(
        dataset=dataset.name,
        measures=mean_measures(per_query, measures),
        candidates=mean_measures(before, measures),
        per_query=per_query,
        run=run,
        finished=finished,
        setting=setting,
        config=described,
    )


def given_order(candidates: Sequence[str], query: str, setting: Setting) -> list[str]:
    """The candidates as the reranker gets them: the first ``depth`` shuffled if asked for.

    Without the document that has the query's id, unless ``setting`` keeps it.
    """
    kept = [name for name in candidates if name != query or not setting.ignore_identical_ids]
    head, rest = kept[: setting.depth], kept[setting.depth :]
    if setting.shuffle is not None:
        # Seeded by text: the same on every machine and in every process.
        random.Random(f"{setting.shuffle}:{query}").shuffle(head)  # noqa: S311
    return head + rest


def _rank(
    reranker: Ranker, query: str, documents: Sequence[Document], scores: list[float] | None
) -> Finished:
    started = time.perf_counter()
    # All of them, whatever the configuration's top_n says: none may get lost.
    if scores is None:
        ranking = reranker.rank(query, documents, top_n=len(documents))
    else:
        ranking = reranker.rank(query, documents, len(documents), retrieval_scores=scores)
    return Finished(
        order=[hit.index for hit in ranking],
        seconds=time.perf_counter() - started,
        tokens=ranking.usage.tokens,
        windows=ranking.usage.windows,
        truncated=len(ranking.usage.truncated),
        layers=list(ranking.usage.layers),
        device=device_of(reranker),
        calls=ranking.usage.calls,
        generated_tokens=ranking.usage.generated_tokens,
        repairs=ranking.usage.repairs,
        degraded=ranking.degraded is not None,
    )


def check_candidates(dataset: Dataset, given: Mapping[str, list[str]], depth: int) -> None:
    """Before the first query is ranked, not after hours.

    Args:
        dataset: documents that may be ranked, judgements.
        given: judged query -> its candidates.
        depth: how many of them are ranked.

    Raises:
        DataError: if there are none, or one is not in the corpus.
    """
    if not given:
        raise DataError(f"{dataset.name}: no query has a document judged relevant")
    if not any(given.values()):
        raise DataError(
            f"the run has no candidates for any query of {dataset.name} that has a relevant "
            "document; is it the run of another data set or split?"
        )
    for query, documents in given.items():
        for document in documents[:depth]:
            if document not in dataset.documents:
                raise DataError(
                    f"candidate {document!r} of query {query!r} is not in the corpus of "
                    f"{dataset.name}; is this the run of another data set?"
                )


def _fingerprint(
    described: Mapping[str, object],
    model: str,
    dataset: Dataset,
    given: Mapping[str, Sequence[str]],
    depth: int,
    retrieval_scores: Mapping[str, Mapping[str, float]] | None,
) -> str:
    """Everything that a ranking depends on, as a hash.

    Not the limit: a query's ranking is the same however many follow it.
    """
    digest = hashlib.sha256()

    def add(*parts: object) -> None:
        # As JSON, so that no two lists of parts run together to the same bytes.
        digest.update(json.dumps(parts, sort_keys=True).encode() + b"\n")

    add(__version__, described, local_files(model), depth)
    # What "auto" stands for, and what a file that is only named says.
    told = {"data", "measured", "curve", "created", "versions"}
    add([item.model_dump(mode="json", exclude=told) for item in shipped_profiles()])
    profile = described.get("profile")
    if isinstance(profile, str) and Path(profile).is_file():
        add(Path(profile).read_text(encoding="utf-8", errors="replace"))
    for query, names in given.items():
        add(query, dataset.queries[query], names)
        add([dataset.documents[name].content for name in names[:depth]])
        if retrieval_scores is not None:
            add([retrieval_scores[query][name] for name in names[:depth]])
    return digest.hexdigest()
