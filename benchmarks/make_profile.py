"""Teach the heads of the embedded model that ship in icr_rag/profiles.

    python benchmarks/teaching_texts.py --out texts
    python benchmarks/teaching_data.py ../shared/data texts --out readings
    python benchmarks/make_profile.py readings

One collection of readings teaches every way of reading: documents one by one, kept ones by a tail
that all share, and blind ones. Heads are taught by the model's own likelihood and by labels, half
and half, on all parts that may teach (`teaching_data.PARTS`). The held-out figures, by which
``scoring="auto"`` is decided, are of families with labels that may teach, each left out in turn.
Calibrations go with weights that change; `make_calibration.py` makes them again.
"""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path

import numpy as np
from teaching import (
    ATTENTION,
    FAMILIES,
    L2,
    MIXED,
    Collected,
    add_likelihoods,
    left_out,
    likelihood_of,
    load,
    taught,
)
from teaching_data import PARTS, READINGS

from icr_rag.evaluation.environment import versions
from icr_rag.frameworks.evidence import FIRST_STAGE_WEIGHT
from icr_rag.profiles import HeldOut, Profile, Shape, shipped
from icr_rag.profiling.crossval import best_weight, measure_scores
from icr_rag.profiling.curve import head_values, layer_curve
from icr_rag.profiling.held_out import cross_fitted
from icr_rag.profiling.plot import plot_profile
from icr_rag.profiling.samples import Sample
from icr_rag.profiling.teachers import average

BLEND = average(["blend"])

SHIPPED = Path(shipped.__file__).parent
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
SHAPE = Shape(model_type="llama", num_hidden_layers=30, hidden_size=576, num_attention_heads=9)
#: Way of reading -> settings of the profiles that it gives.
GIVES = {
    "mixed": ({"scoring": "attention", "framework": "pointwise"},
              {"scoring": "mixed", "framework": "pointwise"}),
    "shared": (READINGS["shared"],),
    "blind": (READINGS["blind"],),
}  # fmt: skip


def known(data: Collected) -> list[Sample]:
    """The queries that may teach and have labels."""
    return [sample for sample in data.all_teaching() if sample.known]


def held_out(
    data: Collected, settings: dict[str, object]
) -> tuple[HeldOut, float, dict[str, dict[str, float]]]:
    """Means over the families with labels, each left out in turn; likelihood's weight that is best
    over all of these; and the figures of each family."""
    samples, attention = left_out(data, taught(BLEND, **settings))
    groups = [sample.group for sample in samples]
    values = {
        "attention": measure_scores(samples, attention),
        "likelihood": measure_scores(samples, [likelihood_of(sample) for sample in samples]),
        # A family's own queries have no say in the weight that they are measured with.
        "mixed": cross_fitted(samples, attention, groups),
    }
    names = list(dict.fromkeys(groups))
    figures = {
        label: {
            name: round(float(own[[group == name for group in groups]].mean()), 4) for name in names
        }
        for label, own in values.items()
    }
    means = {label: round(float(np.mean(list(row.values()))), 4) for label, row in figures.items()}
    found = HeldOut(measure="nDCG@10", **means, queries=len(samples), groups=len(names))
    return found, best_weight(samples, attention), figures


def profiles_of(reading: str, data: Collected) -> list[Profile]:
    """The profiles that a way of reading gives."""
    made = []
    read: dict[str, dict[str, object]] = {"attention": dict(ATTENTION), "mixed": dict(MIXED)}
    found = {own["scoring"]: held_out(data, read[own["scoring"]]) for own in GIVES[reading]}
    for fields in GIVES[reading]:
        mixed = fields["scoring"] == "mixed"
        settings = read[fields["scoring"]]
        figures, weight, families = found[fields["scoring"]]
        if reading != "mixed":
            # Likelihood is not to be had in these prompts.
            figures = HeldOut(
                measure=figures.measure, attention=figures.attention,
                queries=figures.queries, groups=figures.groups,
            )  # fmt: skip
            families = {"attention": families["attention"]}
        else:
            # Of each way of scoring with the heads that ship for it, in both files.
            own = {name: found[name][0].figures()[name] for name in found}
            figures = figures.model_copy(update=own)
        heads = taught(BLEND, **settings)(data.all_teaching())
        # In as many digits as anything that is read has.
        rounded = tuple(head.model_copy(update={"weight": round(head.weight, 4)}) for head in heads)
        samples = known(data)
        made.append(
            Profile(
                **fields,
                heads=tuple(head for head in rounded if head.weight),
                likelihood_weight=weight if mixed else 0.0,
                first_stage_weight=FIRST_STAGE_WEIGHT,
                model=MODEL,
                shape=SHAPE,
                data={
                    "queries": {name: len(data.teaching[name]) for name in FAMILIES},
                    "taught by likelihood alone": [
                        part.family for part in PARTS if part.teaches and not part.labels
                    ],
                    "from": "benchmarks/teaching_texts.py, benchmarks/teaching_data.py",
                },
                method="SmolLM2-135M: heads taught by its likelihood and labels on seven families "
                "of text in eleven languages, docs/study.md",
                measured={"families left out in turn": {
                    "measure": "nDCG@10, shuffled candidates", **families,
                    "from": "benchmarks/make_profile.py"}},
                held_out=figures,
                curve=layer_curve(samples, "log_mass").to_dict(),
                created=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
                versions=versions(),
            )
        )  # fmt: skip
    return made


def compare_settings(data: Collected) -> None:
    """Held-out figures by penalty, size and depth, as Markdown."""
    print("| L2 | readings | last layer | attention | mixed |\n|---|---|---|---|---|")
    for l2 in (10.0, 20.0, 40.0, 80.0):
        for size in (32, 64, 128, None):
            for last in (15, 18, 21, 24, 29):
                if l2 != L2 and (size, last) != (64, 21):
                    continue
                settings: dict[str, object] = {"l2": l2, "size": size, "max_layer": last}
                found, _, _ = held_out(data, settings)
                print(f"| {l2:g} | {size or 'all'} | {last} | {found.attention:.3f} "
                      f"| {found.mixed:.3f} |")  # fmt: skip


def ship(profile: Profile, folder: Path) -> None:
    """Write a profile under the name that its purpose has; a calibration stays with its weights."""
    states = [] if profile.document_states == "joint" else [profile.document_states]
    name = ".".join(["smollm2-135m", profile.scoring, profile.framework, *states, "json"])
    path = folder / name
    if path.is_file():
        old = Profile.load(path)
        weights = ("heads", "likelihood_weight")
        if all(getattr(old, field) == getattr(profile, field) for field in weights):
            profile = profile.model_copy(
                update={"calibration": old.calibration, "abstention": old.abstention}
            )
    profile.save(path)
    print(f"{path} is written", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("readings", type=Path, help="what benchmarks/teaching_data.py wrote")
    parser.add_argument(
        "--profiles", type=Path, default=SHIPPED, help="folder of the profiles that are written"
    )
    parser.add_argument(
        "--settings", action="store_true", help="compare penalties, sizes and depths, write nothing"
    )
    parser.add_argument("--plot", type=Path, help="layer curve and heads, without the suffix")
    arguments = parser.parse_args()
    pointwise = load(arguments.readings, "mixed", {})
    if pointwise is None:
        raise SystemExit(f"{arguments.readings} has no mixed readings")
    if arguments.settings:
        compare_settings(pointwise)
        return
    for reading in GIVES:
        data = pointwise if reading == "mixed" else load(arguments.readings, reading, {})
        if data is None:
            print(f"{arguments.readings} has no {reading} readings; its profile stays as it is")
            continue
        if reading != "mixed":
            add_likelihoods(data, pointwise)
        for profile in profiles_of(reading, data):
            ship(profile, arguments.profiles)
            print(json.dumps(profile.measured, indent=1))
        if reading == "mixed" and arguments.plot is not None:
            samples = known(data)
            heads = head_values(samples, "log_mass").mean(axis=0)
            chosen = taught(BLEND, size=64)(data.all_teaching())
            paths = [arguments.plot.with_suffix(kind) for kind in (".png", ".svg")]
            plot_profile(paths, layer_curve(samples, "log_mass"), heads, chosen, MODEL)


if __name__ == "__main__":
    main()
