"""How good probabilities are: Brier score, calibration error, log loss, AUC, and a table.

Plain NumPy; higher probabilities are for what is relevant.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

#: Bins of equally many pairs, for the calibration error and the table.
BINS = 10
#: What log loss takes probabilities of 0 and 1 for.
_CERTAIN = 1e-12


@dataclass(frozen=True)
class Bin:
    """Pairs with neighbouring probabilities.

    Attributes:
        predicted: their mean probability. observed: the share that is relevant. count: of pairs.
    """

    predicted: float
    observed: float
    count: int


def brier(predicted: np.ndarray, relevant: np.ndarray) -> float:
    """Mean squared difference to what is so, 0 to 1; lower is better (Brier 1950).

    Args:
        predicted: [pair], probabilities. relevant: [pair], bool.
    """
    return float(np.mean((predicted - relevant) ** 2))


def log_loss(predicted: np.ndarray, relevant: np.ndarray) -> float:
    """Mean -log of the probability of what is so, in nats; lower is better."""
    inside = np.clip(predicted, _CERTAIN, 1 - _CERTAIN)
    return float(-np.mean(np.where(relevant, np.log(inside), np.log1p(-inside))))


def auc(predicted: np.ndarray, relevant: np.ndarray) -> float:
    """How often what is relevant has the higher value, ties count half; NaN where one lacks."""
    positive, negative = predicted[relevant], np.sort(predicted[~relevant])
    if not len(positive) or not len(negative):
        return math.nan
    below = np.searchsorted(negative, positive, "left")
    up_to = np.searchsorted(negative, positive, "right")
    return float((below + up_to).sum() / 2 / (len(positive) * len(negative)))


def bins(predicted: np.ndarray, relevant: np.ndarray, count: int = BINS) -> list[Bin]:
    """At most ``count`` bins of about equally many pairs, by ascending probability.

    Equal probabilities are in one bin, so that it does not depend on the order of the pairs.
    """
    order = np.argsort(predicted, kind="stable")
    ordered, so = predicted[order], relevant[order]
    # Where a bin begins, moved on to where the value changes.
    wanted = [len(ordered) * number // count for number in range(count)]
    begins = {
        0 if w == 0 else int(np.searchsorted(ordered, ordered[w - 1], "right")) for w in wanted
    }
    edges = [*sorted(begins - {len(ordered)}), len(ordered)]
    return [
        Bin(float(ordered[a:b].mean()), float(so[a:b].mean()), b - a)
        for a, b in itertools.pairwise(edges)
        if b > a
    ]


def calibration_error(predicted: np.ndarray, relevant: np.ndarray, count: int = BINS) -> float:
    """Expected calibration error, 0 to 1, over bins of equally many pairs; lower is better.

    Mean difference between what a bin predicts and what is so, weighted by its pairs (Naeini et
    al. 2015; of equal mass as in Nguyen and O'Connor 2015).
    """
    return sum(
        abs(one.predicted - one.observed) * one.count for one in bins(predicted, relevant, count)
    ) / max(1, len(predicted))


def figures(predicted: np.ndarray, relevant: np.ndarray) -> dict[str, float]:
    """All measures, by the names that a profile has them under."""
    return {
        "pairs": float(len(predicted)),
        "relevant": float(relevant.sum()),
        "Brier": round(brier(predicted, relevant), 4),
        "ECE": round(calibration_error(predicted, relevant), 4),
        "log loss": round(log_loss(predicted, relevant), 4),
        "AUC": round(auc(predicted, relevant), 4),
    }
