"""Setwise: the most relevant of a few documents, again and again, sorts the list.

Zhuang et al., "A Setwise Approach for Effective and Highly Efficient Zero-shot Ranking with Large
Language Models" (arXiv 2310.09497), section 3. Works on numbers alone; it holds no model code.
"""

from __future__ import annotations

from icr_rag.errors import ConfigError
from icr_rag.frameworks.result import WindowedScores, from_order
from icr_rag.frameworks.sorting import (
    Pick,
    Unfinished,
    best_by,
    best_by_pairs,
    bubble_calls,
    bubble_order,
    heap_calls,
    heap_order,
)
from icr_rag.frameworks.unscored import among


def rank_setwise(
    count: int,
    pick: Pick,
    *,
    set_size: int,
    sort: str = "heap",
    top: int | None = None,
    remember: bool = True,
) -> WindowedScores:
    """Rank items 0 to count - 1, given in first-stage order, by the best of small sets.

    Args:
        count: how many items.
        pick: takes a list of sets, each a list of 2 to set_size items in input order, and returns
            for each the position in the set of its best item. The sets of one call share no item
            and do not depend on each other, so that they can run as one batch.
        set_size: most items in a set, at least 2.
        sort: "heap", a heap whose nodes have set_size - 1 children (with set_size=2: two, compared
            in pairs), the fewest comparisons where few ranks are sorted out; "bubble", windows
            that move up by set_size - 1, the more patient of the two with a comparator that
            errs, and with ``remember`` cheap where the first stage is right already.
        top: how many ranks to sort out; the rest keep their input order. None: all.
        remember: ask about no set twice. The order is the same if ``pick`` answers the same
            question in the same way; False makes as many comparisons as the paper counts.

    Returns:
        With a ``pick`` that agrees with some key, and gives ties to the earlier position: the
        stable descending order of that key. With any other: a permutation. The scores only say
        the order: n, n - 1, ..., 1, also for the items below ``top``; all are in group 0. If
        ``pick`` raised `icr_rag.deadline.OutOfTime`, what was found until then is at the top, and
        the others have no score.

    Raises:
        ConfigError: for an unknown sort, a set_size below 2 or a negative top.
        InputError: if ``pick`` returns what is no position in a set.
    """
    ranks = _checked_ranks(count, set_size, sort, top)
    best = best_by(pick, remember)
    try:
        if sort == "bubble":
            return from_order(bubble_order(count, best, set_size, ranks))
        if set_size == 2:
            return from_order(heap_order(count, best_by_pairs(best), children=2, top=ranks))
        return from_order(heap_order(count, best, children=set_size - 1, top=ranks))
    except Unfinished as stopped:
        items = sorted(stopped.found)
        order = [items.index(item) for item in stopped.found]
        return among(from_order(order), items, count)


def setwise_calls(count: int, *, set_size: int, sort: str = "heap", top: int | None = None) -> int:
    """The most comparisons of `rank_setwise`; for "bubble" with remember=False, exactly as many.

    Raises:
        ConfigError: for an unknown sort, a set_size below 2 or a negative top.
    """
    ranks = _checked_ranks(count, set_size, sort, top)
    return (bubble_calls if sort == "bubble" else heap_calls)(count, set_size, ranks)


def check_top(top: int | None) -> None:
    """Raise `ConfigError` for a negative number of ranks."""
    if top is not None and top < 0:
        raise ConfigError(f"sort_top={top}: must be at least 0, or None to sort all")


def _checked_ranks(count: int, set_size: int, sort: str, top: int | None) -> int:
    """How many ranks to sort out, once all settings are found to be allowed."""
    if sort not in ("heap", "bubble"):
        raise ConfigError(f"sort={sort!r}: sets can be sorted by 'heap' or 'bubble'")
    if set_size < 2:
        raise ConfigError(f"set_size={set_size}: must be at least 2, to compare anything")
    check_top(top)
    return count if top is None else min(top, count)
