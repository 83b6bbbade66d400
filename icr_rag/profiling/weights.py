"""Learned signed weights over (layer, head, reading).

A linear model of the readings, standardised per query as `icr_rag.scoring.head_scores` does, is
fitted to graded labels by a listwise softmax loss (ListNet's top-one form, Cao et al., ICML 2007)
with an L2 penalty. The loss is convex; about fifty labelled queries and seconds of CPU suffice.
Weights are signed: a head that attends to what is *not* relevant counts against it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from icr_rag.errors import InputError
from icr_rag.model.reading import READINGS
from icr_rag.profiles import HeadWeight
from icr_rag.profiling.samples import Sample
from icr_rag.scoring.head_scores import standardise


def learn_weights(
    samples: Sequence[Sample],
    *,
    readings: Sequence[str] = ("log_mass",),
    l2: float = 10.0,
    size: int | None = None,
    depth_penalty: float = 0.0,
    max_layer: int | None = None,
) -> tuple[HeadWeight, ...]:
    """Fit weights to labelled queries.

    Args:
        samples: queries without a relevant candidate teach nothing and are left out.
        readings: which of `icr_rag.model.reading.READINGS` may be used.
        l2: strength of the penalty on squared weights, added to the loss summed over queries.
        size: keep only so many readings: the smallest weights are dropped in halves, and the
            rest fitted again. None: all.
        depth_penalty: makes the penalty grow with depth, by ``1 + depth_penalty * layer / last``,
            so that of two equally good heads the one that exits earlier is taken.
        max_layer: use no layer above it.

    Returns:
        What is left, largest weight first.

    Raises:
        InputError: if no sample has a relevant candidate, or a reading is unknown.
    """
    unknown = [name for name in readings if name not in READINGS]
    if unknown or not readings:
        raise InputError(f"readings={list(readings)}; allowed are {', '.join(READINGS)}")
    useful = [sample for sample in samples if sample.grades.max(initial=0) > 0]
    if not useful:
        raise InputError(
            f"none of {len(samples)} queries has a relevant document among its candidates, so "
            "that nothing can be learned; give deeper candidates or other queries"
        )
    columns = [READINGS.index(name) for name in readings]
    layers, head_count = useful[0].readings.shape[1:3]
    layers = layers if max_layer is None else min(layers, max_layer + 1)
    names = [
        (layer, head, name)
        for layer in range(layers)
        for head in range(head_count)
        for name in readings
    ]
    features = []
    for sample in useful:
        chosen = torch.from_numpy(np.ascontiguousarray(sample.readings[:, :layers][..., columns]))
        features.append(standardise(chosen.double().flatten(1)))
    targets = [torch.from_numpy(sample.grades.astype(np.float64)) for sample in useful]
    targets = [target / target.sum() for target in targets]
    penalty = l2 * torch.tensor(
        [1.0 + depth_penalty * layer / max(1, layers - 1) for layer, _, _ in names]
    )

    kept = torch.arange(len(names))
    while True:
        part = [values[:, kept] for values in features]
        weights = _fit(part, targets, penalty[kept])
        if size is None or len(kept) <= size:
            break
        fewer = max(size, len(kept) // 2)
        kept = kept[weights.abs().argsort(descending=True, stable=True)[:fewer]]
    order = weights.abs().argsort(descending=True, stable=True).tolist()
    return tuple(
        HeadWeight(
            layer=names[kept[i]][0],
            head=names[kept[i]][1],
            reading=names[kept[i]][2],
            weight=float(weights[i]),
        )
        for i in order
    )


def score(sample: Sample, heads: Sequence[HeadWeight]) -> np.ndarray:
    """Scores of a sample's documents by weighted readings, higher is better: float64 [document].

    The same as `icr_rag.scoring.head_scores.HeadScores` gives from the model.
    """
    columns = [
        sample.readings[:, item.layer, item.head, READINGS.index(item.reading)] for item in heads
    ]
    values = standardise(torch.from_numpy(np.stack(columns, axis=1)).double())
    result: np.ndarray = (values @ torch.tensor([item.weight for item in heads]).double()).numpy()
    return result


def _fit(
    features: Sequence[torch.Tensor], targets: Sequence[torch.Tensor], penalty: torch.Tensor
) -> torch.Tensor:
    """Weights [feature]."""
    weights = torch.zeros(len(penalty), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=200, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (penalty * weights.square()).sum()
        for values, target in zip(features, targets, strict=True):
            loss = loss - (target * (values @ weights).log_softmax(dim=0)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weights.detach()
