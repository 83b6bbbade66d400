"""How heads are best chosen: methods, sizes, readings, labels or none. No model is run.

    python benchmarks/head_selection.py results/embedded/readings.npz --out results/heads \
        --plot docs/images/layer-study

The readings are those of `make_profile.py` or of `icr-rag profile` (its FILE.samples.npz). Figures
on labelled queries are cross-validated: every query is ranked by heads chosen without its fold;
label-free choices never see a labelled query.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from icr_rag.profiling.crossval import agreement, cross_validate, evaluate_heads
from icr_rag.profiling.curve import head_values, layer_curve
from icr_rag.profiling.plot import plot_profile
from icr_rag.profiling.samples import Sample, load_samples
from icr_rag.profiling.study import Choice

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("readings", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder")
    parser.add_argument("--plot", type=Path, help="path of the pictures, without suffix")
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
    report = {
        "queries": {name: len(group) for name, group in groups.items()},
        "methods": table,
        "agreement": {
            name: {key: round(value, 3) for key, value in agreement(group, labelled).items()}
            for name, group in [*groups.items(), ("all label-free", free)]
            if name != "labelled"
        },
        "curve": curve.to_dict(),
    }
    (arguments.out / "head_selection.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({key: report[key] for key in ("agreement", "curve")}, indent=1))
    if arguments.plot:
        chosen = CHOICES["learned, 64 weights, layers to 21"].select(samples)
        paths = [arguments.plot.with_suffix(suffix) for suffix in (".png", ".svg")]
        values = head_values(labelled, "log_mass").mean(axis=0)
        plot_profile(paths, curve, values, chosen, "SmolLM2-135M, pointwise, scifact (even ids)")


if __name__ == "__main__":
    main()
