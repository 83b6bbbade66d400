"""Orders made of numbers: sorting that keeps ties in place, and scores on one scale."""

from __future__ import annotations

import math
from collections.abc import Sequence

#: The score of what is not read, where scores are absolute (``score_mode="explained"``) and so may
#: not depend on others: a constant, below what any document gets that is read.
UNREAD = -100.0


def stable_order(scores: Sequence[float]) -> list[int]:
    """Positions by descending score; equal scores keep their order."""
    return sorted(range(len(scores)), key=lambda position: -scores[position])


def below(scores: Sequence[float]) -> float:
    """A finite score for what was not read: lower than all others, and never above 0."""
    return min(0.0, math.nextafter(min(scores), -math.inf)) if scores else 0.0


def standardised(values: Sequence[float]) -> list[float]:
    """z-scores; all 0 where they are equal."""
    if min(values) == max(values):
        # Their mean may differ from them by a rounding.
        return [0.0] * len(values)
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    return [0.0 if deviation == 0 else (value - mean) / deviation for value in values]
