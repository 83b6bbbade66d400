"""The layer study: how well each layer and each head ranks, where the bell peaks, how sure it is.

"Where Relevance Emerges" (arXiv 2602.22591), section 4: every layer scores alone; the curve over
layers is a bell; a window centred on its peak is read. The curve is smoothed by a Gaussian kernel
over layers, and the confidence comes from a bootstrap over queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from icr_rag.errors import InputError
from icr_rag.model.reading import READINGS
from icr_rag.profiles.shipped import WINDOW_WIDTH
from icr_rag.profiling.samples import Sample, standardise

#: Measures of a ranking; all from 0 to 1, higher is better.
MEASURES = ("nDCG@10", "R@10", "RR@10")

#: Width of the smoothing kernel, in layers.
_KERNEL = 1.0


@dataclass(frozen=True)
class LayerCurve:
    """How well each layer ranks by itself.

    Attributes:
        reading, measure: what is drawn.
        values: float64 [layer], mean over queries.
        smooth: the same after smoothing.
        low, high: 95 % band of ``smooth`` over resampled queries.
        peak: layer with the highest smoothed value.
        peak_low, peak_high: 95 % interval of the peak.
        window: (first, last) layer around the peak, inclusive.
        window_share: share of the resamples that choose this very window.
        queries: how many.
    """

    reading: str
    measure: str
    values: np.ndarray
    smooth: np.ndarray
    low: np.ndarray
    high: np.ndarray
    peak: int
    peak_low: int
    peak_high: int
    window: tuple[int, int]
    window_share: float
    queries: int

    def to_dict(self) -> dict[str, object]:
        """JSON types."""
        arrays = {
            name: [round(float(x), 4) for x in getattr(self, name)]
            for name in ("values", "smooth", "low", "high")
        }
        return {
            "reading": self.reading,
            "measure": self.measure,
            **arrays,
            "peak": self.peak,
            "peak_interval": [self.peak_low, self.peak_high],
            "window": list(self.window),
            "window_share": round(self.window_share, 3),
            "queries": self.queries,
        }


def measure_ranking(
    scores: np.ndarray, grades: np.ndarray, ideal: np.ndarray, measure: str
) -> np.ndarray:
    """A measure of many rankings of the same documents.

    Args:
        scores: [document, ...]; ties keep input order.
        grades: [document]; ideal: grades of all relevant documents, highest first.
        measure: one of `MEASURES`, as trec_eval defines them (nDCG with linear gain).

    Returns:
        [...], one value per ranking; 0 where nothing is relevant.
    """
    order = np.argsort(-scores, axis=0, kind="stable")[:10]
    found = grades[order]
    relevant = int((ideal > 0).sum())
    if relevant == 0:
        return np.zeros(scores.shape[1:])
    if measure == "R@10":
        recall: np.ndarray = (found > 0).sum(axis=0) / relevant
        return recall
    if measure == "RR@10":
        hit = found > 0
        first = hit.argmax(axis=0)
        return np.where(hit.any(axis=0), 1.0 / (first + 1), 0.0)
    if measure != "nDCG@10":
        raise InputError(f"measure={measure!r}; allowed are {', '.join(MEASURES)}")
    discount = 1 / np.log2(np.arange(2, 12))
    best = float((ideal[:10] * discount[: len(ideal[:10])]).sum())
    gained = np.tensordot(discount[: len(found)], found, axes=(0, 0))
    ndcg: np.ndarray = gained / best
    return ndcg


def layer_values(samples: Sequence[Sample], reading: str, measure: str = "nDCG@10") -> np.ndarray:
    """[query, layer]: each layer alone, all heads, standardised and averaged."""
    column = _column(reading)
    rows = []
    for sample in samples:
        scores = standardise(sample.readings[..., column]).mean(axis=2)
        rows.append(measure_ranking(scores, sample.grades, sample.ideal, measure))
    return np.stack(rows)


def head_values(samples: Sequence[Sample], reading: str, measure: str = "nDCG@10") -> np.ndarray:
    """[query, layer, head]: each head alone."""
    column = _column(reading)
    return np.stack(
        [
            measure_ranking(s.readings[..., column], s.grades, s.ideal, measure) for s in samples
        ]
    )  # fmt: skip


def layer_curve(
    samples: Sequence[Sample],
    reading: str = "log_mass",
    measure: str = "nDCG@10",
    *,
    width: int = WINDOW_WIDTH,
    resamples: int = 1000,
    seed: int = 0,
) -> LayerCurve:
    """The bell curve, its peak and the window around it, with bootstrap confidence.

    Args:
        samples: at least one.
        reading: one of `icr_rag.model.reading.READINGS`.
        width: layers in the window.
        resamples: of the queries, with replacement.

    Raises:
        InputError: for no samples, an unknown reading or measure.
    """
    if not samples:
        raise InputError("there are no queries to draw a curve from")
    per_query = layer_values(samples, reading, measure)
    smoother = _kernel(per_query.shape[1])
    values = per_query.mean(axis=0)
    smooth = values @ smoother
    generator = np.random.default_rng(seed)
    picks = generator.integers(0, len(samples), size=(resamples, len(samples)))
    curves = per_query[picks].mean(axis=1) @ smoother
    peaks = curves.argmax(axis=1)
    peak = int(smooth.argmax())
    window = window_around(smooth, peak, width)
    same = [window_around(c, int(p), width) == window for c, p in zip(curves, peaks, strict=True)]
    return LayerCurve(
        reading=reading,
        measure=measure,
        values=values,
        smooth=smooth,
        low=np.percentile(curves, 2.5, axis=0),
        high=np.percentile(curves, 97.5, axis=0),
        peak=peak,
        peak_low=int(np.percentile(peaks, 2.5)),
        peak_high=int(np.percentile(peaks, 97.5)),
        window=window,
        window_share=float(np.mean(same)) if same else 1.0,
        queries=len(samples),
    )


def window_around(smooth: np.ndarray, peak: int, width: int) -> tuple[int, int]:
    """The window of ``width`` layers with the peak in its middle.

    Of an even width the half with the higher sum beside the peak gets one layer more; at an end
    of the model the window is moved inside.
    """
    count = len(smooth)
    width = min(width, count)
    choices = sorted({(width - 1) // 2, width // 2})
    starts = [min(max(0, peak - before), count - width) for before in choices]
    start = max(starts, key=lambda at: (float(smooth[at : at + width].sum()), -at))
    return start, start + width - 1


def _kernel(count: int) -> np.ndarray:
    """[layer, layer]: column j holds the weights of the layers around j, adding up to 1."""
    distance = np.arange(count)[:, None] - np.arange(count)[None]
    weights = np.exp(-0.5 * (distance / _KERNEL) ** 2)
    result: np.ndarray = weights / weights.sum(axis=0)
    return result


def _column(reading: str) -> int:
    if reading not in READINGS:
        raise InputError(f"reading={reading!r}; allowed are {', '.join(READINGS)}")
    return READINGS.index(reading)
