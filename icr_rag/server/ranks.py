"""What runs in the model's thread: one batch, of which no request can spoil another."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Protocol

from icr_rag.config import RerankerConfig
from icr_rag.deadline import Clock
from icr_rag.errors import InputError
from icr_rag.server.waiting import Batch, Job
from icr_rag.types import DocumentLike, Ranking

logger = logging.getLogger(__name__)

#: A deadline that has passed is so many milliseconds away: the library says what it left out.
_HARDLY_ANY = 0.1

#: What came of a request.
Outcome = Ranking | Exception


class Ranks(Protocol):
    """What a server needs of a reranker; `icr_rag.Reranker` is one."""

    config: RerankerConfig

    def rank(
        self,
        query: str,
        documents: Sequence[DocumentLike],
        top_n: int | None = None,
        *,
        deadline_ms: float | None = None,
        instruction: str | None = None,
        max_tokens_per_doc: int | None = None,
    ) -> Ranking:
        """As `icr_rag.Reranker.rank`."""

    def rank_many(
        self,
        queries: Sequence[str],
        document_lists: Sequence[Sequence[DocumentLike]],
        top_n: int | None = None,
        *,
        deadline_ms: float | None = None,
        instruction: str | None = None,
        max_tokens_per_doc: int | None = None,
    ) -> list[Ranking]:
        """As `icr_rag.Reranker.rank_many`."""


def rank_batch(reranker: Ranks, batch: Batch, clock: Clock) -> list[Outcome]:
    """What comes of each job of a batch, in its order.

    Jobs that cannot be ranked together are ranked one by one, so that only those fail that fail
    by themselves.

    Args:
        reranker: what ranks; its own deadline does not count.
        batch: jobs that agree in instruction and tokens.
        clock: what their deadlines are read from.
    """
    if batch.alone or len(batch.jobs) == 1:
        return [_rank_one(reranker, job, clock, in_time=batch.alone) for job in batch.jobs]
    instruction, most = batch.jobs[0].alike
    try:
        rankings = reranker.rank_many(
            [job.call.query for job in batch.jobs],
            [job.documents for job in batch.jobs],
            deadline_ms=math.inf,
            instruction=instruction,
            max_tokens_per_doc=most,
        )
        if len(rankings) == len(batch.jobs):
            return list(rankings)
        kind = f"{len(rankings)} rankings"
    except Exception as error:  # noqa: BLE001
        # Whatever it is, its owner is told of it when it fails again.
        kind = type(error).__name__
    logger.warning("ranking %d requests together gave %s; each by itself", len(batch.jobs), kind)
    return [_rank_one(reranker, job, clock, in_time=job.due is not None) for job in batch.jobs]


def _rank_one(reranker: Ranks, job: Job, clock: Clock, *, in_time: bool) -> Outcome:
    if job.left_out:
        return InputError("nobody waits for this any more")
    left = math.inf
    if in_time and job.due is not None:
        left = max(1000 * (job.due - clock()), _HARDLY_ANY)
    try:
        return reranker.rank(
            job.call.query,
            job.documents,
            deadline_ms=left,
            instruction=job.call.instruction,
            max_tokens_per_doc=job.call.max_tokens_per_doc,
        )
    except Exception as error:  # noqa: BLE001
        # Memory that runs out or a defect is this request's; the server lives on.
        return error
