"""Pointwise: every document is scored by itself. Works on numbers alone; holds no model code."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from icr_rag.frameworks.result import WindowedScores, checked
from icr_rag.order import stable_order


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
