"""Fits what turns explained scores into probabilities, and measures it on other queries.

Two things, both by logistic regression or isotonic regression of scikit-learn: the probability that
a document is relevant, of all pairs of a query and a candidate; and the probability that a list has
an answer, of lists with their relevant documents and of the same lists without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from icr_rag.errors import InputError, require
from icr_rag.profiles.calibration import FEATURES, Abstention, Calibration, features
from icr_rag.profiling.reliability import bins, figures
from icr_rag.profiling.samples import fold_of
from icr_rag.profiling.thresholds import propose

#: How scores may become probabilities.
KINDS = ("logistic", "isotonic")
_FOLDS = 5
#: Inverse strengths of the L2 penalty on standardised scores. Of one score weak, so that the line
#: is that of the data, and yet finite where scores separate perfectly; of the four of a list, which
#: say nearly the same, scikit-learn's own.
_ONE_SCORE, _LIST = 100.0, 1.0


@dataclass(frozen=True)
class ScoredList:
    """The explained scores of one query's candidates.

    Attributes:
        query_id: tells queries apart. group: the data that it is from.
        scores: float64 [document]. relevant: bool [document].
    """

    query_id: str
    group: str
    scores: np.ndarray
    relevant: np.ndarray


@dataclass(frozen=True)
class Fitted:
    """What was fitted.

    Attributes:
        calibration: for single documents.
        abstention: for lists; None where there are too few lists of either kind.
        predicted: float64 [pair], the probability of each by what was fitted without its query.
        relevant: bool [pair].
    """

    calibration: Calibration
    abstention: Abstention | None
    predicted: np.ndarray
    relevant: np.ndarray


def fit(
    lists: Sequence[ScoredList],
    kind: str,
    basis: Mapping[str, str],
    data: Mapping[str, Any],
    targets: Sequence[tuple[str, float]] = (),
) -> Fitted:
    """Calibration, abstention, and figures that are cross-validated by query.

    Args:
        lists: one per query.
        kind: of `KINDS`.
        basis: what the scores depend on, as their scorer tells.
        data: what the lists are from.
        targets: ("precision" or "recall", how much of it): thresholds to propose.

    Raises:
        InputError: for another kind; too few queries with and without relevant candidates; scores
            that do not rise with relevance.
        MissingDependencyError: without scikit-learn.
    """
    if kind not in KINDS:
        raise InputError(f"kind={kind!r}; allowed are {', '.join(KINDS)}")
    _learner()
    lists = [one for one in lists if len(one.scores)]
    folds = np.array([fold_of(one.query_id, _FOLDS) for one in lists])
    parts = sorted({int(fold) for fold in folds})
    pairs = [_pooled([one for one, fold in zip(lists, folds, strict=True) if fold != held])
             for held in parts]  # fmt: skip
    if len(parts) < 2 or not all(so.any() and not so.all() for _, so in [*pairs, _pooled(lists)]):
        raise InputError(
            f"{len(lists)} queries are too few to calibrate on: each part of them needs candidates "
            "that are relevant and candidates that are not; give more queries, or a larger --depth"
        )
    predicted, relevant, of_fold = [], [], []
    for held, (scores, so) in zip(parts, pairs, strict=True):
        without = _fit_pairs(scores, so, kind)
        for one in (one for one, fold in zip(lists, folds, strict=True) if fold == held):
            predicted += [without.probability(float(score)) for score in one.scores]
            relevant += one.relevant.tolist()
            of_fold += [held] * len(one.scores)
    chances, so = np.array(predicted), np.array(relevant, dtype=bool)
    told = {**data, "queries": len(lists)}
    calibration = _fit_pairs(*_pooled(lists), kind).model_copy(
        update={
            "basis": dict(basis),
            "data": told,
            "measured": figures(chances, so),
            "reliability": tuple(
                (round(one.predicted, 4), round(one.observed, 4), one.count)
                for one in bins(chances, so)
            ),
            "thresholds": propose(chances, so, np.array(of_fold), targets),
        }
    )
    return Fitted(calibration, _abstention(lists, folds, basis, told), chances, so)


def _pooled(lists: Sequence[ScoredList]) -> tuple[np.ndarray, np.ndarray]:
    if not lists:
        return np.empty(0), np.empty(0, dtype=bool)
    scores = np.concatenate([one.scores for one in lists]).astype(np.float64)
    return scores, np.concatenate([one.relevant for one in lists]).astype(bool)


def _learner() -> Any:
    return require("sklearn.linear_model", "evaluation", "Calibrating")


def _regression(columns: np.ndarray, so: np.ndarray, strength: float) -> tuple[np.ndarray, float]:
    """Weights and intercept of a logistic regression, for the columns as they are."""
    mean, deviation = columns.mean(axis=0), columns.std(axis=0)
    scale = np.where(deviation > 0, deviation, 1.0)
    model = _learner().LogisticRegression(C=strength, max_iter=1000)
    model.fit((columns - mean) / scale, so)
    weights = model.coef_[0] / scale
    return weights, float(model.intercept_[0] - weights @ mean)


def _fit_pairs(scores: np.ndarray, so: np.ndarray, kind: str) -> Calibration:
    # Also for "isotonic", which makes a flat line of scores that fall with relevance.
    weights, intercept = _regression(scores[:, None], so, _ONE_SCORE)
    if weights[0] <= 0:
        raise InputError(
            "the scores do not rise with relevance on these queries, so that they say nothing of "
            "it; choose another scoring or model, or give more queries"
        )
    if kind == "logistic":
        return Calibration(kind="logistic", slope=float(weights[0]), intercept=intercept, basis={})
    isotonic = require("sklearn.isotonic", "evaluation", "Calibrating").IsotonicRegression
    # None is certain after so many pairs: as if one more of each kind had been seen.
    least = 1 / (len(so) + 2)
    model = isotonic(y_min=least, y_max=1 - least, out_of_bounds="clip").fit(scores, so)
    knots = list(zip(model.X_thresholds_.tolist(), model.y_thresholds_.tolist(), strict=True))
    if len(knots) < 2:
        raise InputError("all candidates have one score, which says nothing of relevance")
    return Calibration(kind="isotonic", knots=tuple(knots), basis={})


def _abstention(
    lists: Sequence[ScoredList],
    folds: np.ndarray,
    basis: Mapping[str, str],
    data: Mapping[str, Any],
) -> Abstention | None:
    # The same list with and without what is relevant, so that nothing else tells the two apart.
    kinds: list[tuple[np.ndarray, bool, int]] = []
    for one, fold in zip(lists, folds.tolist(), strict=True):
        if one.relevant.any():
            kinds.append((one.scores, True, fold))
        if not one.relevant.all():
            kinds.append((one.scores[~one.relevant], False, fold))
    columns = np.array([_row(scores) for scores, _, _ in kinds])
    answers = np.array([answer for _, answer, _ in kinds], dtype=bool)
    held = np.array([fold for _, _, fold in kinds])
    chances = np.zeros(len(kinds))
    for part in sorted(set(held.tolist())):
        rest = held != part
        if not answers[rest].any() or answers[rest].all():
            return None
        judge = _weights(*_regression(columns[rest], answers[rest], _LIST))
        for place in np.flatnonzero(~rest):
            chances[place] = judge.probability(kinds[place][0].tolist())
    found = figures(chances, answers)
    measured = {"lists": found.pop("pairs"), "with an answer": found.pop("relevant"), **found}
    return _weights(*_regression(columns, answers, _LIST)).model_copy(
        update={"basis": dict(basis), "data": dict(data), "measured": measured}
    )


def _row(scores: np.ndarray) -> list[float]:
    found = features(scores.tolist())
    return [found[name] for name in FEATURES]


def _weights(weights: np.ndarray, intercept: float) -> Abstention:
    named = dict(zip(FEATURES, weights.tolist(), strict=True))
    return Abstention(intercept=intercept, weights=named, basis={})
