"""Quality over seconds: the ways of scoring with the profiles that ship, cold and warm.

    python benchmarks/frontier.py DATA TEXTS --out results --queries 2

The first measured queries of each family (`benchmarks/teaching_data.py`), candidates shuffled,
nothing of the first stage in the scores. Cold: what is kept of documents, which systems that read
the same way share, was thrown away just before; warm: the same call again. nDCG@10 is the mean over
families; what nothing else beats in both quality and seconds is marked, among cold calls and among
warm ones. The systems are asked in turn for each query, so that a busy machine disturbs all alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from teaching_data import PARTS, domains, graded, name_of

from icr_rag import Reranker
from icr_rag.evaluation.environment import hardware, versions
from icr_rag.profiling.curve import measure_ranking
from icr_rag.profiling.resume import read_order
from icr_rag.scoring.base import KeepsStates

KEPT = {"document_states": "independent"}
SYSTEMS: dict[str, dict[str, Any]] = {
    "auto": {},
    "query likelihood": {"scoring": "likelihood", **KEPT},
    "mixed": {"scoring": "mixed", **KEPT},
    "yes/no": {"scoring": "likelihood", "likelihood": "yes_no"},
    "attention, one by one": {"scoring": "attention", "framework": "pointwise", **KEPT},
    "attention, shared tail": {"scoring": "attention", "framework": "listwise", **KEPT},
    "attention, blind tail": {"scoring": "attention", "framework": "listwise",
                              "document_states": "blind"},
    "ICR, all layers, joint": {"scoring": "attention", "framework": "listwise", "layers": "all",
                               "heads": "all", "window": None},
    "ICR, window of layers, joint": {"scoring": "attention", "framework": "listwise",
                                     "layers": (17, 20), "window": None},
}  # fmt: skip


def on_frontier(points: Mapping[str, tuple[float, float]]) -> set[str]:
    """Names of what nothing beats: (quality, seconds) -> higher and lower is better."""
    return {
        name
        for name, (quality, seconds) in points.items()
        if not any(
            q >= quality and s <= seconds and (q, s) != (quality, seconds)
            for q, s in points.values()
        )
    }


def forget(system: Reranker) -> None:
    """Throw away what is kept of documents."""
    scorer = system.scorer
    if isinstance(scorer, KeepsStates) and scorer.states is not None:
        scorer.states.store.clear()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=5, help="of each family")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--max-document-tokens", type=int, default=128)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    arguments.out.mkdir(parents=True, exist_ok=True)
    common = {"dtype": arguments.dtype, "max_document_tokens": arguments.max_document_tokens,
              "fusion": "none"}  # fmt: skip
    systems = {name: Reranker(**common, **own) for name, own in SYSTEMS.items()}
    for system in systems.values():
        system.warm_up()
    quality: dict[str, dict[str, list[float]]] = {name: {} for name in systems}
    cold: dict[str, list[float]] = {name: [] for name in systems}
    warm: dict[str, list[float]] = {name: [] for name in systems}
    measured = {name_of(part): part.family for part in PARTS if part.measured}
    for task in domains(arguments.data, arguments.texts, arguments.queries, 20):
        for query in task.queries[: arguments.queries] if task.name in measured else ():
            names = read_order(task, query)
            documents = [task.dataset.documents[name] for name in names]
            grades, ideal = graded(task, query, names)
            for name, system in systems.items():
                forget(system)
                started = time.perf_counter()
                ranking = system.rank(task.dataset.queries[query], documents)
                again = time.perf_counter()
                system.rank(task.dataset.queries[query], documents)
                warm[name].append(time.perf_counter() - again)
                cold[name].append(again - started)
                scores = np.array(ranking.scores)
                value = measure_ranking(scores[:, None], grades, ideal, "nDCG@10")[0]
                quality[name].setdefault(measured[task.name], []).append(float(value))
        print(task.name, flush=True)
    means = {
        name: float(np.mean([np.mean(own) for own in found.values()]))
        for name, found in quality.items()
    }
    points = {
        when: {name: (means[name], statistics.median(own[name])) for name in systems}
        for when, own in (("cold", cold), ("warm", warm))
    }
    best = {when: on_frontier(own) for when, own in points.items()}
    lines = ["| way of scoring | nDCG@10 | cold, s | warm, s |", "|---|---|---|---|"]
    for name in sorted(systems, key=lambda own: -means[own]):
        cells = [
            f"{points[when][name][1]:.2f}{' ◆' if name in best[when] else ''}" for when in points
        ]
        lines.append(f"| {name} | {means[name]:.3f} | {' | '.join(cells)} |")
    (arguments.out / "frontier.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    told = {"hardware": hardware(), "versions": versions(), "quality": quality, "cold": cold,
            "warm": warm, "auto": systems["auto"].scorer.reason}  # fmt: skip
    text = json.dumps(told, indent=1) + "\n"
    (arguments.out / "frontier.json").write_text(text, encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
