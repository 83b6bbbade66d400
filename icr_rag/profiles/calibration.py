"""From absolute scores to probabilities: of one document's relevance, and of any answer at all.

Both are fitted once, by `icr_rag.profiling.calibrate`, and stand in a `Profile` as numbers, so that
nothing is needed to use them. What the scores depend on stands beside them: scores that were made
in another way would be given probabilities that mean nothing.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median, pstdev
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

#: What `Abstention` weighs, in this order.
FEATURES = ("top", "gap", "lead", "spread")


class Proposal(BaseModel):
    """A threshold on probabilities that was asked for by what it is to reach.

    Attributes:
        target: what was to be reached. wanted: how much of it, over all pairs of a query and a
            candidate.
        score_threshold: for the setting of this name; None: no threshold reaches it.
        precision, recall: of thresholds that were chosen on some queries and measured on others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: Literal["precision", "recall"]
    wanted: float = Field(gt=0, le=1)
    score_threshold: float | None = Field(None, ge=0, le=1)
    precision: float | None = Field(None, ge=0, le=1)
    recall: float | None = Field(None, ge=0, le=1)


class Calibration(BaseModel):
    """A map from explained scores to probabilities of relevance, which never changes an order.

    Attributes:
        kind: "logistic", 1 / (1 + exp(-(slope * score + intercept))) (Platt scaling); "isotonic":
            straight lines between knots, the ends' values beyond them.
        slope, intercept: of "logistic"; the slope is above 0.
        knots: of "isotonic": (score, probability), scores ascending, probabilities not falling.
        basis: what the scores depend on beside the model: a name -> how it was; see
            `icr_rag.scoring.base.Scorer.basis`.
        data: what it was fitted on.
        measured: figures, cross-validated by query.
        reliability: per bin of equally many pairs, (mean probability, share that is relevant,
            pairs), cross-validated.
        thresholds: those that were asked for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["logistic", "isotonic"]
    slope: float | None = Field(None, gt=0, allow_inf_nan=False)
    intercept: float | None = Field(None, allow_inf_nan=False)
    knots: tuple[tuple[float, float], ...] = ()
    basis: dict[str, str]
    data: dict[str, Any] = Field(default_factory=dict)
    measured: dict[str, float] = Field(default_factory=dict)
    reliability: tuple[tuple[float, float, int], ...] = ()
    thresholds: tuple[Proposal, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Calibration:
        line = self.slope is not None and self.intercept is not None
        if self.kind == "logistic" and (not line or self.knots):
            raise ValueError("kind='logistic' needs slope and intercept, and no knots")
        if self.kind == "isotonic":
            if self.slope is not None or self.intercept is not None or len(self.knots) < 2:
                raise ValueError("kind='isotonic' needs two knots or more, no slope, no intercept")
            _check_knots(self.knots)
        return self

    def probability(self, score: float) -> float:
        """The probability, 0 to 1, that a document with this explained score is relevant."""
        if self.kind == "logistic":
            return sigmoid((self.slope or 0.0) * score + (self.intercept or 0.0))
        right = bisect_right(self.knots, score, key=lambda knot: knot[0])
        if right == 0:
            return self.knots[0][1]
        if right == len(self.knots):
            return self.knots[-1][1]
        (x0, y0), (x1, y1) = self.knots[right - 1 : right + 1]
        # Rounding may not lift it above the next knot, which a better score would then be below.
        return min(y0 + (y1 - y0) * ((score - x0) / (x1 - x0)), y1)


class Abstention(BaseModel):
    """Weights by which the explained scores of a list tell whether anything in it answers.

    A logistic regression over the list's scores (arXiv 2402.12997).

    Attributes:
        intercept, weights: the sum of both with `features` is the log odds; one weight for each of
            `FEATURES`.
        basis: as a `Calibration` has it.
        data: what it was fitted on. measured: figures, cross-validated by query.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    intercept: float = Field(allow_inf_nan=False)
    weights: dict[str, float]
    basis: dict[str, str]
    data: dict[str, Any] = Field(default_factory=dict)
    measured: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Abstention:
        if set(self.weights) != set(FEATURES):
            raise ValueError(f"weights must be of {', '.join(FEATURES)}, each once")
        if not all(map(math.isfinite, self.weights.values())):
            raise ValueError("weights must be finite numbers")
        return self

    def probability(self, scores: Sequence[float]) -> float | None:
        """The probability, 0 to 1, that a list with these scores has an answer; None for none."""
        if not scores:
            return None
        found = features(scores)
        return sigmoid(
            math.fsum([self.intercept, *(self.weights[name] * found[name] for name in FEATURES)])
        )


def features(scores: Sequence[float]) -> Mapping[str, float]:
    """What is looked at of a list: its best score ("top"), how far that is above the second
    ("gap") and above the median ("lead"), and the standard deviation ("spread"); of a single
    document the last three are 0.

    Args:
        scores: explained scores of the distinct documents that were read, at least one.
    """
    best, *rest = sorted(scores, reverse=True)
    return {
        "top": best,
        "gap": best - rest[0] if rest else 0.0,
        "lead": best - median(scores),
        "spread": pstdev(scores),
    }


def sigmoid(value: float) -> float:
    """1 / (1 + exp(-value)), without overflow."""
    if value >= 0:
        return 1.0 / (1.0 + math.exp(-value))
    power = math.exp(value)
    return power / (1.0 + power)


def _check_knots(knots: Sequence[tuple[float, float]]) -> None:
    if not all(math.isfinite(score) and 0 <= chance <= 1 for score, chance in knots):
        raise ValueError("knots are (score, probability): finite, and from 0 to 1")
    for (x0, y0), (x1, y1) in pairwise(knots):
        if x1 <= x0 or y1 < y0:
            raise ValueError(
                f"knots must ascend, but ({x1}, {y1}) follows ({x0}, {y0}); a higher score may "
                "not have a lower probability"
            )
