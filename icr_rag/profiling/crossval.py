"""Honest figures: chosen on some queries, measured on others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from icr_rag.errors import InputError
from icr_rag.profiles import HeadWeight
from icr_rag.profiling.curve import head_values, measure_ranking
from icr_rag.profiling.samples import Sample, fold_of, standardise
from icr_rag.profiling.weights import score

#: Chooses weighted readings on samples.
Selector = Callable[[Sequence[Sample]], Sequence[HeadWeight]]

#: What queries are left out by: a fold's number or a group's name.
Part = TypeVar("Part", int, str)

#: Weights of the standardised likelihood beside the standardised attention: as much, five thirds
#: (attention counts .6), and more.
LIKELIHOOD_WEIGHTS = (1.0, 1.67, 2.5, 4.0)
#: What did well on most sets.
USUAL_WEIGHT = 1.67


def evaluate_heads(
    samples: Sequence[Sample], heads: Sequence[HeadWeight], measure: str = "nDCG@10"
) -> np.ndarray:
    """[query]: the measure of each sample ranked by weighted readings."""
    return measure_scores(samples, [score(sample, heads) for sample in samples], measure)


def cross_validate(
    samples: Sequence[Sample], select: Selector, folds: int = 5, measure: str = "nDCG@10"
) -> np.ndarray:
    """[query]: each query ranked by what was chosen without its fold.

    Folds are told by a hash of the query's id, so that they are the same on every run.

    Raises:
        InputError: if there are fewer than two folds with queries.
    """
    scores = scores_without(samples, select, fold_parts(samples, folds))
    return measure_scores(samples, scores, measure)


def fold_parts(samples: Sequence[Sample], folds: int = 5) -> list[int]:
    """[query]: its fold."""
    return [fold_of(sample.query_id, folds) for sample in samples]


def scores_without(
    samples: Sequence[Sample], select: Selector, parts: Sequence[Part]
) -> list[np.ndarray]:
    """Per query, scores of its documents by what was chosen without its part.

    Args:
        samples: what is scored, and the others of which is chosen on.
        select: chooses heads.
        parts: [query], what it is left out together with.

    Raises:
        InputError: if there are fewer than two parts.
    """
    names = sorted(set(parts))
    if len(names) < 2:
        raise InputError(f"{len(samples)} queries are too few to cross-validate on")
    chosen = {
        name: select([s for s, part in zip(samples, parts, strict=True) if part != name])
        for name in names
    }
    return [score(s, chosen[part]) for s, part in zip(samples, parts, strict=True)]


def measure_scores(
    samples: Sequence[Sample], scores: Sequence[np.ndarray], measure: str = "nDCG@10"
) -> np.ndarray:
    """[query]: the measure of each sample ranked by scores [document]."""
    return np.array(
        [
            float(measure_ranking(own[:, None], s.grades, s.ideal, measure)[0])
            for s, own in zip(samples, scores, strict=True)
        ]
    )


def likelihood_weight(
    samples: Sequence[Sample],
    select: Selector,
    choices: Sequence[float] = LIKELIHOOD_WEIGHTS,
    folds: int = 5,
) -> float:
    """The weight of query likelihood beside attention in mixed scoring.

    Heads look better on the queries that they were chosen on than they are, which would take
    weight from likelihood: each query is ranked by heads that were chosen without its fold.

    Args:
        samples: heads are chosen on all, the weight on those that have a likelihood.
        select: chooses heads.
        choices: weights to choose from.

    Raises:
        InputError: if no sample has a likelihood, or the samples are too few.
    """
    scores = scores_without(samples, select, fold_parts(samples, folds))
    return best_weight(samples, scores, choices)


def best_weight(
    samples: Sequence[Sample],
    attention: Sequence[np.ndarray],
    choices: Sequence[float] = LIKELIHOOD_WEIGHTS,
) -> float:
    """The weight of likelihood with the highest nDCG@10; of equal ones the first.

    Args:
        samples, attention: as for `mixed_values`; scores by heads that saw none of their queries.

    Raises:
        InputError: if no sample has a likelihood.
    """
    if all(sample.likelihood is None for sample in samples):
        raise InputError(
            f"none of {len(samples)} queries has a likelihood; collect with scoring='mixed'"
        )
    return choices[int(mixed_values(samples, attention, choices).sum(axis=0).argmax())]


def mixed_values(
    samples: Sequence[Sample],
    attention: Sequence[np.ndarray],
    weights: Sequence[float] = LIKELIHOOD_WEIGHTS,
) -> np.ndarray:
    """[query, weight]: nDCG@10 of mixed scoring with each weight of likelihood.

    Args:
        samples: those without a likelihood have 0 for all weights.
        attention: per query, attention scores [document].
    """
    rows = []
    for sample, scores in zip(samples, attention, strict=True):
        if sample.likelihood is None:
            rows.append(np.zeros(len(weights)))
            continue
        own = standardise(sample.likelihood)[:, None] * np.array(weights)
        mixed = own + standardise(scores)[:, None]
        rows.append(measure_ranking(mixed, sample.grades, sample.ideal, "nDCG@10"))
    return np.stack(rows)


def transfer(
    groups: Mapping[str, Sequence[Sample]], select: Selector, measure: str = "nDCG@10"
) -> dict[str, dict[str, float]]:
    """Chosen on one group, measured on another: outer key chosen on, inner measured on.

    The row "all others" is chosen on all groups but the one that is measured. A group's own value
    is cross-validated. Groups of which nothing is known to be relevant are measured by none.
    """
    known = {name: own for name, own in groups.items() if any(s.known for s in own)}
    result: dict[str, dict[str, float]] = {}
    for name, samples in groups.items():
        chosen = select(samples)
        result[name] = {
            other: known_mean(
                theirs,
                cross_validate(samples, select, measure=measure)
                if other == name
                else evaluate_heads(theirs, chosen, measure),
            )
            for other, theirs in known.items()
        }
    if len(groups) > 2:
        result["all others"] = {
            name: known_mean(
                theirs,
                evaluate_heads(
                    theirs,
                    select([s for other, own in groups.items() if other != name for s in own]),
                    measure,
                ),
            )
            for name, theirs in known.items()
        }
    return result


def known_mean(samples: Sequence[Sample], values: np.ndarray) -> float:
    """The mean of values [query, ...] over the queries that have a relevant document."""
    return float(values[[sample.known for sample in samples]].mean())


def agreement(
    label_free: Sequence[Sample], labelled: Sequence[Sample], reading: str = "log_mass"
) -> dict[str, float]:
    """How well choices without labels agree with labelled ones.

    Returns:
        "layers", "heads": Spearman's rank correlation of nDCG@10 per layer and per head;
        "best_layer_loss": nDCG@10 on the labelled queries lost by taking the layer that is best
        without labels; "top_16_heads": share of the 16 best heads in common.
    """
    own, true = head_values(label_free, reading), head_values(labelled, reading)
    own_heads, true_heads = own.mean(axis=0), true.mean(axis=0)
    own_layers, true_layers = own_heads.mean(axis=1), true_heads.mean(axis=1)
    top = [set(np.argsort(-values, axis=None)[:16].tolist()) for values in (own_heads, true_heads)]
    return {
        "layers": _spearman(own_layers, true_layers),
        "heads": _spearman(own_heads.ravel(), true_heads.ravel()),
        "best_layer_loss": float(true_layers.max() - true_layers[int(own_layers.argmax())]),
        "top_16_heads": len(top[0] & top[1]) / 16,
    }


def _spearman(first: np.ndarray, second: np.ndarray) -> float:
    ranks = [_mean_ranks(values) for values in (first, second)]
    if ranks[0].std() == 0 or ranks[1].std() == 0:
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    result: np.ndarray = (ends - (counts + 1) / 2)[inverse]
    return result
