"""Weights of heads that depend on the query, against one weight per head for all queries.

    python benchmarks/beyond_static.py readings --out results

On what `benchmarks/teaching_data.py` collected, taught by likelihood and labels half and half, each
family of domains left out in turn (nDCG@10, attention alone; see `benchmarks/teaching.py`):

- routed: queries are clustered by their mean readings, and each cluster has weights of its own, to
  which the other clusters' queries count a third (in the spirit of RouteHead, arXiv 2604.24608);
- sure heads: each head has a second weight, for its reading times how sure it is of this query:
  how little entropy its softmax over the candidates has;
- entropy: weights are a softmax over heads, each once for and once against relevance, and their
  entropy is a penalty, so that few heads are chosen (in the spirit of HeadRank, arXiv 2604.17237).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from teaching import FAMILIES, L2, Collected, Row, load, table, taught, values

from icr_rag.evaluation.environment import hardware, versions
from icr_rag.model.reading import READINGS
from icr_rag.profiling.crossval import measure_scores
from icr_rag.profiling.samples import Sample, standardise
from icr_rag.profiling.teachers import average
from icr_rag.profiling.weights import query_weights

BLEND = average(["blend"])
COLUMN = READINGS.index("log_mass")
#: What a query of another cluster counts.
SHARED = 1 / 3


def features(sample: Sample) -> np.ndarray:
    """[document, head of any layer], standardised."""
    return standardise(sample.readings[..., COLUMN].reshape(len(sample.grades), -1))


def with_sureness(sample: Sample) -> np.ndarray:
    """[document, twice the heads]: the second half times how sure each head is, z over heads."""
    own = features(sample)
    exponent = np.exp(own - own.max(axis=0))
    shares = exponent / exponent.sum(axis=0)
    entropy = -(shares * np.log(shares + 1e-12)).sum(axis=0)
    return np.concatenate((own, own * standardise(-entropy)), axis=1)


def fit(
    rows: Sequence[np.ndarray], samples: Sequence[Sample], weights: np.ndarray, l2: float
) -> np.ndarray:
    """Weights [feature] by the loss of `icr_rag.profiling.weights`, queries weighted."""
    found = [
        (torch.from_numpy(own), torch.from_numpy(target * weight))
        for own, sample, weight in zip(rows, samples, weights, strict=True)
        if (target := BLEND(sample)) is not None
    ]
    w = torch.zeros(found[0][0].shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=200, history_size=20,
                                  line_search_fn="strong_wolfe")  # fmt: skip

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = l2 * w.square().sum()
        for own, target in found:
            loss = loss - (target * (own @ w).log_softmax(dim=0)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return w.detach().numpy()


def routed(data: Collected, clusters: int, l2: float) -> Row:
    """Weights by the cluster of a query."""
    row: Row = {}
    for family in FAMILIES:
        teaching = data.without(family)
        places = np.stack([s.readings[..., COLUMN].mean(axis=0).ravel() for s in teaching])
        centre, scale = places.mean(axis=0), places.std(axis=0) + 1e-9
        _, _, axes = np.linalg.svd((places - centre) / scale, full_matrices=False)
        axes = axes[:8]
        points = ((places - centre) / scale) @ axes.T
        means = k_means(points, clusters)
        member = nearest(points, means)
        rows, share = [features(s) for s in teaching], query_weights(teaching)
        weights = [
            fit(rows, teaching, share * np.where(member == one, 1.0, SHARED), l2)
            for one in range(clusters)
        ]
        scores = []
        for sample in data.measured[family]:
            place = (sample.readings[..., COLUMN].mean(axis=0).ravel() - centre) / scale
            own = int(nearest((place @ axes.T)[None], means)[0])
            scores.append(features(sample) @ weights[own])
        row[family] = measure_scores(data.measured[family], scores)
    return row


def k_means(points: np.ndarray, count: int) -> np.ndarray:
    """Centres [count, axis] by Lloyd's iterations from points drawn with a seed."""
    draw = np.random.default_rng(0)
    means = points[draw.choice(len(points), count, replace=False)]
    for _ in range(50):
        member = nearest(points, means)
        means = np.stack(
            [points[member == i].mean(axis=0) if (member == i).any() else means[i]
             for i in range(count)]
        )  # fmt: skip
    return means


def nearest(points: np.ndarray, means: np.ndarray) -> np.ndarray:
    found: np.ndarray = ((points[:, None] - means[None]) ** 2).sum(axis=2).argmin(axis=1)
    return found


def sure(data: Collected, l2: float) -> Row:
    row: Row = {}
    for family in FAMILIES:
        teaching = data.without(family)
        rows = [with_sureness(s) for s in teaching]
        weights = fit(rows, teaching, query_weights(teaching), l2)
        scores = [with_sureness(s) @ weights for s in data.measured[family]]
        row[family] = measure_scores(data.measured[family], scores)
    return row


def entropic(data: Collected, penalty: float) -> Row:
    row: Row = {}
    for family in FAMILIES:
        teaching = [s for s in data.without(family) if BLEND(s) is not None]
        share = query_weights(teaching)
        found = [
            (torch.from_numpy(features(s)), torch.from_numpy(np.asarray(BLEND(s)) * own))
            for s, own in zip(teaching, share, strict=True)
        ]
        count = found[0][0].shape[1]
        start = torch.zeros(2 * count + 1, dtype=torch.float64)
        start[-1] = 1.0
        point = start.requires_grad_()
        optimizer = torch.optim.Adam([point], lr=0.05)

        def weights(values: torch.Tensor, count: int = count) -> tuple[torch.Tensor, torch.Tensor]:
            shares = values[:-1].softmax(dim=0)
            return values[-1].exp() * (shares[:count] - shares[count:]), shares

        for _ in range(300):
            optimizer.zero_grad()
            own, shares = weights(point)
            loss = penalty * len(found) * -(shares * (shares + 1e-12).log()).sum()
            for each, target in found:
                loss = loss - (target * (each @ own).log_softmax(dim=0)).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        final = weights(point.detach())[0].numpy()
        scores = [features(s) @ final for s in data.measured[family]]
        row[family] = measure_scores(data.measured[family], scores)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("readings", type=Path, help="what benchmarks/teaching_data.py wrote")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    data = load(arguments.readings, "mixed", {})
    if data is None:
        raise SystemExit(f"{arguments.readings} has no mixed readings")
    static = f"one weight per head, l2 {L2:g}"
    rows: dict[str, Row] = {
        static: data.row(data.chosen(taught(BLEND))),
        "all heads alike": data.scored(lambda s: features(s).sum(axis=1)),
    }
    for count in (2, 3, 4):
        rows[f"routed, {count} clusters, l2 {BLEND.l2:g}"] = routed(data, count, BLEND.l2)
    for l2 in (BLEND.l2, 2 * BLEND.l2):
        rows[f"sure heads, l2 {l2:g}"] = sure(data, l2)
    for penalty in (0.01, 0.05, 0.2):
        rows[f"entropy, {penalty:g}"] = entropic(data, penalty)
    lines = table(rows, static)
    told = {"hardware": hardware(), "versions": versions(),
            "rows": {label: values(row) for label, row in rows.items()}}  # fmt: skip
    (arguments.out / "beyond_static.json").write_text(json.dumps(told, indent=1) + "\n")
    (arguments.out / "beyond_static.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
