"""Pairwise: which of two documents is more relevant, for all pairs or as a sort's comparison.

Qin et al., "Large Language Models are Effective Text Rankers with Pairwise Ranking Prompting"
(arXiv 2306.17563), section 3. Works on numbers alone; it holds no model code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations

from icr_rag.deadline import OutOfTime
from icr_rag.errors import ConfigError
from icr_rag.frameworks.result import WindowedScores, checked
from icr_rag.frameworks.setwise import check_top, rank_setwise, setwise_calls
from icr_rag.frameworks.unscored import among
from icr_rag.order import stable_order

#: Takes pairs (a, b) of items, a before b in input order; returns for each a margin: above 0 if a
#: is more relevant, below 0 if b is, 0 for a tie.
Prefer = Callable[[Sequence[tuple[int, int]]], Sequence[float]]


def rank_pairwise(
    count: int,
    prefer: Prefer,
    *,
    sort: str = "heap",
    top: int | None = None,
    remember: bool = True,
    parts: Callable[[Sequence[tuple[int, int]]], int] | None = None,
) -> WindowedScores:
    """Rank items 0 to count - 1, given in first-stage order, by comparing pairs.

    Args:
        count: how many items.
        prefer: takes a list of pairs (a, b), always with a < b, and returns a margin for each:
            above 0 if a is more relevant, below 0 if b is, 0 for a tie, which the earlier item
            wins. Showing each pair in both orders is up to it. The pairs of one call do not
            depend on each other, so that they can run as one batch.
        sort: "all_pairs" adds the margins up, the most comparisons and one batch; "heap" and
            "bubble" (the paper's sliding window) sort by the sign of the margin.
        top: how many ranks "heap" and "bubble" sort out; the rest keep their input order. None:
            all. "all_pairs" knows all ranks in any case and gives them.
        remember: ask about no pair twice, as in `rank_setwise`.
        parts: with "all_pairs", how many of the pairs that are left to ask about at once, at least
            one; None: all.

    Returns:
        "heap" and "bubble": with margins whose signs agree with some key, the stable descending
        order of that key; with any others, a permutation. Their scores only say the order: n,
        n - 1, ..., 1. "all_pairs": the score of an item is the mean margin by which it is
        preferred to the others, and equal scores keep their input order. All are in group 0. If
        ``prefer`` raised `icr_rag.deadline.OutOfTime`, a sort ends as `rank_setwise` does, and of
        all pairs those of the first items count, whose pairs were all asked; the others have no
        score.

    Raises:
        ConfigError: for an unknown sort or a negative top.
        InputError: if ``prefer`` returns too few or too many margins.
        NonFiniteScoreError: if a margin is NaN or infinite.
    """
    _check(sort, top)

    def margins(pairs: list[tuple[int, int]]) -> list[float]:
        return checked(prefer(pairs), len(pairs), "margin", "pairs")

    def pick(sets: Sequence[Sequence[int]]) -> list[int]:
        values = margins([(first, second) for first, second in sets])
        return [1 if value < 0 else 0 for value in values]

    if sort != "all_pairs":
        # A pair is a set of two.
        return rank_setwise(count, pick, set_size=2, sort=sort, top=top, remember=remember)
    if parts is None:
        pairs = list(combinations(range(count), 2))
        return _of_all_pairs(count, pairs, margins(pairs) if pairs else [])
    # So that at any moment all pairs of the first few items are asked.
    pairs = [(first, second) for second in range(count) for first in range(second)]
    found: list[float] = []
    try:
        while len(found) < len(pairs):
            found += margins(pairs[len(found) : len(found) + parts(pairs[len(found) :])])
    except OutOfTime:
        pass
    known = max((n for n in range(2, count + 1) if all_pairs_calls(n) <= len(found)), default=0)
    if count < 2:
        known = count
    asked = all_pairs_calls(known)
    ranked = _of_all_pairs(known, pairs[:asked], found[:asked])
    return among(ranked, range(known), count)


def _of_all_pairs(
    count: int, pairs: Sequence[tuple[int, int]], margins: Sequence[float]
) -> WindowedScores:
    won: list[list[float]] = [[] for _ in range(count)]
    for (first, second), margin in zip(pairs, margins, strict=True):
        won[first].append(margin)
        won[second].append(-margin)
    # Exact sums: items that won by the same margins tie, in whatever order those came.
    scores = [math.fsum(values) / max(1, count - 1) for values in won]
    return WindowedScores(stable_order(scores), scores, [0] * count)


def pairwise_calls(count: int, *, sort: str = "heap", top: int | None = None) -> int:
    """The most comparisons of `rank_pairwise`; exactly as many for "all_pairs", and for "bubble"
    with remember=False.

    Raises:
        ConfigError: for an unknown sort or a negative top.
    """
    _check(sort, top)
    if sort == "all_pairs":
        return all_pairs_calls(count)
    return setwise_calls(count, set_size=2, sort=sort, top=top)


def all_pairs_calls(count: int) -> int:
    """Unordered pairs of ``count`` items."""
    return count * (count - 1) // 2


def _check(sort: str, top: int | None) -> None:
    if sort not in ("heap", "bubble", "all_pairs"):
        raise ConfigError(f"sort={sort!r}: pairs can be sorted by 'heap', 'bubble' or 'all_pairs'")
    check_top(top)
