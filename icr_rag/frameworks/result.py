"""What every framework returns, and how an order alone becomes scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from icr_rag.errors import InputError, NonFiniteScoreError


@dataclass(frozen=True)
class WindowedScores:
    """The outcome of ranking n items.

    Attributes:
        order: positions of the items, best first.
        scores: one per item; higher is better, and they never rise along the order. Listwise:
            from the last window that read the item; those of a lower window are lowered by one
            constant where they would contradict the order.
        groups: one per item. Scores compare within a group only. Listwise: the number of the
            window; all other frameworks have the one group 0.
        unscored: items that a deadline left without a score, in group -1; see
            `icr_rag.frameworks.unscored`.
    """

    order: list[int]
    scores: list[float]
    groups: list[int]
    unscored: frozenset[int] = frozenset()


def from_order(order: Sequence[int]) -> WindowedScores:
    """The outcome of a sort by comparisons, which knows the order and nothing else.

    The scores are n for the best item, n - 1 for the next, down to 1: they say the order and not
    how far apart two items are.
    """
    scores = [0.0] * len(order)
    for place, item in enumerate(order):
        scores[item] = float(len(order) - place)
    return WindowedScores(list(order), scores, [0] * len(order))


def checked(values: Sequence[float], count: int, what: str, of: str) -> list[float]:
    """What a scorer gave, as floats: one finite number for each that was asked for.

    Sorting by NaN would scramble the list without a word, and a number too few would move all
    that follow.

    Args:
        values: as they came.
        count: how many there must be.
        what, of: how messages call one of them, and what it is given for.

    Raises:
        InputError: if there are too few or too many.
        NonFiniteScoreError: if one is NaN or infinite.
    """
    numbers = [float(value) for value in values]
    if len(numbers) != count:
        raise InputError(
            f"the scorer returned {len(numbers)} {what}s for {count} {of}; it must return one for "
            "each"
        )
    for number in numbers:
        if not math.isfinite(number):
            raise NonFiniteScoreError(
                f"a {what} is {number}; it must be a finite number. Float16 overflow is the usual "
                "cause: load the model with dtype='float32' or 'bfloat16'"
            )
    return numbers
