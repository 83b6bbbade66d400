"""Run a grid: every system on every data set, order and depth; go on after errors and breaks.

Each row has a file of finished queries in ``DIR/state``, so that nothing is ranked twice: the same
command goes on where it was stopped, and a changed grid ranks only what changed.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from icr_rag.config import RerankerConfig
from icr_rag.errors import ConfigError
from icr_rag.evaluation.environment import local_files
from icr_rag.evaluation.grid_config import FIXED, Grid, PeerEntry, System, systems
from icr_rag.evaluation.grid_data import GridData, load_data
from icr_rag.evaluation.grid_result import GridResult, Row, Slice
from icr_rag.evaluation.harness import (
    Evaluation,
    Ranker,
    Setting,
    check_candidates,
    evaluate,
    given_order,
)
from icr_rag.evaluation.metrics import check_measures, evaluate_run, mean_measures
from icr_rag.evaluation.peers import NotRunHere, check_peer, make_peer
from icr_rag.methods import SPECIAL
from icr_rag.types import Document, Ranking

logger = logging.getLogger(__name__)


class Events(Protocol):
    """Who is told how far it is."""

    def row(self, number: int, total: int, name: str) -> None:
        """Row ``number`` of ``total``, from 0, begins; or, with both equal, all are done."""

    def query(self, finished: int, total: int) -> None:
        """So many queries of this row are done."""

    def loading(self, name: str) -> AbstractContextManager[None]:
        """Weights are loaded while the block runs."""


def run_grid(
    grid: Grid,
    state: Path,
    events: Events,
    *,
    folder: Path | None = None,
    make_reranker: Callable[[RerankerConfig], Ranker] | None = None,
) -> GridResult:
    """Evaluate all systems and peers.

    An error in one row is recorded in it, and the others go on; a mistake in the grid or in the
    data raises before anything is ranked.

    Args:
        grid: what to evaluate.
        state: folder for finished queries.
        events: told about progress.
        folder: where relative sources of data begin; None: the working directory.
        make_reranker: None: `icr_rag.Reranker`.

    Raises:
        ConfigError: for a wrong setting, peer or measure.
        DataError: if data cannot be read or do not fit together.
    """
    check_measures(grid.measures)
    jobs: list[System | PeerEntry] = [*systems(grid), *grid.peers]
    for peer in grid.peers:
        check_peer(peer.peer)
    data = [load_data(entry, max(grid.depths), folder) for entry in grid.data]
    for item in data:
        judged = {query: item.candidates.get(query, []) for query in item.dataset.judged_queries}
        check_candidates(item.dataset, judged, max(grid.depths))
    places = [
        (_slice(item, order, depth), item, _setting(item, order, depth))
        for item in data
        for order in grid.orders
        for depth in grid.depths
    ]
    run = _Run(grid, state, events, make_reranker, len(places) * len(jobs))
    try:
        # System by system, so that each model is loaded once.
        found = [row for job in jobs for row in run.rows(job, places)]
    finally:
        run.close()
    events.row(run.total, run.total, "")
    ranks = {place: number for number, (place, *_) in enumerate(places)}
    found.sort(key=lambda row: ranks[row.slice])
    given = {place: _given(grid, item, setting) for place, item, setting in places}
    notes = [f"{item.entry.label}: {note}" for item in data for note in item.notes]
    return GridResult(grid, found, given, notes)


def clear_state(folder: Path) -> None:
    """Forget all finished queries."""
    for path in folder.glob("*.jsonl"):
        path.unlink()


class _Run:
    """What all rows share."""

    def __init__(
        self,
        grid: Grid,
        state: Path,
        events: Events,
        make_reranker: Callable[[RerankerConfig], Ranker] | None,
        total: int,
    ) -> None:
        self.grid = grid
        self.state = state
        self.events = events
        self.make_reranker = make_reranker
        self.total = total
        self.begun = 0
        self._previous: _Lazy | None = None

    def make_room(self, model: str) -> None:
        """Let go of the last system's weights, unless the next runs on the same model."""
        if self._previous is not None and self._previous.config.model != model:
            self._previous.close()

    def close(self) -> None:
        """Let go of the last system's weights."""
        if self._previous is not None:
            self._previous.close()

    def rows(
        self, job: System | PeerEntry, places: list[tuple[Slice, GridData, Setting]]
    ) -> Iterator[Row]:
        """The rows of one system or peer."""
        if isinstance(job, System) and job.config is None:
            self.begun += len(places)
            for place, *_ in places:
                yield Row(place, job.name, "system", "invalid", job.reason)
            return
        lazy = _Lazy(job, self)
        try:
            for place, item, setting in places:
                self.events.row(self.begun, self.total, f"{lazy.name} on {place.title}")
                self.begun += 1
                yield self._row(lazy, place, item, setting)
        finally:
            # Only now: rerankers on one model share its weights while one of them is open.
            self.close()
            self._previous = lazy

    def _row(self, lazy: _Lazy, place: Slice, item: GridData, setting: Setting) -> Row:
        row = Row(place, lazy.name, lazy.kind, "done")
        try:
            row.evaluation = self._evaluate(lazy, item, setting, row.slug)
        except NotRunHere as error:
            row.status, row.reason = "not run", str(error)
        # Peers raise whatever they like, and hours of other rows must not be lost for it.
        except Exception as error:
            logger.debug("%s failed", lazy.name, exc_info=True)
            row.status = "failed"
            row.reason = f"{type(error).__name__}: {error}"
            row.traceback = traceback.format_exc()
        return row

    def _evaluate(self, lazy: _Lazy, item: GridData, setting: Setting, name: str) -> Evaluation:
        if lazy.first_stage:
            # The first stage's own order, whatever order others are given.
            setting = replace(setting, shuffle=None)
        return evaluate(
            lazy,
            item.dataset,
            item.candidates,
            setting,
            self.state / f"{name}.jsonl",
            self.events.query,
            lazy.load,
            item.scores,
            measures=self.grid.measures,
            queries=frozenset(item.queries),
            identity=lazy.identity,
        )


class _Lazy:
    """A system or peer whose weights are loaded when the first query needs them, and kept."""

    def __init__(self, job: System | PeerEntry, run: _Run) -> None:
        self.job = job
        self.run = run
        self.inner: Ranker | None = None
        self.error: Exception | None = None
        if isinstance(job, System):
            if job.config is None:
                raise ConfigError(f"{job.name}: {job.reason}")
            self.config = job.config
            self.name = job.name
            self.kind: str = job.config.scoring
            self.first_stage = False
            self.identity: dict[str, object] | None = None
        else:
            self.config = _shared_config(run.grid)
            self.name, self.kind = job.label, "peer"
            self.first_stage = job.peer == "bm25"
            # The first stage has no weights, so that its numbers outlive a change of model.
            config = {} if self.first_stage else self.config.to_dict()
            files = [] if self.first_stage else local_files(self.config.model)
            self.identity = {
                "peer": job.peer,
                "options": job.options,
                "config": config,
                "files": files,
            }
            if self.first_stage:
                self.config = RerankerConfig()

    def load(self) -> Ranker:
        """Load the weights, once; an error is remembered, for that they will not load later."""
        if self.error is not None:
            raise self.error
        if self.inner is not None:
            return self.inner
        self.run.make_room(self.config.model)
        try:
            with self.run.events.loading(self.name):
                self.inner = self._make()
        except Exception as error:
            self.error = error
            raise
        return self.inner

    def _make(self) -> Ranker:
        if isinstance(self.job, PeerEntry):
            return make_peer(self.job.peer, self.config, self.job.options)
        if self.run.make_reranker is not None:
            return self.run.make_reranker(self.config)
        from icr_rag.reranker import Reranker

        # The first query's time must not hold what is done once.
        return Reranker(self.config).warm_up()

    def rank(
        self,
        query: str,
        documents: Sequence[Document],
        top_n: int | None = None,
        *,
        retrieval_scores: Sequence[float] | None = None,
    ) -> Ranking:
        """As the system's."""
        ranker = self.load()
        # One that fuses nothing need not know of first-stage scores.
        if retrieval_scores is None:
            return ranker.rank(query, documents, top_n)
        return ranker.rank(query, documents, top_n, retrieval_scores=retrieval_scores)

    @property
    def engine(self) -> object:
        """The system's weights, for telling where they are; None for what has none."""
        return getattr(self.inner, "engine", None)

    def close(self) -> None:
        """Let go of the weights."""
        close = getattr(self.inner, "close", None)
        self.inner = None
        if close is not None:
            close()


#: What only a reranker of this package has.
_OF_RERANKERS = ("scoring", "framework", "document_states", "score_mode", "fusion",
                 "fusion_weight", "first_stage_weights", "embedder")  # fmt: skip


def _shared_config(grid: Grid) -> RerankerConfig:
    """What peers look at of the settings that all systems share: not those of a method, nor of a
    fusion. Of a list of values, peers take the first."""
    shared = {
        name: value[0] if isinstance(value, list) else value
        for name, value in grid.reranker.items()
        if name not in SPECIAL and name not in _OF_RERANKERS
    }
    return RerankerConfig(**{**shared, **FIXED})


def _slice(item: GridData, order: str | int, depth: int) -> Slice:
    label = "given" if order == "given" else f"shuffled (seed {order})"
    return Slice(item.entry.label, label, depth)


def _setting(item: GridData, order: str | int, depth: int) -> Setting:
    shuffle = order if isinstance(order, int) else None
    return Setting(depth, shuffle, ignore_identical_ids=item.entry.ignore_identical_ids)


def _given(grid: Grid, item: GridData, setting: Setting) -> dict[str, float]:
    """The measures of the candidates as systems get them."""
    run = {q: given_order(item.candidates.get(q, []), q, setting) for q in item.queries}
    values = evaluate_run(run, item.dataset.judgements, item.queries, grid.measures)
    return mean_measures(values, grid.measures)
