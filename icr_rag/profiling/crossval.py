"""Honest figures: chosen on some queries, measured on others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from icr_rag.errors import InputError
from icr_rag.profiles import HeadWeight
from icr_rag.profiling.curve import head_values, measure_ranking
from icr_rag.profiling.samples import Sample, fold_of, standardise
from icr_rag.profiling.weights import score

#: Chooses weighted readings on samples.
Selector = Callable[[Sequence[Sample]], Sequence[HeadWeight]]


def evaluate_heads(
    samples: Sequence[Sample], heads: Sequence[HeadWeight], measure: str = "nDCG@10"
) -> np.ndarray:
    """[query]: the measure of each sample ranked by weighted readings."""
    return np.array(
        [
            float(measure_ranking(score(s, heads)[:, None], s.grades, s.ideal, measure)[0])
            for s in samples
        ]
    )


def cross_validate(
    samples: Sequence[Sample], select: Selector, folds: int = 5, measure: str = "nDCG@10"
) -> np.ndarray:
    """[query]: each query ranked by what was chosen without its fold.

    Folds are told by a hash of the query's id, so that they are the same on every run.

    Raises:
        InputError: if there are fewer than two folds with queries.
    """
    values = np.zeros(len(samples))
    for held, chosen in _folds(samples, select, folds):
        values[held] = evaluate_heads([samples[place] for place in held], chosen, measure)
    return values


def likelihood_weight(
    samples: Sequence[Sample],
    select: Selector,
    choices: Sequence[float] = (1.0, 2.0, 4.0),
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
    if all(sample.likelihood is None for sample in samples):
        raise InputError(
            f"none of {len(samples)} queries has a likelihood; collect with scoring='mixed'"
        )
    totals = dict.fromkeys(choices, 0.0)
    for held, chosen in _folds(samples, select, folds):
        for sample in (samples[place] for place in held):
            if sample.likelihood is None:
                continue
            own, attention = standardise(sample.likelihood), standardise(score(sample, chosen))
            for choice in choices:
                mixed = (choice * own + attention)[:, None]
                totals[choice] += float(
                    measure_ranking(mixed, sample.grades, sample.ideal, "nDCG@10")[0]
                )
    return max(choices, key=lambda choice: totals[choice])


def _folds(
    samples: Sequence[Sample], select: Selector, folds: int
) -> Iterator[tuple[list[int], Sequence[HeadWeight]]]:
    """Places of the queries of a fold, and what was chosen without them."""
    numbers = [fold_of(sample.query_id, folds) for sample in samples]
    if len(set(numbers)) < 2:
        raise InputError(f"{len(samples)} queries are too few to cross-validate on")
    for fold in sorted(set(numbers)):
        held = [place for place, number in enumerate(numbers) if number == fold]
        rest = [s for s, number in zip(samples, numbers, strict=True) if number != fold]
        yield held, select(rest)


def transfer(
    groups: Mapping[str, Sequence[Sample]], select: Selector, measure: str = "nDCG@10"
) -> dict[str, dict[str, float]]:
    """Chosen on one group, measured on another: outer key chosen on, inner measured on.

    The row "all others" is chosen on all groups but the one that is measured. A group's own value
    is cross-validated.
    """
    result: dict[str, dict[str, float]] = {}
    for name, samples in groups.items():
        chosen = select(samples)
        result[name] = {
            other: float(
                cross_validate(samples, select, measure=measure).mean()
                if other == name
                else evaluate_heads(theirs, chosen, measure).mean()
            )
            for other, theirs in groups.items()
        }
    if len(groups) > 2:
        result["all others"] = {
            name: float(
                evaluate_heads(
                    theirs,
                    select([s for other, own in groups.items() if other != name for s in own]),
                    measure,
                ).mean()
            )
            for name, theirs in groups.items()
        }
    return result


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
