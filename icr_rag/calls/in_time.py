"""A call with a deadline: it waits for its turn as long as there is time, and always answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

from icr_rag.calls.degraded import given_order, sentence, unscored_usage
from icr_rag.calls.rank import Ranked, rank
from icr_rag.calls.request import FirstStage, Request
from icr_rag.config import RerankerConfig
from icr_rag.deadline import Deadline, OutOfTime
from icr_rag.model.turns import turn
from icr_rag.scoring.base import Scorer
from icr_rag.types import Ranking
from icr_rag.worker import Worker

Result = TypeVar("Result")


def rank_in_turn(
    scorers: tuple[Scorer, Scorer | None],
    config: RerankerConfig,
    request: Request,
    first_stage: FirstStage,
    seconds_to_load: float,
    answered: Scorer | None,
) -> Ranked:
    """`icr_rag.calls.rank.rank`; under a deadline with the model for itself, so that no other call
    comes between two of its steps.

    Args:
        scorers: of ``config``, and of its second reading.
        request: checked. Others as `rank` has them.
    """
    scorer, second = scorers
    due = request.due
    if due is None:
        return rank(
            scorer, second, config, request, first_stage, seconds_to_load, answered=answered
        )
    try:
        with turn(scorer.engine.lock, due):
            why = took_most(due, request.composing, seconds_to_load)
            return rank(
                scorer, second, config, request, first_stage, seconds_to_load, why, answered
            )
    except OutOfTime:
        return nothing_scored(config, request, seconds_to_load)


def nothing_scored(
    config: RerankerConfig, request: Request, seconds_to_load: float = 0.0, *, loading: bool = False
) -> Ranked:
    """The given order.

    Args:
        request: one that has a deadline.
        seconds_to_load: how long loading took.
        loading: whether the model is not loaded yet; all that was done for the call is that.
    """
    scored, blank, left_out = given_order(request.read, config)
    due = request.due or Deadline(0.0, request.clock)
    if loading:
        seconds_to_load = due.elapsed - due.waited - request.composing
    why = took_most(due, request.composing, seconds_to_load)
    told = sentence(due, scored, blank, left_out, why)
    return Ranked(scored, unscored_usage(due, scored), degraded=told)


def took_most(due: Deadline, composing: float, loading: float) -> str:
    """What took most of the time before anything was read, as a clause; "" if nothing did."""
    told = {
        "loading the model took": loading,
        "other calls held the model for": due.waited,
        "checking and composing the documents took": composing,
    }
    what, seconds = max(told.items(), key=lambda item: item[1])
    return f"{what} {1000 * seconds:.0f} ms" if seconds > max(0.001, 0.5 * due.seconds) else ""


async def answer_in_time(
    compose: Worker,
    answer: Worker,
    due: Deadline,
    ask: Callable[[], Request],
    rank: Callable[[Request], Ranking],
) -> Ranking:
    """What a thread makes of a request, or, if that has not ended when the answer is due, what is
    made at once of one that is given up.

    What has begun in the thread ends there, and its result is dropped.

    Args:
        compose: where the request is made: not behind other calls, for nothing can be given back
            before its documents are known.
        answer: where it is answered.
        due: when the answer is.
        ask: makes a request with this deadline.
        rank: answers it.
    """
    with _queued(due, ask) as call:
        request = await compose.run(call)
    with _queued(due, partial(rank, request)) as answering:
        task = asyncio.ensure_future(answer.run(answering))
        try:
            await asyncio.wait({task}, timeout=max(0.0, due.until))
            if task.done():
                return task.result()
            due.abandoned = True
            return rank(replace(request, given_up=True))
        finally:
            # Takes it from the queue if it has not begun; also where the caller is cancelled.
            task.cancel()


@contextmanager
def _queued(due: Deadline, call: Callable[[], Result]) -> Iterator[Callable[[], Result]]:
    """A call for a thread; until it begins there, others are waited for."""
    with ExitStack() as waiting:
        waiting.enter_context(due.waiting())

        def begin() -> Result:
            waiting.close()
            return call()

        yield begin
