"""Learned signed weights over (layer, head, reading).

A linear model of the readings, standardised per query as `icr_rag.scoring.head_scores` does, is
fitted to graded labels by a listwise softmax loss (ListNet's top-one form, Cao et al., ICML 2007)
with an L2 penalty. The loss is convex; about fifty labelled queries and seconds of CPU suffice.
Weights are signed: a head that attends to what is *not* relevant counts against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from icr_rag.profiling.samples import Sample

from icr_rag.errors import InputError
from icr_rag.model.reading import READINGS
from icr_rag.profiles import HeadWeight
from icr_rag.scoring.head_scores import standardise


@dataclass(frozen=True)
class LearnedWeights:
    """The outcome.

    Attributes:
        heads: what is left, largest weight first.
        likelihood_weight: of the standardised query likelihood; 0.0 where it was not used.
        loss: mean cross-entropy per query on the samples, in nats.
    """

    heads: tuple[HeadWeight, ...]
    likelihood_weight: float
    loss: float


def learn_weights(
    samples: Sequence[Sample],
    *,
    readings: Sequence[str] = ("log_mass",),
    l2: float = 10.0,
    size: int | None = None,
    depth_penalty: float = 0.0,
    max_layer: int | None = None,
    with_likelihood: bool = False,
) -> LearnedWeights:
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
        with_likelihood: fit the weight of the query likelihood too; it is not penalised.

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
    likelihoods: list[torch.Tensor] | None = None
    if with_likelihood:
        likelihoods = [_likelihood(sample) for sample in useful]
    targets = [torch.from_numpy(sample.grades.astype(np.float64)) for sample in useful]
    targets = [target / target.sum() for target in targets]
    penalty = l2 * torch.tensor(
        [1.0 + depth_penalty * layer / max(1, layers - 1) for layer, _, _ in names]
    )

    kept = torch.arange(len(names))
    while True:
        part = [values[:, kept] for values in features]
        weights, own, loss = _fit(part, likelihoods, targets, penalty[kept])
        if size is None or len(kept) <= size:
            break
        fewer = max(size, len(kept) // 2)
        kept = kept[weights.abs().argsort(descending=True, stable=True)[:fewer]]
    order = weights.abs().argsort(descending=True, stable=True).tolist()
    heads = tuple(
        HeadWeight(
            layer=names[kept[i]][0],
            head=names[kept[i]][1],
            reading=names[kept[i]][2],
            weight=float(weights[i]),
        )
        for i in order
    )
    return LearnedWeights(heads, own, loss / len(useful))


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


def _likelihood(sample: Sample) -> torch.Tensor:
    if sample.likelihood is None:
        raise InputError(f"query {sample.query_id} has no likelihood; collect with scoring='mixed'")
    return standardise(torch.from_numpy(sample.likelihood.astype(np.float64))[:, None])[:, 0]


def _fit(
    features: Sequence[torch.Tensor],
    likelihoods: Sequence[torch.Tensor] | None,
    targets: Sequence[torch.Tensor],
    penalty: torch.Tensor,
) -> tuple[torch.Tensor, float, float]:
    """Weights [feature], the likelihood's weight, and the loss summed over queries."""
    weights = torch.zeros(len(penalty), dtype=torch.float64, requires_grad=True)
    own = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    variables = [weights] if likelihoods is None else [weights, own]
    optimizer = torch.optim.LBFGS(
        variables, max_iter=200, history_size=20, line_search_fn="strong_wolfe"
    )
    found: dict[str, float] = {}

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.zeros((), dtype=torch.float64)
        for number, (values, target) in enumerate(zip(features, targets, strict=True)):
            scores = values @ weights
            if likelihoods is not None:
                scores = scores + own * likelihoods[number]
            loss = loss - (target * scores.log_softmax(dim=0)).sum()
        found["loss"] = float(loss.detach())
        loss = loss + (penalty * weights.square()).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weights.detach(), float(own.detach()), found["loss"]
