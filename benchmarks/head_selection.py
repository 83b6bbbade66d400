"""How heads are best chosen: methods, sizes, readings, labels or none. No model is run.

    python benchmarks/head_selection.py results/embedded/readings.npz --out results/heads \
        --plot docs/images/layer-study --settings --scifact ../shared/data/scifact

The readings are those of `make_profile.py` or of `icr-rag profile` (its FILE.samples.npz). Figures
on labelled queries are cross-validated: every query is ranked by heads chosen without its fold;
label-free choices never see a labelled query. ``--settings`` compares sizes, penalties and depths
by leaving each kind of queries out in turn; ``--scifact`` weights of the given order.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from icr_rag.evaluation.grid_data import only_run
from icr_rag.evaluation.harness import Setting, given_order
from icr_rag.evaluation.runs import read_run
from icr_rag.profiling.crossval import agreement, cross_validate, evaluate_heads
from icr_rag.profiling.curve import head_values, layer_curve, measure_ranking
from icr_rag.profiling.plot import plot_profile
from icr_rag.profiling.samples import Sample, load_samples, standardise
from icr_rag.profiling.study import Choice
from icr_rag.profiling.weights import learn_weights, score

CHOICES = {
    "window of 4 layers": Choice("window", 4, "log_mass"),
    "CoRe, 8 heads": Choice("core", 8),
    "QRHead, 16 heads": Choice("qrhead", 16),
    "greedy nDCG, 8 heads": Choice("greedy", 8),
    "learned, 16 weights": Choice("learned", 16),
    "learned, 64 weights": Choice("learned", 64),
    "learned, all heads": Choice("learned", 10_000),
    "learned, 64 weights, layers to 21": Choice("learned", 64, max_layer=21),
    "learned, 64 weights, layers to 15": Choice("learned", 64, max_layer=15),
    "learned, 64 weights, depth penalty 4": Choice("learned", 64, depth_penalty=4.0),
    "learned, 64 weights, lift": Choice("learned", 64, "lift"),
    "learned, 64 weights, max": Choice("learned", 64, "max"),
}


def mean(values: Any) -> float:
    return round(float(values.mean()), 4)


def left_out(groups: dict[str, list[Sample]], **settings: Any) -> dict[str, float]:
    """nDCG@10 of each kind of queries by weights learned on the others, and the mean of these."""
    found = {}
    for name, test in groups.items():
        rest = [sample for other, own in groups.items() if other != name for sample in own]
        found[name] = mean(evaluate_heads(test, learn_weights(rest, **settings)))
    return {**found, "mean": round(sum(found.values()) / len(found), 4)}


def compare_settings(groups: dict[str, list[Sample]]) -> dict[str, dict[str, float]]:
    """`left_out` for sizes, penalties and depths around the shipped ones."""
    result = {}
    for size in (32, 64, 128, None):
        for l2 in (5.0, 10.0, 20.0, 40.0, 80.0):
            found = left_out(groups, size=size, l2=l2, max_layer=21)
            result[f"{size} weights, L2 {l2:g}, layers to 21"] = found
    for deepest in (13, 15, 17, 19, 21, 23, 29):
        found = left_out(groups, size=64, l2=20.0, max_layer=deepest)
        result[f"64 weights, L2 20, layers to {deepest}"] = found
    return result


def compare_priors(groups: dict[str, list[Sample]], folder: Path) -> dict[str, dict[str, float]]:
    """Weights of the given order beside scores that saw no labelled query."""
    run = read_run(only_run(folder))
    rest = [sample for name, own in groups.items() if name != "labelled" for sample in own]
    heads = learn_weights(rest, size=64, l2=20.0, max_layer=21)
    result = {}
    for weight in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0):
        totals = {"first stage's order": 0.0, "shuffled": 0.0}
        for sample in groups["labelled"]:
            first = run[sample.query_id][:20]
            # The order in which `make_profile.py` has documents read.
            names = given_order(run[sample.query_id], sample.query_id, Setting(20, 1))[:20]
            own = standardise(score(sample, heads))
            ranks = {
                "first stage's order": np.array([first.index(name) for name in names]),
                "shuffled": np.arange(len(names)),
            }
            for order, rank in ranks.items():
                mixed = own + weight * standardise(1 / (rank + 11.0))
                value = measure_ranking(mixed[:, None], sample.grades, sample.ideal, "nDCG@10")
                totals[order] += float(value[0]) / len(groups["labelled"])
        result[str(weight)] = {order: round(total, 4) for order, total in totals.items()}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("readings", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder")
    parser.add_argument("--plot", type=Path, help="path of the pictures, without suffix")
    parser.add_argument("--settings", action="store_true", help="minutes of CPU")
    parser.add_argument("--scifact", type=Path, help="BEIR folder with a run.*")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    samples = load_samples(arguments.readings)
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.group, []).append(sample)
    labelled = groups["labelled"]
    free = [sample for sample in samples if sample.group != "labelled"]

    table = {}
    for name, choice in CHOICES.items():
        heads = choice.select(labelled)
        table[name] = {
            "labelled, cross-validated": mean(cross_validate(labelled, choice.select)),
            "label-free only": mean(evaluate_heads(labelled, choice.select(free))),
            "last layer": max(item.layer for item in heads),
        }
        print(name, json.dumps(table[name]), flush=True)
    curve = layer_curve(labelled)
    report: dict[str, Any] = {
        "queries": {name: len(group) for name, group in groups.items()},
        "methods": table,
        "agreement": {
            name: {key: round(value, 3) for key, value in agreement(group, labelled).items()}
            for name, group in [*groups.items(), ("all label-free", free)]
            if name != "labelled"
        },
        "curve": curve.to_dict(),
    }
    if arguments.settings:
        report["left out in turn"] = compare_settings(groups)
    if arguments.scifact:
        report["weight of the given order"] = compare_priors(groups, arguments.scifact)
    (arguments.out / "head_selection.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({key: report[key] for key in ("agreement", "curve")}, indent=1))
    if arguments.plot:
        chosen = CHOICES["learned, 64 weights, layers to 21"].select(samples)
        paths = [arguments.plot.with_suffix(suffix) for suffix in (".png", ".svg")]
        values = head_values(labelled, "log_mass").mean(axis=0)
        plot_profile(paths, curve, values, chosen, "SmolLM2-135M, pointwise, scifact (even ids)")


if __name__ == "__main__":
    main()
