"""The first stage's order as weak evidence beside the model's scores.

A first stage that works puts relevant documents high, and a model that reads each document alone
does not know it. The score becomes z(score) + weight x z(1 / (rank + 10)), z over the list; where
the order tells nothing, a small weight costs little. Works on numbers; it holds no model code.
"""

from __future__ import annotations

from collections.abc import Sequence

from icr_rag.frameworks.result import WindowedScores
from icr_rag.ranking import stable_order, standardised

#: Flattens the reciprocal at the top, so that rank 1 is worth less than twice rank 10.
_OFFSET = 10


def with_prior(
    ranked: WindowedScores, weight: float, first_scores: Sequence[float] | None = None
) -> WindowedScores:
    """Combine a ranking with the order in which its items were given.

    Args:
        ranked: items 0 to n - 1, numbered in the order given. Its scores never contradict its
            order, also over several windows.
        weight: of the order, beside 1 for the scores.
        first_scores: the first stage's scores, one per item; by them the items are ordered
            instead. Higher is better.

    Returns:
        The combined ranking; all scores compare.
    """
    count = len(ranked.scores)
    if weight == 0 or count < 2:
        return ranked
    given = range(count) if first_scores is None else stable_order(first_scores)
    reciprocal = [0.0] * count
    for rank, item in enumerate(given, start=1):
        reciprocal[item] = 1 / (rank + _OFFSET)
    scores = [
        own + weight * prior
        for own, prior in zip(standardised(ranked.scores), standardised(reciprocal), strict=True)
    ]
    return WindowedScores(stable_order(scores), scores, [0] * count)
