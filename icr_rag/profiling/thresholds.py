"""Thresholds on probabilities that reach a precision or a recall.

Each is chosen on all queries and measured by thresholds that were chosen without the queries that
they are measured on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from icr_rag.errors import InputError
from icr_rag.profiles.calibration import Proposal

#: So many pairs must be above a threshold, at least: the precision of fewer is luck.
LEAST_KEPT = 10


def propose(
    predicted: np.ndarray,
    relevant: np.ndarray,
    folds: np.ndarray,
    targets: Sequence[tuple[str, float]],
) -> tuple[Proposal, ...]:
    """One proposal per target.

    Args:
        predicted: float64 [pair], cross-validated probabilities. relevant: bool [pair].
        folds: int [pair], the part that its query is in.
        targets: ("precision" or "recall", how much of it, above 0 and up to 1).

    Raises:
        InputError: for another target, or one out of bounds.
    """
    return tuple(_proposal(predicted, relevant, folds, *target) for target in targets)


def choose_threshold(
    predicted: np.ndarray, relevant: np.ndarray, target: str, wanted: float
) -> float | None:
    """The threshold that reaches a target and costs the other measure least; None: none does.

    For a precision the lowest that reaches it, with `LEAST_KEPT` pairs above it; for a recall the
    highest.
    """
    order = np.argsort(-predicted, kind="stable")
    values, hits = predicted[order], np.cumsum(relevant[order])
    # A threshold keeps all pairs of equal probability: the last of each is where it may stand.
    last = np.flatnonzero(np.append(values[1:] != values[:-1], True))
    # What keeps everything, or anything whatever it is, is no threshold.
    last = last[values[last] > 0]
    kept = last + 1
    if target == "precision":
        reached = last[(hits[last] / kept >= wanted) & (kept >= LEAST_KEPT)]
        return float(values[reached[-1]]) if len(reached) else None
    reached = last[hits[last] / max(1, relevant.sum()) >= wanted]
    return float(values[reached[0]]) if len(reached) else None


def _proposal(
    predicted: np.ndarray, relevant: np.ndarray, folds: np.ndarray, target: str, wanted: float
) -> Proposal:
    if target not in ("precision", "recall"):
        raise InputError(f"target={target!r}; allowed are 'precision' and 'recall'")
    if not 0 < wanted <= 1:
        raise InputError(f"a target {target} of {wanted}; it must be above 0 and up to 1")
    found = choose_threshold(predicted, relevant, target, wanted)
    if found is None:
        return Proposal(target=target, wanted=wanted)
    kept = np.zeros(len(predicted), dtype=bool)
    for fold in sorted(set(folds.tolist())):
        own = folds == fold
        other = choose_threshold(predicted[~own], relevant[~own], target, wanted)
        kept[own] = other is not None and predicted[own] >= other
    hits = int((kept & relevant).sum())
    return Proposal(
        target=target,
        wanted=wanted,
        score_threshold=found,
        precision=None if not kept.any() else round(hits / int(kept.sum()), 4),
        recall=round(hits / max(1, int(relevant.sum())), 4),
    )
