"""Pointwise: every document is scored by itself. Works on numbers alone; holds no model code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from icr_rag.deadline import OutOfTime
from icr_rag.frameworks.result import WindowedScores, checked
from icr_rag.frameworks.unscored import among
from icr_rag.order import stable_order

Rows = TypeVar("Rows")


def rank_pointwise(count: int, score: Callable[[Sequence[int]], Sequence[float]]) -> WindowedScores:
    """Rank items 0 to count - 1, given in first-stage order, by scores of their own.

    Args:
        count: how many items.
        score: scores of all items, in the order given; higher is better. It is called once, so
            that it may batch as it likes, and not at all for an empty list.

    Returns:
        The stable descending order, with the scores as they are, all in group 0.

    Raises:
        InputError: if ``score`` returns too few or too many scores.
        NonFiniteScoreError: if a score is NaN or infinite.
    """
    items = list(range(count))
    scores = checked(score(items), count, "score", "items") if items else []
    return WindowedScores(stable_order(scores), scores, [0] * count)


def rank_in_parts(
    items: Sequence[int],
    read: Callable[[Sequence[int]], Rows],
    scores_of: Callable[[Sequence[Rows]], Sequence[float]],
    part: Callable[[Sequence[int]], int],
) -> WindowedScores:
    """As `rank_pointwise`, some items after the other, until there is no more time.

    Args:
        items: 0 to count - 1, in the order in which they are to be read.
        read: what is read of some items; may raise `icr_rag.deadline.OutOfTime`.
        scores_of: the scores of all items that were read, from what was read of them.
        part: how many of the items that are left to read at once, at least one.
    """
    found: list[Rows] = []
    done = 0
    try:
        while done < len(items):
            chosen = items[done : done + part(items[done:])]
            found.append(read(chosen))
            done += len(chosen)
    except OutOfTime:
        pass
    known = sorted(items[:done])
    values = checked(scores_of(found), done, "score", "items") if known else []
    by_item = dict(zip(items[:done], values, strict=True))
    scores = [by_item[item] for item in known]
    ranked = WindowedScores(stable_order(scores), scores, [0] * len(scores))
    return among(ranked, known, len(items))
