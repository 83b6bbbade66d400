"""Rank a call's documents: the framework asked for, on the scorer that goes with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from icr_rag.deadline import deadline
from icr_rag.frameworks.call import Call
from icr_rag.frameworks.in_time import CallInTime
from icr_rag.frameworks.result import WindowedScores
from icr_rag.scoring.base import Cost, Ids, Scorer


def rank_windows(
    scorer: Scorer,
    query: Ids,
    documents: Sequence[Ids],
    fits: Callable[[Sequence[int]], bool],
    cost: Cost,
    *,
    whole: bool = False,
) -> WindowedScores:
    """Documents as token ids, in first-stage order, ranked; arguments as `Call` has them.

    Under a deadline some documents may be left without a score.

    Args:
        whole: whether a shorter list is worth nothing, so that the list is not shortened.

    Raises:
        OutOfTime: if there is not time for the whole that is asked for.
    """
    kind = Call if whole or deadline() is None else CallInTime
    return kind(scorer, query, documents, fits, cost).ranked()
