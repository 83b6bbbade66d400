"""Maximal marginal relevance: documents that are relevant and unlike those before them.

Source: Carbonell & Goldstein 1998, "The Use of MMR, Diversity-Based Reranking for Reordering
Documents and Producing Summaries". Their lambda is 1 minus the weight here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from icr_rag.duplicates import shingles

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


def diversified(
    relevance: Sequence[float], texts: Sequence[str], weight: float, top_n: int | None = None
) -> list[int]:
    """An order in which each place has the best of what is left, by
    ``(1 - weight) * relevance - weight * (similarity to the likest text before it)``.

    Relevance is scaled to 0..1 over the list, so that the trade-off does not depend on units; texts
    are as similar as `icr_rag.duplicates.near_duplicates` has it, 0..1. Equal values keep their
    order, so that the first place is the most relevant text's, whatever the weight.

    Args:
        relevance: finite, higher is better; never rising.
        texts: as many.
        weight: of novelty, 0 < weight <= 1.
        top_n: how many places are decided so; the rest keeps its order behind them. None: all.

    Returns:
        Positions, a permutation. It costs time as places decided times all texts' characters.
    """
    # Here, so that importing icr_rag stays cheap.
    import numpy as np

    count = len(texts)
    places = count if top_n is None else min(top_n, count)
    if places < 2:
        return list(range(count))
    similarities = _Similarities(texts)
    relevant = (1 - weight) * _scaled(np.array(relevance, dtype=np.float64))
    closest = np.zeros(count)
    left = np.ones(count, dtype=bool)
    chosen: list[int] = []
    while True:
        # The first of equal ones.
        best = int(np.argmax(np.where(left, relevant - weight * closest, -np.inf)))
        chosen.append(best)
        left[best] = False
        if len(chosen) == places:
            return [*chosen, *map(int, np.flatnonzero(left))]
        closest = np.maximum(closest, similarities.to(best))


def _scaled(values: Floats) -> Floats:
    """Scaled to 0..1; all 0 where they are equal."""
    least, most = values.min(), values.max()
    # Halves, for a difference of two finite numbers may be none.
    width = most / 2 - least / 2
    return values * 0 if width == 0 else (values / 2 - least / 2) / width


class _Similarities:
    """Jaccard similarities of texts, by their shingles, one text against all at a time."""

    def __init__(self, texts: Sequence[str]) -> None:
        import numpy as np

        numbers: dict[str, int] = {}
        rows = [[numbers.setdefault(own, len(numbers)) for own in shingles(text)] for text in texts]
        self._sizes = np.array([len(row) for row in rows])
        self._ends = np.cumsum(self._sizes)
        self._shingles = np.array([own for row in rows for own in row], dtype=np.intp)
        self._owners = np.repeat(np.arange(len(rows)), self._sizes)
        self._marked = np.zeros(len(numbers), dtype=bool)

    def to(self, text: int) -> Floats:
        """[text]: of all to one."""
        import numpy as np

        own = self._shingles[self._ends[text] - self._sizes[text] : self._ends[text]]
        self._marked[own] = True
        found = self._owners[self._marked[self._shingles]]
        self._marked[own] = False
        common = np.bincount(found, minlength=len(self._sizes))
        either = self._sizes + len(own) - common
        return common / np.maximum(either, 1)
