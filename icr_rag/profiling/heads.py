"""Head selection: which few heads rank better than all of them?

- CoRe (arXiv 2510.02219, section 3): softmax of a head's document scores over the positive and the
  hard negatives; the mean probability of the positive.
- QRHead (arXiv 2506.09944, section 3): the attention mass that a head puts on the positive.
- Greedy: heads are added one by one, each time the one that raises nDCG@10 of the mean most.

All return weighted readings with equal weights; `icr_rag.profiling.weights` learns unequal ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from icr_rag.errors import InputError
from icr_rag.model.reading import READINGS
from icr_rag.profiles import HeadWeight
from icr_rag.profiling.curve import measure_ranking
from icr_rag.profiling.samples import Sample, standardise

#: CoRe's temperature, for z-scored readings.
_TEMPERATURE = 1.0


def core_values(samples: Sequence[Sample], reading: str = "log_mass") -> np.ndarray:
    """[layer, head]: CoRe's score of each head, from 0 to 1, higher is better."""
    column = READINGS.index(reading)
    total = 0.0
    for sample in _useful(samples):
        scores = standardise(sample.readings[..., column]) / _TEMPERATURE
        exponent = np.exp(scores - scores.max(axis=0))
        shares = exponent / exponent.sum(axis=0)
        total = total + shares[sample.grades > 0].mean(axis=0)
    return np.asarray(total) / len(_useful(samples))


def qr_values(samples: Sequence[Sample]) -> np.ndarray:
    """[layer, head]: QRHead's score: mean attention mass on relevant documents."""
    column = READINGS.index("log_mass")
    useful = _useful(samples)
    mass = [np.exp(s.readings[..., column])[s.grades > 0].sum(axis=0) for s in useful]
    return np.asarray(np.mean(mass, axis=0))


def select_heads_by(
    values: np.ndarray, size: int, reading: str = "log_mass", depth_penalty: float = 0.0
) -> tuple[HeadWeight, ...]:
    """The best ``size`` heads by a value per head, equally weighted.

    Args:
        values: [layer, head], higher is better.
        size: how many.
        reading: which reading of them is used.
        depth_penalty: taken off the value, from 0 at the first layer to this at the last, so that
            of two nearly equal heads the one that exits earlier is taken.
    """
    layers, heads = values.shape
    depth = np.linspace(0.0, depth_penalty, layers)[:, None]
    order = np.argsort(-(values - depth), axis=None, kind="stable")[:size]
    pairs = [(int(place // heads), int(place % heads)) for place in order]
    return _equal(pairs, reading)


def greedy_heads(
    samples: Sequence[Sample],
    size: int,
    reading: str = "log_mass",
    depth_penalty: float = 0.0,
) -> tuple[HeadWeight, ...]:
    """Heads added one by one by nDCG@10 of the mean of their z-scores.

    Args:
        depth_penalty: nDCG that a layer deeper than those already read costs, times its share of
            all layers: a set that exits early may win though it is slightly worse.
    """
    column = READINGS.index(reading)
    useful = _useful(samples)
    scores = [standardise(sample.readings[..., column]) for sample in useful]
    layers, heads = scores[0].shape[1:]
    sums = [np.zeros(len(sample.grades)) for sample in useful]
    chosen: list[tuple[int, int]] = []
    while len(chosen) < min(size, layers * heads):
        value = np.mean(
            [
                measure_ranking(own + total[:, None, None], s.grades, s.ideal, "nDCG@10")
                for own, total, s in zip(scores, sums, useful, strict=True)
            ],
            axis=0,
        )
        deepest = max((layer for layer, _ in chosen), default=0)
        extra = np.clip(np.arange(layers) - deepest, 0, None) / max(1, layers - 1)
        value = value - depth_penalty * extra[:, None]
        for layer, head in chosen:
            value[layer, head] = -np.inf
        layer, head = (int(x) for x in np.unravel_index(int(value.argmax()), value.shape))
        chosen.append((layer, head))
        sums = [total + own[:, layer, head] for own, total in zip(scores, sums, strict=True)]
    return _equal(chosen, reading)


def window_heads(window: tuple[int, int], heads: int, reading: str) -> tuple[HeadWeight, ...]:
    """All heads of a window of layers, equally weighted."""
    first, last = window
    return _equal([(i, h) for i in range(first, last + 1) for h in range(heads)], reading)


def _equal(pairs: Sequence[tuple[int, int]], reading: str) -> tuple[HeadWeight, ...]:
    weight = 1.0 / max(1, len(pairs))
    return tuple(
        HeadWeight(layer=layer, head=head, reading=reading, weight=weight) for layer, head in pairs
    )


def _useful(samples: Sequence[Sample]) -> list[Sample]:
    useful = [sample for sample in samples if sample.grades.max(initial=0) > 0]
    if not useful:
        raise InputError(
            f"none of {len(samples)} queries has a relevant document among its candidates, so "
            "that no head can be chosen; give deeper candidates or other queries"
        )
    return useful
