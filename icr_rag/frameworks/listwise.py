"""Listwise: all documents in one prompt, or in windows that slide from the bottom to the top.

The windows are those of RankGPT and of the Selective-ICR paper: rank the last window, carry its
best documents into the next one above, and so on, so that a good document at the very end can
travel to the top. Works on numbers alone; it holds no model code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from icr_rag.deadline import OutOfTime
from icr_rag.frameworks.result import WindowedScores, checked
from icr_rag.frameworks.unscored import placed
from icr_rag.order import stable_order


def rank_listwise(
    count: int,
    score: Callable[[Sequence[int]], Sequence[float]],
    fits: Callable[[Sequence[int]], bool],
    window: int | None = None,
    stride: int | None = None,
) -> WindowedScores:
    """Rank items 0 to count - 1, given in first-stage order.

    Args:
        count: how many items.
        score: scores of the items of one window, given in their present order, best first.
        fits: whether these items fit in one prompt. Any one item must. Where two neighbours do
            not, the window ends between them: those above stay above.
        window: most items in one window; None: as many as fit.
        stride: how many places windows move up; None: half of the window at hand.

    Raises:
        InputError: if ``score`` returns too few or too many scores.
        NonFiniteScoreError: if a score is NaN or infinite.

    If ``score`` raises `icr_rag.deadline.OutOfTime`, the windows below are ranked, and the items
    that none of them has read stand above, in their given order and without a score.
    """
    order = list(range(count))
    scores = [0.0] * count
    groups = [0] * count
    end, number, reached = count, 0, count
    while end > 0:
        start = _window_start(order, end, fits, window)
        items = order[start:end]
        try:
            values = checked(score(items), len(items), "score", "documents")
        except OutOfTime:
            break
        for item, value in zip(items, values, strict=True):
            scores[item], groups[item] = value, number
        order[start:end] = [items[i] for i in stable_order([scores[item] for item in items])]
        reached = start
        if start == 0:
            break
        # The best of this window compete again in the next one, which must take in at least one
        # new item, or the windows would never reach the top: where no carried item leaves room
        # for one, none is carried.
        size = end - start
        carried = size - (size // 2 if stride is None else min(stride, size - 1))
        carried = max(1, carried if window is None else min(carried, window - 1))
        while carried > 0 and not fits(order[start - 1 : start + carried]):
            carried -= 1
        end = start + carried
        number += 1
    _lower_to_agree(order[reached:], scores, groups)
    if reached == 0:
        return WindowedScores(order, scores, groups)
    read = WindowedScores(
        [item - reached for item in order[reached:]], scores[reached:], groups[reached:]
    )
    return placed(read, range(reached, count), range(reached), [])


def _lower_to_agree(order: Sequence[int], scores: list[float], groups: Sequence[int]) -> None:
    """Make scores fall along the order, for whoever sorts by them later; of these items only."""
    drop = 0.0
    for above, item in pairwise(order):
        if groups[item] != groups[above]:
            # What a window left behind lost to all that it passed on.
            gap = 1e-6 * max(1.0, abs(scores[above]))
            drop = max(0.0, scores[item] - scores[above] + gap)
        scores[item] -= drop


def _window_start(
    order: Sequence[int], end: int, fits: Callable[[Sequence[int]], bool], window: int | None
) -> int:
    """The first position of the longest window that ends before ``end``."""
    lowest = 0 if window is None else max(0, end - window)
    start = end - 1
    while start > lowest and fits(order[start - 1 : end]):
        start -= 1
    return start
