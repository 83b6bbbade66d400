"""Heads taught by likelihood, labels or both, each family of domains left out in turn.

    python benchmarks/teaching_texts.py --out texts
    python benchmarks/teaching_data.py DATA texts --out readings
    python benchmarks/teaching.py readings --out results

nDCG@10 of shuffled candidates, nothing of the first stage in the scores unless a row says so. Every
row's heads were chosen on the other families: on the parts that may teach (`teaching_data.PARTS`),
theoremqa's and xquadr-de's without labels; mixed scoring's weight on what may teach with labels.
The mean is over families, so that all count the same; intervals (95 %) by bootstrap over queries
within each family, of differences too. Writes tables as Markdown and all numbers as JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from teaching_data import PARTS, name_of, stored

from icr_rag.evaluation.environment import hardware, versions
from icr_rag.model.reading import READINGS
from icr_rag.profiles import HeadWeight, Profile
from icr_rag.profiling.crossval import (
    best_weight,
    evaluate_heads,
    measure_scores,
    mixed_values,
    scores_without,
)
from icr_rag.profiling.heads import core_values, qr_values, select_heads_by
from icr_rag.profiling.samples import Sample, standardise
from icr_rag.profiling.teachers import Teaching, average
from icr_rag.profiling.weights import learn_weights, score

ATTENTION_FILE = "smollm2-135m.attention.pointwise.json"
MIXED_FILE = "smollm2-135m.mixed.pointwise.json"
FAMILIES = tuple(dict.fromkeys(part.family for part in PARTS))
RESAMPLES = 2000
#: Penalty of all teachers here, and how the profiles that ship read: settings of `learn_weights`.
#: Chosen on families whose labels may teach, each left out in turn (`make_profile.py --settings`
#: shows it): attention alone gives up the deepest layers, which it would have to run.
L2 = 20.0
ATTENTION = {"size": 64, "max_layer": 21}
MIXED = {"size": 128}

#: A row: family -> value of each of its measured queries.
Row = dict[str, np.ndarray]
#: What is chosen on samples.
Chooser = Callable[[Sequence[Sample]], Sequence[HeadWeight]]


class Collected:
    """Samples of one way of reading: those that teach, with the labels that may, and those that are
    measured.

    Args:
        samples: as `teaching_data.read` gives them.
        others: scores by another name, (query id, document id) -> score, for teaching and rows.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        others: Mapping[str, Mapping[tuple[str, str], float]] | None = None,
    ) -> None:
        self.teaching: dict[str, list[Sample]] = {name: [] for name in FAMILIES}
        self.measured: dict[str, list[Sample]] = {name: [] for name in FAMILIES}
        parts = {name_of(part): part for part in PARTS}
        for sample in samples:
            part = parts[sample.group]
            own = replace(sample, group=part.family, scores=_scores(sample, others or {}))
            if part.teaches:
                self.teaching[part.family].append(own if part.labels else unlabelled(own))
            if part.measured:
                self.measured[part.family].append(own)

    def without(self, family: str) -> list[Sample]:
        """What may teach where a family is measured."""
        return [s for name, own in self.teaching.items() if name != family for s in own]

    def all_teaching(self) -> list[Sample]:
        """What may teach."""
        return [sample for own in self.teaching.values() for sample in own]

    def chosen(self, choose: Chooser) -> dict[str, Sequence[HeadWeight]]:
        """Family -> heads chosen on the others."""
        return {family: choose(self.without(family)) for family in FAMILIES}

    def row(self, heads: Mapping[str, Sequence[HeadWeight]]) -> Row:
        """Each family by its heads."""
        return {name: evaluate_heads(own, heads[name]) for name, own in self.measured.items()}

    def scored(self, scores: Callable[[Sample], np.ndarray]) -> Row:
        """By any scores."""
        return {
            name: measure_scores(own, [scores(sample) for sample in own])
            for name, own in self.measured.items()
        }


def _scores(
    sample: Sample, others: Mapping[str, Mapping[tuple[str, str], float]]
) -> dict[str, np.ndarray]:
    return {
        name: np.array([found[sample.query_id, document] for document in sample.documents])
        for name, found in others.items()
    }


def unlabelled(sample: Sample) -> Sample:
    """The same, of which nothing is known."""
    return replace(sample, grades=np.zeros_like(sample.grades), ideal=np.zeros(0, dtype=np.int64))


def taught(teacher: Teaching, **settings: object) -> Chooser:
    """Heads taught, all of them unless the settings say otherwise."""
    chosen: dict[str, object] = {"l2": L2, "size": None, **settings}

    def choose(samples: Sequence[Sample]) -> Sequence[HeadWeight]:
        return learn_weights(samples, teacher=teacher, **chosen)  # type: ignore[arg-type]

    return choose


def labelled_only(samples: Sequence[Sample]) -> list[Sample]:
    return [sample for sample in samples if sample.known]


def likelihood_of(sample: Sample) -> np.ndarray:
    if sample.likelihood is None:
        raise SystemExit("give readings of mixed scoring, which have likelihoods")
    return sample.likelihood


def mixed_row(data: Collected, heads: Mapping[str, Sequence[HeadWeight]], weight: float) -> Row:
    """Attention by these heads, and likelihood with a weight."""
    return {
        name: mixed_values(own, [score(sample, heads[name]) for sample in own], (weight,))[:, 0]
        for name, own in data.measured.items()
    }


def fitted_weight(data: Collected, choose: Chooser) -> float:
    """The weight of likelihood that is best over families, each with heads of the others, on what
    may teach with labels."""
    return best_weight(*left_out(data, choose))


def left_out(data: Collected, choose: Chooser) -> tuple[list[Sample], list[np.ndarray]]:
    """What may teach with labels, and scores [document] by heads of the other families."""
    samples = data.all_teaching()
    scores = scores_without(samples, choose, [sample.group for sample in samples])
    known = [place for place, sample in enumerate(samples) if sample.known]
    return [samples[place] for place in known], [scores[place] for place in known]


def summary(row: Row, base: Row | None = None) -> tuple[float, float, float]:
    """Mean over families, of differences to ``base`` where there is one, and its interval."""
    draw = np.random.default_rng(0)
    values = [row[name] - (0 if base is None else base[name]) for name in row]
    drawn = np.mean(
        [own[draw.integers(0, len(own), (RESAMPLES, len(own)))].mean(axis=1) for own in values],
        axis=0,
    )
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(np.mean([own.mean() for own in values])), float(low), float(high)


def table(rows: Mapping[str, Row], base: str) -> list[str]:
    """Markdown: a row each, a column per family, means with intervals."""
    names = list(next(iter(rows.values())))
    counts = [len(next(iter(rows.values()))[name]) for name in names]
    heads = [f"{name} ({count})" for name, count in zip(names, counts, strict=True)]
    lines = [
        f"| nDCG@10 | {' | '.join(heads)} | mean (95 %) | against {base} (95 %) |",
        "|---|" + "---|" * (len(names) + 2),
    ]
    for label, row in rows.items():
        cells = [f"{row[name].mean():.3f}" for name in names]
        mean, low, high = summary(row)
        gain, worst, best = summary(row, rows[base])
        cells.append(f"{mean:.3f} ({low:.3f} to {high:.3f})")
        cells.append("" if label == base else f"{gain:+.3f} ({worst:+.3f} to {best:+.3f})")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


def by_core(size: int) -> Chooser:
    """So many heads by CoRe's criterion."""
    return lambda samples: select_heads_by(core_values(labelled_only(samples)), size)


def main_rows(data: Collected, weight: float, profiles: Path | None) -> dict[str, Row]:
    """The table of teachers.

    Args:
        weight: of likelihood in mixed scoring.
        profiles: folder of others to compare with, whatever these have seen.
    """
    rows: dict[str, Row] = {}
    before = None if profiles is None else Profile.load(profiles / ATTENTION_FILE)
    if before is not None:
        rows["profile given, attention"] = data.row(dict.fromkeys(FAMILIES, before.heads))
    for size in (8, 16):
        rows[f"CoRe, {size} heads"] = data.row(data.chosen(by_core(size)))
    rows["QRHead, 16 heads"] = data.row(
        data.chosen(lambda s: select_heads_by(qr_values(labelled_only(s)), 16))
    )
    for name in ("labels", "likelihood", "blend"):
        rows[f"attention taught by {name}"] = data.row(data.chosen(taught(average([name]))))
    blend = average(["blend"])
    rows["attention as shipped: 64 readings"] = data.row(data.chosen(taught(blend, **ATTENTION)))
    rows["query likelihood"] = data.scored(likelihood_of)
    if profiles is not None:
        mixed = Profile.load(profiles / MIXED_FILE)
        rows["profile given, mixed"] = mixed_row(
            data, dict.fromkeys(FAMILIES, mixed.heads), mixed.likelihood_weight
        )
    for name in ("labels", "likelihood", "blend"):
        choose = taught(average([name]))
        rows[f"mixed, taught by {name}"] = mixed_row(data, data.chosen(choose), weight)
    rows["mixed as shipped: 128 readings"] = mixed_row(
        data, data.chosen(taught(blend, **MIXED)), weight
    )
    return rows


def icr(sample: Sample) -> np.ndarray:
    """All heads of all layers, calibrated, added up (arXiv 2410.02642, section 3)."""
    total: np.ndarray = sample.readings[..., READINGS.index("calibrated")].sum(axis=(1, 2))
    return total


def fused_rows(data: Collected, heads: Mapping[str, Sequence[HeadWeight]], weight: float) -> (
    dict[str, Row]
):  # fmt: skip
    """With what a first stage says of the candidates, standardised and added."""

    def own(sample: Sample) -> np.ndarray:
        likelihood = weight * standardise(likelihood_of(sample))
        return standardise(likelihood + standardise(score(sample, heads[sample.group])))

    def peer(name: str) -> Callable[[Sample], np.ndarray]:
        return lambda sample: standardise(sample.scores[name])

    def added(*parts: tuple[float, Callable[[Sample], np.ndarray]]) -> Row:
        return data.scored(
            lambda sample: np.sum([share * part(sample) for share, part in parts], axis=0)
        )

    cosine, order = peer("MiniLM"), peer("BM25")
    likelihood = lambda sample: standardise(likelihood_of(sample))  # noqa: E731
    rows = {
        "MiniLM's cosine": added((1, cosine)),
        "BM25's order": added((1, order)),
        "query likelihood": added((1, likelihood)),
        "mixed": added((1, own)),
        "likelihood + MiniLM": added((1, likelihood), (1, cosine)),
        "BM25's order + MiniLM": added((0.3, order), (1, cosine)),
    }
    for share in (0.5, 1.0, 1.5):
        rows[f"mixed + {share:g} MiniLM"] = added((1, own), (share, cosine))
    for share in (0.1, 0.3, 0.6, 1.0):
        rows[f"mixed + {share:g} order"] = added((1, own), (share, order))
    rows["mixed + MiniLM + .3 order"] = added((1, own), (1, cosine), (0.3, order))
    return rows


def file_rows(data: Collected, name: str, weight: float) -> dict[str, Row]:
    """Heads taught by another re-ranker's scores."""
    rows: dict[str, Row] = {
        f"{name} itself": data.scored(lambda sample: sample.scores[name]),
        "query likelihood": data.scored(likelihood_of),
    }
    for names in (("blend",), (name,), ("likelihood", name), ("blend", name)):
        heads = data.chosen(taught(average(names)))
        label = " and ".join(names)
        rows[f"attention taught by {label}"] = data.row(heads)
        rows[f"mixed, taught by {label}"] = mixed_row(data, heads, weight)
    return rows


def read_scores(path: Path) -> dict[tuple[str, str], float]:
    """JSONL of "query_id", "doc_id", "score"; or the folder of another model's readings by mixed
    scoring (`teaching_data.py`), of which the likelihoods."""
    if path.is_dir():
        return {
            (sample.query_id, document): float(value)
            for sample in stored(path, "mixed")
            for document, value in zip(sample.documents, likelihood_of(sample), strict=True)
        }
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {(row["query_id"], row["doc_id"]): row["score"] for row in rows}


def curves(data: Collected, teacher: Teaching) -> dict[str, dict[str, float]]:
    """Means over families by number of readings, last layer, queries, penalty."""

    def value(choose: Chooser, of: Collected = data) -> float:
        return round(summary(of.row(of.chosen(choose)))[0], 4)

    found: dict[str, dict[str, float]] = {"readings kept": {}, "last layer": {}, "l2": {}}
    for size in (8, 16, 32, 64, 128, None):
        found["readings kept"][str(size or "all")] = value(taught(teacher, size=size))
    layers = next(iter(data.measured.values()))[0].readings.shape[1]
    for last in sorted({layers // 3, layers // 2, 2 * layers // 3, 5 * layers // 6, layers - 1}):
        found["last layer"][str(last)] = value(taught(teacher, max_layer=last))
    for l2 in (5.0, 10.0, 20.0, 40.0, 80.0):
        found["l2"][f"{l2:g}"] = value(taught(teacher, l2=l2))
    found["queries of each family"] = {}
    for count in (5, 10, 20, 40):
        few = Collected([])
        few.measured = data.measured
        few.teaching = {name: own[:count] for name, own in data.teaching.items()}
        found["queries of each family"][str(count)] = value(taught(teacher), few)
    return found


def load(folder: Path, reading: str, others: Mapping[str, Path]) -> Collected | None:
    samples = stored(folder, reading)
    found = {name: read_scores(file) for name, file in others.items()}
    return Collected(samples, found) if samples else None


def named_file(text: str) -> tuple[str, Path]:
    """NAME=FILE."""
    name, _, path = text.partition("=")
    if not name or not Path(path).exists():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE with what exists")
    return name, Path(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("readings", type=Path, help="what benchmarks/teaching_data.py wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--scores",
        action="append",
        type=named_file,
        default=[],
        metavar="NAME=FILE",
        help="another re-ranker's, JSONL; or a folder of another model's mixed readings",
    )
    parser.add_argument("--curves", action="store_true")
    parser.add_argument("--profiles", type=Path, help="folder of profiles to compare with")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    others = dict(arguments.scores)
    data = load(arguments.readings, "mixed", others)
    if data is None:
        raise SystemExit(f"{arguments.readings} has no mixed readings")
    blend = average(["blend"])
    told: dict[str, object] = {"hardware": hardware(), "versions": versions()}

    weight = fitted_weight(data, taught(blend, **MIXED))
    told["weight of likelihood, fitted"] = weight
    rows = main_rows(data, weight, arguments.profiles)
    lines = ["## Teachers", "", *table(rows, "query likelihood")]
    joint = load(arguments.readings, "joint", {})
    if joint is not None:
        # The same queries, read one by one.
        same = narrowed(data, joint)
        heads = data.chosen(taught(blend, **MIXED))
        by_prompt = {
            "ICR, all layers, joint": joint.scored(icr),
            "attention as shipped": same.row(data.chosen(taught(blend, **ATTENTION))),
            "query likelihood": same.scored(likelihood_of),
            "mixed as shipped": mixed_row(same, heads, weight),
        }
        lines += ["", "## ICR's joint prompt", "", *table(by_prompt, "ICR, all layers, joint")]
        told["joint"] = {label: values(row) for label, row in by_prompt.items()}
    if {"MiniLM", "BM25"} <= set(others):
        fused = fused_rows(data, data.chosen(taught(blend, **MIXED)), weight)
        lines += ["", "## First stage", "", *table(fused, "MiniLM's cosine")]
        told["first stage"] = {label: values(row) for label, row in fused.items()}
    for name in others:
        if name != "BM25":
            by_file = file_rows(data, name, weight)
            lines += ["", f"## Taught by {name}", "", *table(by_file, "query likelihood")]
            told[f"taught by {name}"] = {label: values(row) for label, row in by_file.items()}
    for reading in ("shared", "blind"):
        own = load(arguments.readings, reading, {})
        if own is not None:
            add_likelihoods(own, data)
            # The same queries, read one by one.
            tails = {
                "pointwise": narrowed(data, own).row(data.chosen(taught(blend, **ATTENTION))),
                f"{reading} tail": own.row(own.chosen(taught(blend, **ATTENTION))),
                f"{reading} tail, pointwise heads": own.row(
                    data.chosen(taught(blend, **ATTENTION))
                ),
            }
            lines += ["", f"## Tails over kept documents: {reading}", ""]
            lines += table(tails, "pointwise")
            told[f"tails, {reading}"] = {label: values(row) for label, row in tails.items()}
    if arguments.curves:
        found = curves(data, blend)
        told["curves"] = found
        for label, curve in found.items():
            cells = ", ".join(f"{key}: {value:.3f}" for key, value in curve.items())
            lines.append(f"- {label}: {cells}")
    told["teachers"] = {label: values(row) for label, row in rows.items()}
    (arguments.out / "teaching.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = json.dumps(told, indent=1, default=str)
    (arguments.out / "teaching.json").write_text(text + "\n", encoding="utf-8")
    print("\n".join(lines))


def values(row: Row) -> dict[str, list[float]]:
    return {name: [round(float(value), 4) for value in own] for name, own in row.items()}


def narrowed(data: Collected, other: Collected) -> Collected:
    """The first's samples of the queries that the second has."""
    result = Collected([])
    for family in FAMILIES:
        names = {sample.query_id for sample in other.measured[family]}
        result.measured[family] = [s for s in data.measured[family] if s.query_id in names]
    return result


def add_likelihoods(own: Collected, data: Collected) -> None:
    """Teachers' scores come from one collection: the likelihoods of the pointwise prompts."""
    known = {
        sample.query_id: dict(zip(sample.documents, likelihood_of(sample).tolist(), strict=True))
        for part in (data.teaching, data.measured)
        for samples in part.values()
        for sample in samples
    }
    for part in (own.teaching, own.measured):
        for family, samples in part.items():
            part[family] = [
                replace(s, likelihood=np.array([known[s.query_id][d] for d in s.documents]))
                for s in samples
                if s.query_id in known
            ]


if __name__ == "__main__":
    main()
