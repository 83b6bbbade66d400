"""A call with a deadline: it waits for its turn as long as there is time, and always answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

from icr_rag.calls.degraded import given_order, sentence, unscored_usage
from icr_rag.calls.rank import Ranked, rank
from icr_rag.calls.request import FirstStage, Request
from icr_rag.config import RerankerConfig
from icr_rag.deadline import Deadline, OutOfTime
from icr_rag.scoring.base import Scorer

Result = TypeVar("Result")


@contextmanager
def turn(lock: threading.RLock, due: Deadline | None) -> Iterator[None]:
    """Hold a lock inside the block.

    Raises:
        OutOfTime: if others held it for too long.
    """
    if due is None:
        with lock:
            yield
        return
    if not lock.acquire(timeout=min(max(0.0, due.left), threading.TIMEOUT_MAX)):
        raise OutOfTime
    try:
        yield
    finally:
        lock.release()


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
    why = loading(due, seconds_to_load)
    before = due.elapsed
    try:
        with turn(scorer.engine.lock, due):
            why = why or waited(due, due.elapsed - before)
            return rank(
                scorer, second, config, request, first_stage, seconds_to_load, why, answered
            )
    except OutOfTime:
        return nothing_scored(config, request, why or waited(due, due.elapsed - before))


def nothing_scored(config: RerankerConfig, request: Request, why: str | None = None) -> Ranked:
    """The given order.

    Args:
        request: one that has a deadline.
        why: what took the time, as a clause; None: waiting for others, if anything.
    """
    scored, blank, left_out = given_order(request.read, config)
    due = request.due or Deadline(0.0, request.clock)
    if why is None:
        why = waited(due, due.elapsed)
    told = sentence(due, scored, blank, left_out, why)
    return Ranked(scored, unscored_usage(due, scored), degraded=told)


def loading(due: Deadline, seconds: float) -> str:
    """That loading took most of the time, as a clause; "" if it did not."""
    took = seconds > max(0.001, 0.5 * due.seconds)
    return f"loading the model took {1000 * seconds:.0f} ms" if took else ""


def waited(due: Deadline, seconds: float) -> str:
    """Likewise waiting for other calls."""
    took = seconds > max(0.001, 0.5 * due.seconds)
    return f"other calls held the model for {1000 * seconds:.0f} ms" if took else ""


async def answer_in_time(
    run: Callable[[Callable[[], Result]], Coroutine[object, object, Result]],
    rank: Callable[[Request], Result],
    request: Request,
) -> Result:
    """What a thread makes of a request, or, if that has not ended when the answer is due, what is
    made at once of one that is given up.

    What has begun in the thread ends there, and its result is dropped.

    Args:
        run: calls in the thread.
        rank: answers a request.
    """
    call, due = run(partial(rank, request)), request.due
    if due is None:
        return await call
    task = asyncio.ensure_future(call)
    try:
        await asyncio.wait({task}, timeout=max(0.0, due.until))
        if task.done():
            return task.result()
        due.abandoned = True
        return rank(replace(request, given_up=True))
    finally:
        # Takes it from the queue if it has not begun; also where the caller is cancelled.
        task.cancel()
