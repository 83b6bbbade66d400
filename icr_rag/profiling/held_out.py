"""How the ways of scoring fare on queries that taught nothing, and how many queries it takes.

Where there are three groups of queries or more, each is left out whole, for queries of the same
kind flatter heads; of fewer groups, fifths of the queries are.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from icr_rag.errors import InputError
from icr_rag.profiles import HeldOut
from icr_rag.profiling.crossval import (
    Selector,
    evaluate_heads,
    fold_parts,
    known_mean,
    measure_scores,
    mixed_values,
)
from icr_rag.profiling.samples import Sample

#: Groups from which on they are left out whole.
_LEAST_GROUPS = 3
#: Queries at the beginning of the curve; it doubles them.
_FIRST_SIZE = 10


def held_out(
    samples: Sequence[Sample], parts: Sequence[str], scores: Sequence[np.ndarray]
) -> HeldOut | None:
    """nDCG@10 of attention, mixed and likelihood, without the first stage's evidence.

    Mixed has the weight of likelihood that is best on the other parts, as if it were a part of
    what is taught.

    Args:
        samples: those are measured that have a relevant document and, where any has one, a
            likelihood.
        parts: [query], as `parts_of` gives them.
        scores: per query, attention scores [document] by heads that were chosen without its part,
            as `icr_rag.profiling.crossval.scores_without` gives them.

    Returns:
        None if nothing is known to be relevant.
    """
    with_likelihood = any(sample.likelihood is not None for sample in samples)
    places = [
        place
        for place, sample in enumerate(samples)
        if sample.known and (sample.likelihood is not None or not with_likelihood)
    ]
    if not places:
        return None
    measured = [samples[place] for place in places]
    attention = [scores[place] for place in places]
    figures = {"attention": _mean(measure_scores(measured, attention))}
    if with_likelihood:
        own = [s.likelihood for s in measured if s.likelihood is not None]
        figures["likelihood"] = _mean(measure_scores(measured, own))
        figures["mixed"] = _mean(cross_fitted(measured, attention, [parts[p] for p in places]))
    return HeldOut(
        measure="nDCG@10",
        **figures,
        queries=len(measured),
        groups=len(set(parts)) if _by_group(samples) else 0,
    )


def parts_of(samples: Sequence[Sample]) -> list[str]:
    """[query]: what it is left out together with: its group, or a fold."""
    if _by_group(samples):
        return [sample.group for sample in samples]
    return [str(fold) for fold in fold_parts(samples)]


def queries_curve(samples: Sequence[Sample], select: Selector) -> dict[str, float]:
    """Held-out nDCG@10 of attention by the number of queries that heads are chosen on.

    Each size holds the smaller ones, and as many queries of each group as there are.

    Args:
        samples: as for `held_out`.
        select: chooses heads.

    Returns:
        "10", "20", "40" and so on -> the mean over all queries that have a relevant document;
        empty where there are none, or too few for a curve. A size of which some part teaches
        nothing is left out.
    """
    if not any(sample.known for sample in samples):
        return {}
    parts = parts_of(samples)
    order = _spread(samples)
    fewest = min(len(samples) - count for count in Counter(parts).values())
    curve: dict[str, float] = {}
    size = _FIRST_SIZE
    while size <= fewest:
        values = np.zeros(len(samples))
        for part in sorted(set(parts)):
            rest = [samples[place] for place in order if parts[place] != part]
            held = [place for place, own in enumerate(parts) if own == part]
            try:
                chosen = select(rest[:size])
            except InputError:
                break
            values[held] = evaluate_heads([samples[place] for place in held], chosen)
        else:
            curve[str(size)] = round(known_mean(samples, values), 4)
        size *= 2
    return curve


def _by_group(samples: Sequence[Sample]) -> bool:
    return len({sample.group for sample in samples}) >= _LEAST_GROUPS


def _spread(samples: Sequence[Sample]) -> list[int]:
    """Places of all queries, groups in turn, within one by a hash."""
    groups: dict[str, list[tuple[bytes, int]]] = {}
    for place, sample in enumerate(samples):
        key = hashlib.sha256(sample.query_id.encode()).digest()
        groups.setdefault(sample.group, []).append((key, place))
    rows = [enumerate(sorted(own)) for own in groups.values()]
    return [place for _, place in sorted((turn, place) for row in rows for turn, (_, place) in row)]


def cross_fitted(
    samples: Sequence[Sample], attention: Sequence[np.ndarray], parts: Sequence[str]
) -> np.ndarray:
    """[query]: nDCG@10 of mixed, its weight chosen on the other parts."""
    values = mixed_values(samples, attention)
    result = np.zeros(len(samples))
    for part in set(parts):
        held = np.array([own == part for own in parts])
        best = values[~held].sum(axis=0).argmax() if not held.all() else 0
        result[held] = values[held, best]
    return result


def _mean(values: np.ndarray) -> float:
    return round(float(values.mean()), 4)
