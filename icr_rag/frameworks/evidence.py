"""What the first stage said of each item, on one scale, and what it weighs beside the model.

The first stage's scores are as good as a small model's, and make other mistakes: where they are
cosines, their standard scores count as much as the model's. A lexical stage's scores have a long
tail, in which how far apart two documents are says little; of these the order counts, weakly. No
number tells for sure which of the two it is: what lies within -1 and 1, as cosines do, is taken for
the first kind, and a caller may say otherwise. Works on numbers; it holds no model code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

from icr_rag.order import stable_order, standardised

#: Weight of the first stage's order beside the model's 1 where no profile says better.
FIRST_STAGE_WEIGHT = 0.3
#: Weight of its scores, where these are alike to cosines.
SCORES_WEIGHT = 1.0
#: What a weight by name may be of, beside the names of scores.
ORDER, EMBEDDER = "order", "embedder"
#: Flattens the reciprocal at the top, so that rank 1 is worth less than twice rank 10.
_OFFSET = 10
#: Scores further than so many times the middle half's width outside of it are drawn in to there:
#: Tukey's fence for what is "far out".
_FENCE = 3.0
#: A part of the largest score by which rounding alone makes scores differ, in float32.
_ROUNDING = 1e-6

Column = Sequence[float | None]


@dataclass(frozen=True)
class Part:
    """One thing that the first stage says.

    Attributes:
        name: of the scores; "order" for the order in which the items are numbered.
        weight: beside the model's 1.
        scores: one per item, higher is better; None for an item: it has none. None for all: the
            order of the items is what counts.
        by_order: whether the order of the scores counts, and not how far apart they are.
    """

    name: str
    weight: float
    scores: Column | None = None
    by_order: bool = True

    @property
    def label(self) -> str:
        """What counts, in words."""
        return f"order of {self.name}" if self.by_order and self.scores is not None else self.name

    def of(self, items: Sequence[int]) -> Part:
        """The same of some items, ascending."""
        if self.scores is None:
            return self
        return replace(self, scores=[self.scores[item] for item in items])

    def values(self, count: int) -> list[float]:
        """One number per item: mean 0 and standard deviation 1 over those that have a score, and 0
        for those that have none."""
        if self.scores is None:
            return standardised([1 / (rank + _OFFSET) for rank in range(1, count + 1)])
        return over_known(self.scores, of_order if self.by_order else robust)


def weigh(
    columns: Mapping[str, Column],
    order_weight: float,
    scores_weight: float | None,
    asked: Mapping[str, float],
) -> tuple[Part, ...]:
    """What counts of the first stage where nobody names a fusion, and how much.

    - Scores with a weight by name: their standard scores, with that weight.
    - Scores within -1 and 1: their standard scores, with the profile's weight or 1, shared if there
      are several, which may say the same.
    - Other scores: their order, with the profile's weight of the order or 0.3, shared likewise.
    - The order of the items, with the profile's weight or none; but not beside scores whose order
      counts or that the items are in the order of, for these say it already.

    Scores that are all equal say nothing.

    Args:
        columns: name -> one score per item, in the order given.
        order_weight: of the order, as the profile in use has it; 0: it has none.
        scores_weight: of scores likewise; None: it does not say.
        asked: weights by name, also of "order".
    """
    telling = {name: column for name, column in columns.items() if tells(column)}
    named = {name: column for name, column in telling.items() if name in asked}
    rest = {name: column for name, column in telling.items() if name not in asked}
    alike = {name: column for name, column in rest.items() if is_like_cosines(column)}
    other = {name: column for name, column in rest.items() if name not in alike}
    of_scores = SCORES_WEIGHT if scores_weight is None else scores_weight
    parts = [
        *(Part(name, asked[name], column, by_order=False) for name, column in named.items()),
        *(
            Part(name, of_scores / len(alike), column, by_order=False)
            for name, column in alike.items()
        ),
        *(
            Part(name, (order_weight or FIRST_STAGE_WEIGHT) / len(other), column)
            for name, column in other.items()
        ),
    ]
    parts = [part for part in parts if part.weight > 0]
    said = any(part.by_order or _falls(part.scores or ()) for part in parts)
    weight = asked.get(ORDER, 0.0 if said else order_weight)
    return (*parts, Part(ORDER, weight)) if weight > 0 else tuple(parts)


def counts_by_scores(name: str, column: Column, asked: Mapping[str, float]) -> bool:
    """Whether `weigh` takes these scores, and not only their order."""
    return tells(column) and (asked[name] > 0 if name in asked else is_like_cosines(column))


def is_like_cosines(column: Column) -> bool:
    """Whether all scores that are known and finite lie within -1 and 1."""
    return all(
        abs(value) <= 1 + _ROUNDING
        for value in column
        if value is not None and not math.isinf(value)
    )


def tells(column: Column) -> bool:
    """Whether at least two scores differ by more than rounding."""
    return not _equal(_bounded([value for value in column if value is not None]))


def over_known(column: Column, scale: Callable[[list[float]], list[float]]) -> list[float]:
    """What ``scale`` makes of the scores that there are; 0, their mean, where there is none."""
    known = iter(scale([value for value in column if value is not None]))
    return [0.0 if value is None else next(known) for value in column]


def robust(values: list[float]) -> list[float]:
    """Standard scores that a few odd values do not spoil; all 0 where values are equal.

    Infinite values stand for the largest or smallest finite one. What is far outside of the middle
    half is drawn in to three times its width away, so that one huge score does not press the others
    together; of cosines that is hardly ever one.
    """
    bounded = _bounded(values)
    if _equal(bounded):
        return [0.0] * len(values)
    ordered = sorted(bounded)
    lower, upper = _quantile(ordered, 0.25), _quantile(ordered, 0.75)
    width = upper - lower
    # Where more than half are the same, there is no width to measure by.
    if width > _ROUNDING * max(abs(lower), abs(upper)):
        low, high = lower - _FENCE * width, upper + _FENCE * width
        bounded = [min(max(value, low), high) for value in bounded]
    # No square of what is left is too large or too small for a float.
    largest = max(map(abs, bounded))
    return standardised([value / largest for value in bounded])


def of_order(values: list[float]) -> list[float]:
    """1 / (rank + 10) by descending value, standardised; equal values share the mean, and favour
    nobody."""
    found = [0.0] * len(values)
    rank = 1
    for _, tied in groupby(stable_order(values), key=lambda item: values[item]):
        items = list(tied)
        shares = [1 / (place + _OFFSET) for place in range(rank, rank + len(items))]
        for item in items:
            found[item] = shares[0] if len(items) == 1 else sum(shares) / len(shares)
        rank += len(items)
    return standardised(found) if found else found


def _bounded(values: list[float]) -> list[float]:
    """Infinite values as the largest or smallest finite one; all 0 where none is finite."""
    finite = [value for value in values if not math.isinf(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    return [min(max(value, low), high) for value in values]


def _equal(values: Sequence[float]) -> bool:
    """Whether values differ by no more than rounding."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    return high - low <= _ROUNDING * max(abs(low), abs(high))


def _quantile(ordered: Sequence[float], share: float) -> float:
    """By linear interpolation, as NumPy's default; no sum of it overflows."""
    place = share * (len(ordered) - 1)
    at = min(int(place), len(ordered) - 2)
    part = place - at
    return ordered[at] * (1 - part) + ordered[at + 1] * part


def _falls(column: Column) -> bool:
    """Whether items are in the order of these scores, as far as they have any."""
    known = [value for value in column if value is not None]
    return all(first >= second for first, second in pairwise(known))
