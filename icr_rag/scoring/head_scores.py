"""From readings of many heads to one score per document.

Each (layer, head, reading) is standardised over the candidates, because heads differ in scale by
orders of magnitude; then the weighted ones are added up. With equal weights this is the mean of
z-scores; learned weights are signed, for a head may attend to what is *not* relevant.

Where scores must not depend on the other candidates nothing is standardised: readings are then
weighted as they are, and it is up to the caller what they are compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from icr_rag.model.reading import READINGS
from icr_rag.profiles import HeadWeight


class HeadScores:
    """Scores by weighted readings.

    Args:
        weights: what is added up.
        heads: layer -> heads that are read, None for all of ``head_count``.
        head_count: attention heads of a layer.
    """

    def __init__(
        self,
        weights: Sequence[HeadWeight],
        heads: Mapping[int, Sequence[int] | None],
        head_count: int,
    ) -> None:
        place: dict[tuple[int, int], int] = {}
        for layer in sorted(heads):
            chosen = heads[layer]
            for head in range(head_count) if chosen is None else chosen:
                place[layer, head] = len(place)
        self._columns = torch.tensor(
            [
                place[item.layer, item.head] * len(READINGS) + READINGS.index(item.reading)
                for item in weights
            ]
        )
        self._weights = torch.tensor([item.weight for item in weights], dtype=torch.float64)

    def __call__(self, readings: torch.Tensor) -> list[float]:
        """One score per document, higher is better, relative to these documents.

        Args:
            readings: float32 [document, layer and head, reading], pairs in ascending order of
                layers and within one in the order read.
        """
        scores: list[float] = (standardise(self.weighted(readings)) @ self._weights).tolist()
        return scores

    def weighted(self, readings: torch.Tensor) -> torch.Tensor:
        """Those that have a weight: float64 [document, weight], from readings as above."""
        return readings.flatten(1)[:, self._columns].double()

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """[document]: the weighted mean of values as `weighted` has them, in their unit."""
        return values @ self._weights / self._weights.abs().sum().clamp_min(1e-30)


def standardise(values: torch.Tensor) -> torch.Tensor:
    """z-scores over the first axis; what does not vary becomes 0."""
    deviation = values.std(dim=0, correction=0, keepdim=True)
    centred = values - values.mean(dim=0, keepdim=True)
    varies = deviation > 1e-9 * values.abs().amax(dim=0, keepdim=True).clamp_min(1e-30)
    return torch.where(varies, centred / deviation.clamp_min(1e-30), torch.zeros_like(centred))
