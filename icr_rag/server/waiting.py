"""Requests that wait for the model: a bounded line, and which of them go together.

Lives on the event loop; nothing here is called from another thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field

from icr_rag.deadline import Clock
from icr_rag.errors import OverloadedError
from icr_rag.server.call import RerankCall
from icr_rag.server.pace import BatchPace
from icr_rag.server.settings import ServerSettings
from icr_rag.types import Document, Ranking


@dataclass(eq=False)
class Job:
    """What is left to rank of one request.

    Attributes:
        call: the request.
        documents: as they came, those with known scores left out.
        tokens: about how many it takes.
        arrived: when it came, by the engine's clock.
        due: when the answer is; None: there is no deadline.
        done: its ranking, or why there is none.
        began: when its turn came; None: not yet.
        together: how many requests were ranked with it, itself counted.
        left_out: whether nobody waits for it any more.
        context: of the request's task: a trace goes on in the model's thread.
    """

    call: RerankCall
    documents: Sequence[Document]
    tokens: int
    arrived: float
    due: float | None
    done: asyncio.Future[Ranking | Exception] = field(repr=False)
    began: float | None = None
    together: int = 1
    left_out: bool = False
    context: Context = field(default_factory=copy_context, repr=False)

    @property
    def alike(self) -> tuple[str | None, int | None]:
        """What requests must agree in to be ranked by one call."""
        return self.call.instruction, self.call.max_tokens_per_doc

    def why_late(self) -> str:
        """Why it has no ranking by its deadline, as a sentence."""
        milliseconds = 1000 * ((self.due or self.arrived) - self.arrived)
        what = (
            "waited for the model all the time"
            if self.began is None
            else "was not finished by then"
        )
        return (
            f"deadline of {milliseconds:.0f} ms: the request {what}; {len(self.documents)} "
            "documents have no score and their given order"
        )


@dataclass(frozen=True)
class Batch:
    """Requests that are ranked by one call; alone: one, until its deadline."""

    jobs: tuple[Job, ...]
    alone: bool = False

    @property
    def tokens(self) -> int:
        """About how many it takes."""
        return sum(job.tokens for job in self.jobs)


class Line:
    """Jobs in the order in which they came.

    Args:
        settings: queue_requests, queue_documents, batch_tokens.
        pace: says how long those that wait will take.
        clock: what deadlines are read from.
    """

    def __init__(self, settings: ServerSettings, pace: BatchPace, clock: Clock) -> None:
        self._settings = settings
        self._pace = pace
        self._clock = clock
        self._jobs: dict[Job, None] = {}
        self.documents = 0
        self.tokens = 0
        #: Set when there may be something new to do.
        self.changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._jobs)

    def check_room(self, documents: int) -> None:
        """Raise `OverloadedError` if no request with so many documents may wait. One that is
        larger than the whole line waits where nobody else does."""
        waiting, most = len(self), self._settings
        if waiting >= most.queue_requests:
            full = f"{waiting} requests are waiting"
        elif waiting and self.documents + documents > most.queue_documents:
            full = f"{self.documents} documents are waiting"
        else:
            return
        seconds = self._pace.retry_after(self.tokens)
        raise OverloadedError(
            f"{full}, as many as this server lets wait; try again in {seconds:.0f} s", seconds
        )

    def add(self, job: Job) -> None:
        """Let a job wait.

        Raises:
            OverloadedError: if there is no room.
        """
        self.check_room(len(job.documents))
        self._jobs[job] = None
        self._count(job, 1)
        self.changed.set()

    def drop(self, job: Job) -> bool:
        """Take a job out; whether it was still waiting."""
        if job not in self._jobs:
            return False
        del self._jobs[job]
        self._count(job, -1)
        return True

    def clear(self) -> list[Job]:
        """Take out all."""
        jobs = list(self._jobs)
        for job in jobs:
            self.drop(job)
        return jobs

    @property
    def full_batch(self) -> bool:
        """Whether waiting longer gives no larger batch."""
        return self.tokens >= self._settings.batch_tokens

    def next_batch(self) -> Batch:
        """Take out the first job, and later ones that go with it within the budget.

        What would be late in a batch goes alone, with what is left of its time: its place in the
        line stays as it was.
        """
        first = next(iter(self._jobs))
        chosen, tokens, soonest = [first], first.tokens, first.due
        alone = self._late(soonest, tokens)
        if not alone:
            for job in list(self._jobs)[1:]:
                more, sooner = tokens + job.tokens, _sooner(soonest, job.due)
                if more > self._settings.batch_tokens or job.alike != first.alike:
                    continue
                if not self._late(sooner, more):
                    chosen.append(job)
                    tokens, soonest = more, sooner
        for job in chosen:
            self.drop(job)
        return Batch(tuple(chosen), alone)

    def _late(self, due: float | None, tokens: int) -> bool:
        """Whether a batch of so many tokens endangers what is due then."""
        return due is not None and not self._pace.in_time(tokens, due - self._clock())

    def _count(self, job: Job, sign: int) -> None:
        self.documents += sign * len(job.documents)
        self.tokens += sign * job.tokens


def _sooner(first: float | None, second: float | None) -> float | None:
    """The earlier of two moments, None being never."""
    return min((due for due in (first, second) if due is not None), default=None)
