"""What heads are taught by: for each query, how its candidates share its relevance.

Labels give each candidate its grade's share. Scores of anything that ranks give a softmax of six
times the standardised score: of a list of twenty the best few get nearly all, and how near the
rest come still counts. Any re-ranker can teach so, also the model's own query likelihood, which
needs no labels. Several teachers make mistakes of their own, and their mean fewer; a query without
labels is taught by the scores that it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from icr_rag.errors import InputError
from icr_rag.profiling.samples import Sample, standardise

#: A sample -> float64 [document], not negative, adding up to 1; None: it teaches nothing.
Teacher = Callable[[Sample], "np.ndarray | None"]

LABELS, LIKELIHOOD, BLEND = "labels", "likelihood", "blend"

#: What standardised scores are multiplied with. Measured on ten sets with whole sets left out.
SHARPNESS = 6.0


def by_labels(sample: Sample) -> np.ndarray | None:
    """Each candidate's share of the grades: [document]; None where none is relevant."""
    if not sample.grades.any():
        return None
    shares: np.ndarray = sample.grades / sample.grades.sum()
    return shares


def by_scores(scores: np.ndarray) -> np.ndarray:
    """Softmax of `SHARPNESS` times the standardised scores: float64 [document].

    Args:
        scores: [document], higher is better, of any scale; equal ones get equal shares.
    """
    # Divided first by the largest: no square of what is left is too large.
    sharp = SHARPNESS * standardise(scores / np.abs(scores).max(initial=1))
    shares: np.ndarray = np.exp(sharp - sharp.max(initial=-np.inf))
    shares /= shares.sum()
    return shares


def mean_of(shares: Sequence[np.ndarray | None], weights: Sequence[float]) -> np.ndarray | None:
    """The weighted mean of the shares that there are: [document]; None where there are none."""
    known = [(own, weight) for own, weight in zip(shares, weights, strict=True) if own is not None]
    if not known:
        return None
    total = sum(weight for _, weight in known)
    mean: np.ndarray = np.sum([own * (weight / total) for own, weight in known], axis=0)
    return mean


@dataclass(frozen=True)
class Teaching:
    """Several teachers at once: the weighted mean of those that know a query.

    Attributes:
        weights: teacher -> weight: `LABELS`, `LIKELIHOOD` (`Sample.likelihood`), or a name in
            `Sample.scores`. Weights are positive.

    Raises:
        InputError: for no teacher, or a weight that is not positive.
    """

    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        if not self.weights or not all(weight > 0 for weight in self.weights.values()):
            raise InputError(
                f"teachers {dict(self.weights)}; give at least one, each with a weight above 0"
            )

    def __call__(self, sample: Sample) -> np.ndarray | None:
        """See `Teacher`."""
        shares = [self._shares(sample, name) for name in self.weights]
        return mean_of(shares, list(self.weights.values()))

    @staticmethod
    def _shares(sample: Sample, name: str) -> np.ndarray | None:
        if name == LABELS:
            return by_labels(sample)
        scores = sample.likelihood if name == LIKELIHOOD else sample.scores.get(name)
        return None if scores is None else by_scores(scores)

    @property
    def l2(self) -> float:
        """The penalty that did best for such teachers (`icr_rag.profiling.weights`): scores say
        something of every candidate and want less of it than the few labels do, and both
        together, which fight over the same weights, more."""
        if LABELS not in self.weights:
            return 15.0
        return 20.0 if len(self.weights) == 1 else 40.0

    @property
    def size(self) -> int | None:
        """How many readings did best: 64 for labels, else all of them (None)."""
        return 64 if set(self.weights) == {LABELS} else None

    def __str__(self) -> str:
        if len(set(self.weights.values())) == 1:
            return ", ".join(self.weights)
        return ", ".join(f"{weight:.3g} {name}" for name, weight in self.weights.items())


def average(names: Sequence[str]) -> Teaching:
    """Teachers that count the same; `BLEND` stands for likelihood and labels, half and half.

    Raises:
        InputError: for no name, or one that is given twice.
    """
    if len(set(names)) != len(names):
        raise InputError(f"teachers {', '.join(names)}: one is named twice; name each once")
    weights: dict[str, float] = {}
    for name in names:
        parts = (LIKELIHOOD, LABELS) if name == BLEND else (name,)
        for part in parts:
            weights[part] = weights.get(part, 0.0) + 1 / (len(names) * len(parts))
    return Teaching(weights)
