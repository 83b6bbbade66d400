"""Learned signed weights over (layer, head, reading).

A linear model of the readings, standardised per query as `icr_rag.scoring.head_scores` does, is
fitted to what a teacher makes of the candidates (`icr_rag.profiling.teachers`) by a listwise
softmax loss (ListNet's top-one form, Cao et al., ICML 2007) with an L2 penalty. The loss is convex;
about fifty queries and seconds of CPU suffice. Weights are signed: a head that attends to what is
*not* relevant counts against it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from icr_rag.errors import InputError
from icr_rag.model.reading import READINGS
from icr_rag.profiles import HeadWeight
from icr_rag.profiling.samples import Sample
from icr_rag.profiling.teachers import Teacher, by_labels
from icr_rag.scoring.head_scores import standardise


def learn_weights(
    samples: Sequence[Sample],
    *,
    readings: Sequence[str] = ("log_mass",),
    l2: float = 10.0,
    size: int | None = None,
    depth_penalty: float = 0.0,
    max_layer: int | None = None,
    teacher: Teacher = by_labels,
    balanced: bool = True,
) -> tuple[HeadWeight, ...]:
    """Fit weights to what is known of queries.

    Args:
        samples: queries that the teacher knows nothing of are left out.
        readings: which of `icr_rag.model.reading.READINGS` may be used.
        l2: strength of the penalty on squared weights, added to the loss summed over queries.
        size: keep only so many readings: the smallest weights are dropped in halves, and the
            rest fitted again. None: all.
        depth_penalty: makes the penalty grow with depth, by ``1 + depth_penalty * layer / last``,
            so that of two equally good heads the one that exits earlier is taken.
        max_layer: use no layer above it.
        teacher: how each query's candidates share its relevance.
        balanced: of several groups all count the same, however many queries each has; False: all
            queries do.

    Returns:
        What is left, largest weight first.

    Raises:
        InputError: if the teacher knows no query, or a reading is unknown.
    """
    unknown = [name for name in readings if name not in READINGS]
    if unknown or not readings:
        raise InputError(f"readings={list(readings)}; allowed are {', '.join(READINGS)}")
    taught = [(sample, shares) for sample in samples if (shares := teacher(sample)) is not None]
    if not taught:
        raise InputError(
            f"none of {len(samples)} queries has a relevant document among its candidates, or "
            "scores to learn from, so that nothing can be learned; give deeper candidates, other "
            "queries or another teacher"
        )
    useful = [sample for sample, _ in taught]
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
    share = query_weights(useful) if balanced else np.ones(len(useful))
    targets = [
        torch.from_numpy(shares.astype(np.float64) * own)
        for (_, shares), own in zip(taught, share, strict=True)
    ]
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


def query_weights(samples: Sequence[Sample]) -> np.ndarray:
    """[query]: the same for each group in all; they add up to the number of queries, so that a
    penalty means the same."""
    sizes = Counter(sample.group for sample in samples)
    return np.array([len(samples) / (len(sizes) * sizes[sample.group]) for sample in samples])


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
    """Weights [feature]; a query counts by the sum of its targets."""
    weights = torch.zeros(len(penalty), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=200, history_size=20, line_search_fn="strong_wolfe"
    )
    # All queries at once, which takes a third of the time of one by one.
    values, target = (pad_sequence(list(rows), batch_first=True) for rows in (features, targets))
    beyond = ~pad_sequence([torch.ones_like(rows, dtype=torch.bool) for rows in targets], True)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        logits = (values @ weights).masked_fill(beyond, -torch.inf)
        shares = logits.log_softmax(dim=1).masked_fill(beyond, 0.0)
        loss = (penalty * weights.square()).sum() - (target * shares).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weights.detach()
