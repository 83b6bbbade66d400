"""One model, many requests: they wait in a bounded line and are ranked in batches in one thread.

The event loop is never blocked: texts are measured on it, everything else runs in threads. A
request is answered by its deadline, whether its turn has come or not; one whose client went away is
taken out of the line; one that fails, fails alone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from icr_rag.config import RerankerConfig
from icr_rag.deadline import Clock
from icr_rag.errors import ClosedError, ConfigError, InputError, ModelLoadError
from icr_rag.server.answers import make_answer, new_scores, to_rank
from icr_rag.server.call import UNFITTING, RerankAnswer, RerankCall
from icr_rag.server.known import Known, KnownScores, OpenScores
from icr_rag.server.limits import check_call, estimated_tokens
from icr_rag.server.pace import BatchPace
from icr_rag.server.ranks import Outcome, Ranks, rank_batch
from icr_rag.server.score_choice import check_cached, public_name
from icr_rag.server.settings import ServerSettings
from icr_rag.server.telling import deadline_of, told
from icr_rag.server.waiting import Batch, Job, Line
from icr_rag.server.watcher import Watcher
from icr_rag.types import Document, Ranking

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

#: Of the time until a deadline, what the score cache may take; the rest is for ranking.
_LOOKING = 0.5

_FAILED = "the model could not be loaded; the server's log says more"
_CLOSED = "the server is shutting down; send the request to another one, or again later"


class Engine:
    """Answers calls (`icr_rag.server.call.Answers`).

    Belongs to the event loop on which it is started.

    Args:
        config: the settings that are asked for; those in use may differ in the score mode.
        load: gives the reranker, loaded and warm; runs in a thread.
        settings: limits, batches, deadlines.
        cache: gives the known scores of a loaded reranker; runs in a thread. None: every score is
            computed.
        watcher: told what happens.
        clock: what time is read from.
    """

    def __init__(
        self,
        config: RerankerConfig,
        load: Callable[[], Ranks],
        settings: ServerSettings,
        *,
        cache: OpenScores | None = None,
        watcher: Watcher | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        self._config = config
        self._load = load
        self._settings = settings
        self._cache = cache
        self._scores: KnownScores | None = None
        self._watcher = watcher or Watcher()
        own = settings.deadline_ms
        self._deadline_ms = config.deadline_ms if own is None else own
        self._clock = clock
        self._pace = BatchPace()
        self._line = Line(settings, self._pace, clock)
        self._model = ThreadPoolExecutor(1, "icr_rag_model")
        # The cache may be on another machine: it is asked beside the model.
        self._lookups = ThreadPoolExecutor(4, "icr_rag_scores")
        self._reranker: Ranks | None = None
        self._running: Batch | None = None
        self._worker: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._closing = False
        #: Calls whose known scores are being looked up; they were accepted, and may wait yet.
        self._looking = 0
        #: Why the model could not be loaded; None: it could, or is being loaded.
        self.failure: Exception | None = None
        #: Set when it was loaded, or could not be.
        self.loaded = asyncio.Event()

    # --- what is asked ------------------------------------------------------------------------

    @property
    def model(self) -> str:
        """The name of the model that is served."""
        return self._settings.model_name or public_name(self._config.model)

    @property
    def config(self) -> RerankerConfig:
        """The reranker's settings; as they were asked for until it is loaded."""
        return self._config

    @property
    def reranker(self) -> Ranks | None:
        """What ranks; None until it is loaded."""
        return self._reranker

    @property
    def ready(self) -> bool:
        """Whether the model is warm and requests are taken."""
        return self._reranker is not None and not self._closing

    @property
    def state(self) -> str:
        """In a word or two: loading, ready, failed, shutting down."""
        if self._closing:
            return "shutting down"
        if self.failure is not None:
            return "failed"
        return "loading" if self._reranker is None else "ready"

    async def rerank(self, call: RerankCall) -> RerankAnswer:
        """Rank a call's documents. While the model is loading, calls wait.

        Raises:
            OverloadedError: if there is no room in the queue.
            ClosedError: if the server is shutting down.
            InputError: as `icr_rag.server.limits.check_call`; for arguments that the settings do
                not allow.
            ICRError: as `icr_rag.Reranker.rank`.
        """
        self._check_open()
        own = told.get()
        arrived = self._clock() if own is None else own.arrived
        documents = check_call(call, self._settings, self._config)
        if own is not None:
            own.documents = len(documents)
        due = self._due(call, arrived)
        known = await self._look_up(call, documents, due)
        places = to_rank(documents, known)
        job = ranking = late = None
        if places:
            job = self._job(call, documents, places, arrived, due)
            ranking = await self._ranking_of(job)
            if ranking is None:
                late = job.why_late()
        # Of the reranker in use, where there is one by now.
        queue = 0.0 if job is None or job.began is None else job.began - job.arrived
        answer = make_answer(
            self.model, self._config, documents, known, places, ranking, queue, late
        )
        if ranking is not None:
            self._keep(call, documents, places, ranking)
        if own is not None:
            own.answer, own.together = answer, 0 if job is None else job.together
        self._watcher.answered(answer, 0 if ranking is None else ranking.usage.states_evicted)
        return answer

    # --- life cycle ----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to load the model and to answer; returns at once."""
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())

    async def stop(self, grace: float | None = None) -> None:
        """Take no more calls, finish what was taken, and after ``grace`` seconds (None: the
        settings') answer the rest with `ClosedError`."""
        seconds = self._settings.shutdown_grace if grace is None else grace
        self._closing = True
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(seconds))
        await asyncio.shield(self._stopping)

    async def _stop(self, grace: float) -> None:
        self._line.changed.set()
        if self._worker is not None:
            await asyncio.wait({self._worker}, timeout=grace)
            self._worker.cancel()
            await asyncio.wait({self._worker})
        running = () if self._running is None else self._running.jobs
        for job in (*running, *self._line.clear()):
            _settle(job, ClosedError(_CLOSED))
        self._model.shutdown(wait=False, cancel_futures=True)
        self._lookups.shutdown(wait=False)

    def _check_open(self) -> None:
        if self._closing:
            raise ClosedError(_CLOSED)
        if self.failure is not None:
            # Not the error itself: it names files, and would grow with each time it is raised.
            raise ModelLoadError(_FAILED)

    # --- one request ---------------------------------------------------------------------------

    async def _look_up(
        self, call: RerankCall, documents: list[Document], due: float | None
    ) -> list[Known | None]:
        """What is known; nothing, where the cache takes too much of the time until ``due``."""
        unknown: list[Known | None] = [None] * len(documents)
        # The settings in use, which a key depends on, are known when the model is.
        if self._scores is None or self._reranker is None or not documents:
            return unknown
        left = None if due is None else _LOOKING * max(0.0, due - self._clock())
        loop = asyncio.get_running_loop()
        self._looking += 1
        try:
            found = loop.run_in_executor(self._lookups, self._scores.look_up, call, documents)
            return await asyncio.wait_for(found, left)
        except asyncio.TimeoutError:
            return unknown
        finally:
            self._looking -= 1
            self._line.changed.set()

    def _keep(
        self, call: RerankCall, documents: list[Document], places: list[int], ranking: Ranking
    ) -> None:
        """Put scores into the cache, for which the answer does not wait."""
        if self._scores is None or self._closing:
            return
        found = new_scores(documents, places, ranking)
        if found:
            self._lookups.submit(self._scores.keep, call, found)

    def _job(
        self,
        call: RerankCall,
        read: list[Document],
        places: list[int],
        arrived: float,
        due: float | None,
    ) -> Job:
        """A job in the line, of the documents at some places.

        Raises:
            OverloadedError: if there is no room.
            ClosedError: if the server began to shut down.
        """
        if self._worker is None or self._worker.done():
            self._check_open()
            raise ClosedError("the engine was not started; call start() first")
        job = Job(
            call=call,
            # As they came: the reranker makes of them what is read.
            documents=[call.documents[place] for place in places],
            tokens=estimated_tokens(call.query, [read[place].content for place in places]),
            arrived=arrived,
            due=due,
            done=asyncio.get_running_loop().create_future(),
        )
        self._line.add(job)
        self._tell_waiting()
        return job

    def _due(self, call: RerankCall, arrived: float) -> float | None:
        """When the answer is due: the earliest of what body and headers ask for, else the
        settings'."""
        milliseconds = deadline_of(call, self._deadline_ms)
        return None if milliseconds is None else arrived + milliseconds / 1000

    async def _ranking_of(self, job: Job) -> Ranking | None:
        """The ranking of a job that waits; None if it is due before there is one."""
        left = None if job.due is None else max(0.0, job.due - self._clock())
        try:
            await asyncio.wait({job.done}, timeout=left)
        except asyncio.CancelledError:
            self._leave(job)
            self._watcher.hung_up(running=job.began is not None)
            raise
        if not job.done.done():
            self._leave(job)
            self._watcher.late()
            return None
        outcome = job.done.result()
        if isinstance(outcome, ConfigError):
            # Found by an argument of the request; the settings, which it names, may name files.
            raise InputError(UNFITTING)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _leave(self, job: Job) -> None:
        """Nobody waits for a job any more: it is taken out of the line, or what is made of it is
        dropped."""
        job.left_out = True
        self._line.drop(job)
        self._tell_waiting()

    # --- batches -------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Load the model, then rank batch after batch; ends when the server closes and nothing
        waits."""
        try:
            reranker = await self._in_model_thread(self._load)
            if self._cache is not None:
                check_cached(reranker.config)
                self._scores = await self._in_model_thread(
                    partial(self._cache, reranker, self._watcher)
                )
            self._reranker, self._config = reranker, reranker.config
            self.loaded.set()
            while await self._something_waits():
                await self._rank(reranker, self._line.next_batch())
        except Exception as error:
            # Of loading; or a defect, after which nobody may wait for ever.
            self.failure, self._reranker = error, None
            logger.error("the server cannot rank: %s", type(error).__name__)
            logger.debug("it is", exc_info=error)
            for job in self._line.clear():
                _settle(job, ModelLoadError(_FAILED))
        finally:
            self.loaded.set()

    async def _something_waits(self) -> bool:
        """Wait for a job, and a little for more of them; False if there will be none."""
        line = self._line
        # Who waited alone may have gone by the end of the wait: then it begins again.
        while True:
            while not len(line):
                if self._closing and not self._looking:
                    return False
                line.changed.clear()
                await line.changed.wait()
            await self._wait_for_more()
            if len(line):
                return True

    async def _wait_for_more(self) -> None:
        """Wait a little for jobs that go with those in the line."""
        ends = self._clock() + self._settings.batch_wait_ms / 1000
        while not (self._closing or self._line.full_batch):
            left = ends - self._clock()
            if left <= 0:
                return
            self._line.changed.clear()
            try:
                await asyncio.wait_for(self._line.changed.wait(), left)
            except asyncio.TimeoutError:
                return

    async def _rank(self, reranker: Ranks, batch: Batch) -> None:
        """Rank a batch and give each job what came of it."""
        began = self._clock()
        for job in batch.jobs:
            job.began, job.together = began, len(batch.jobs)
        self._running = batch
        self._tell_waiting()
        outcomes: Sequence[Outcome]
        work = partial(rank_batch, reranker, batch, self._clock)
        if len(batch.jobs) == 1:
            # Several have no trace in common.
            work = partial(batch.jobs[0].context.run, work)
        try:
            outcomes = await self._in_model_thread(work)
        except Exception as error:  # noqa: BLE001
            outcomes = [error] * len(batch.jobs)
        seconds = self._clock() - began
        self._running = None
        # What a deadline cut short says nothing of how long the whole takes.
        if all(isinstance(own, Ranking) and own.degraded is None for own in outcomes):
            self._pace.note(batch.tokens, seconds)
        self._watcher.ranked(len(batch.jobs), batch.tokens, seconds)
        for job, outcome in zip(batch.jobs, outcomes, strict=True):
            _settle(job, outcome)

    async def _in_model_thread(self, call: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._model, call)

    def _tell_waiting(self) -> None:
        self._watcher.waiting(len(self._line), self._line.documents)


def _settle(job: Job, outcome: Outcome) -> None:
    """Give a job what came of it, unless it has that already."""
    if not job.done.done():
        job.done.set_result(outcome)
