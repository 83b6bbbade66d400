"""Rankings of which a deadline left a part without scores.

Such items keep their given order: below those that have a score, or above them where windows that
slide from the bottom did not get to the top. Their group is -1, and their scores only follow the
order: they were not measured. Works on numbers; it holds no model code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile

from icr_rag.frameworks.result import WindowedScores
from icr_rag.order import below


def none_of(count: int) -> WindowedScores:
    """All items in their given order, none with a score."""
    return WindowedScores(list(range(count)), [0.0] * count, [-1] * count, frozenset(range(count)))


def placed(
    ranked: WindowedScores, items: Sequence[int], above: Sequence[int], under: Sequence[int]
) -> WindowedScores:
    """A ranking of some items, with others that have no score above and below them.

    Args:
        ranked: of ``items``, numbered 0 to len(items) - 1.
        items: with ``above`` and ``under`` all items there are.
    """
    count = len(items) + len(above) + len(under)
    highest = ranked.scores[ranked.order[0]] if items else 0.0
    scores, groups = [below(ranked.scores)] * count, [-1] * count
    for item in above:
        scores[item] = highest
    for place, item in enumerate(items):
        scores[item], groups[item] = ranked.scores[place], ranked.groups[place]
    order = [*above, *(items[place] for place in ranked.order), *under]
    return WindowedScores(order, scores, groups, frozenset([*above, *under]))


def among(ranked: WindowedScores, items: Sequence[int], count: int) -> WindowedScores:
    """A ranking of some items, as one of all: the others are below.

    Args:
        ranked: of ``items``, numbered 0 to len(items) - 1; some may have no score.
        items: ascending.
        count: how many items there are.
    """
    part, own, above, under = _split(ranked)
    rest = sorted({*range(count)}.difference(items).union(items[place] for place in under))
    return placed(part, [items[i] for i in own], [items[i] for i in above], rest)


def over_scored(
    ranked: WindowedScores,
    step: Callable[[WindowedScores, Sequence[int]], WindowedScores],
) -> WindowedScores:
    """What a step makes of a ranking, of which it gets only what has a score.

    Args:
        ranked: of all items.
        step: takes a ranking of items 0 to n - 1, and which of all items these are.
    """
    if not ranked.unscored:
        return step(ranked, range(len(ranked.scores)))
    part, items, above, under = _split(ranked)
    return placed(step(part, items), items, above, under)


def _split(ranked: WindowedScores) -> tuple[WindowedScores, list[int], list[int], list[int]]:
    """What has a score, as a ranking of its own, and its items; what is above, and below."""
    above = list(takewhile(ranked.unscored.__contains__, ranked.order))
    under = [item for item in ranked.order[len(above) :] if item in ranked.unscored]
    items = [item for item in range(len(ranked.order)) if item not in ranked.unscored]
    places = {item: place for place, item in enumerate(items)}
    part = WindowedScores(
        [places[item] for item in ranked.order if item in places],
        [ranked.scores[item] for item in items],
        [ranked.groups[item] for item in items],
    )
    return part, items, above, under
