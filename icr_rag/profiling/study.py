"""A layer study from readings to a profile: curve, choice, honest figures, provenance."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from icr_rag.config import RerankerConfig
from icr_rag.errors import InputError
from icr_rag.evaluation.environment import versions
from icr_rag.frameworks.evidence import FIRST_STAGE_WEIGHT
from icr_rag.profiles import HeadWeight, HeldOut, Profile, Shape
from icr_rag.profiles.shipped import WINDOW_WIDTH
from icr_rag.profiling.crossval import (
    USUAL_WEIGHT,
    best_weight,
    cross_validate,
    evaluate_heads,
    fold_parts,
    known_mean,
    measure_scores,
    scores_without,
    transfer,
)
from icr_rag.profiling.curve import LayerCurve, head_values, layer_curve, layer_values
from icr_rag.profiling.heads import (
    core_values,
    greedy_heads,
    qr_values,
    select_heads_by,
    window_heads,
)
from icr_rag.profiling.held_out import held_out, parts_of, queries_curve
from icr_rag.profiling.samples import Sample
from icr_rag.profiling.teachers import Teacher, by_labels
from icr_rag.profiling.weights import learn_weights

if TYPE_CHECKING:
    from transformers import PretrainedConfig

#: Figure -> its value; "queries curve": number of queries -> value; "transfer": chosen on ->
#: measured on -> value.
Measured = dict[str, float | dict[str, float] | dict[str, dict[str, float]]]

#: How heads are chosen; `icr_rag.profiling.heads` and `icr_rag.profiling.weights` say more.
METHODS = ("learned", "core", "qrhead", "greedy", "window")


@dataclass(frozen=True)
class Choice:
    """How to choose.

    Attributes:
        method: of `METHODS`.
        size: how many heads, or weighted readings for "learned"; layers for "window". None: all.
        reading: which reading is used.
        l2: of "learned".
        depth_penalty: see the methods.
        max_layer: nothing above it is chosen.
        teacher: what "learned" is taught by; the others know labels alone.
        balanced: of "learned": groups of queries count the same, whatever their sizes.
    """

    method: str = "learned"
    size: int | None = 64
    reading: str = "log_mass"
    l2: float = 20.0
    depth_penalty: float = 0.0
    max_layer: int | None = None
    teacher: Teacher = by_labels
    balanced: bool = True

    def teaches(self, sample: Sample) -> bool:
        """Whether anything can be chosen by a query."""
        teacher = self.teacher if self.method == "learned" else by_labels
        return teacher(sample) is not None

    def select(self, samples: Sequence[Sample]) -> tuple[HeadWeight, ...]:
        """The choice on these samples.

        Raises:
            InputError: for an unknown method, or samples that teach nothing.
        """
        if self.method not in METHODS:
            raise InputError(f"method={self.method!r}; allowed are {', '.join(METHODS)}")
        if self.method == "learned":
            return learn_weights(
                samples,
                readings=(self.reading,),
                l2=self.l2,
                size=self.size,
                depth_penalty=self.depth_penalty,
                max_layer=self.max_layer,
                teacher=self.teacher,
                balanced=self.balanced,
            )
        if self.max_layer is not None:
            samples = [_below(sample, self.max_layer) for sample in samples]
        layers, heads = samples[0].readings.shape[1:3]
        size = layers * heads if self.size is None else self.size
        if self.method == "greedy":
            return greedy_heads(samples, size, self.reading, self.depth_penalty)
        if self.method == "window":
            width = min(size, WINDOW_WIDTH)
            curve = layer_curve(samples, self.reading, width=width, resamples=1)
            return window_heads(curve.window, heads, self.reading)
        values = core_values(samples, self.reading) if self.method == "core" else qr_values(samples)
        return select_heads_by(values, size, self.reading, self.depth_penalty)


@dataclass(frozen=True)
class Study:
    """The outcome of a layer study.

    Attributes:
        curve: over layers; None where nothing is known to be relevant.
        heads: float64 [layer, head], nDCG@10 of each alone; 0 where nothing is known to be
            relevant.
        chosen: weighted readings.
        measured: "queries", how many; the others are nDCG@10, means over the queries that have a
            relevant document: "all layers", "window, cross-validated" and that of the method;
            "queries curve", see `icr_rag.profiling.held_out.queries_curve`; for several groups
            "transfer", chosen on one and measured on another.
        likelihood_weight: for mixed scoring; the usual one where nothing is known to be relevant.
        queries: how many.
        held_out: the ways of scoring on queries that taught nothing.
        sizes: number of queries -> nDCG@10, see `icr_rag.profiling.held_out.queries_curve`.
    """

    curve: LayerCurve | None
    heads: np.ndarray
    chosen: tuple[HeadWeight, ...]
    measured: Measured
    likelihood_weight: float
    queries: int
    held_out: HeldOut | None = None
    sizes: Mapping[str, float] = field(default_factory=dict)


def run_study(samples: Sequence[Sample], choice: Choice, mixed: bool = False) -> Study:
    """Curve, choice and cross-validated figures.

    Args:
        samples: of one group or several.
        choice: how heads are chosen.
        mixed: choose the weight of query likelihood too.

    Raises:
        InputError: if the samples are too few or teach nothing.
    """
    chosen = choice.select(samples)
    known = [sample for sample in samples if sample.known]
    measured: Measured = {"queries": len(samples)}
    if not known:
        nothing = np.zeros(samples[0].readings.shape[1:3])
        weight = USUAL_WEIGHT if mixed else 0.0
        return Study(None, nothing, chosen, measured, weight, len(samples))
    curve = layer_curve(known, choice.reading)
    window = Choice("window", WINDOW_WIDTH, choice.reading)
    parts = parts_of(samples)
    scores = scores_without(samples, choice.select, parts)
    folds = [str(fold) for fold in fold_parts(samples)]
    of_folds = scores if parts == folds else scores_without(samples, choice.select, folds)
    measured |= {
        "all layers": _mean(_all_layers(known, choice.reading)),
        "best layer, chosen on these queries": _mean(
            layer_values(known, choice.reading)[:, curve.values.argmax()]
        ),
        "window, cross-validated": _mean(cross_validate(known, window.select)),
        f"{choice.method}, cross-validated": round(
            known_mean(samples, measure_scores(samples, of_folds)), 4
        ),
    }
    if sizes := queries_curve(samples, choice.select):
        measured["queries curve"] = sizes
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.group, []).append(sample)
    groups = {name: own for name, own in groups.items() if any(map(choice.teaches, own))}
    if len(groups) > 1:
        measured["transfer"] = {
            source: {name: round(value, 4) for name, value in row.items()}
            for source, row in transfer(groups, choice.select).items()
        }
    return Study(
        curve,
        head_values(known, choice.reading).mean(axis=0),
        chosen,
        measured,
        best_weight(samples, scores) if mixed else 0.0,
        len(samples),
        held_out(samples, parts, scores),
        sizes,
    )


def make_profile(
    study: Study,
    choice: Choice,
    config: RerankerConfig,
    text_config: PretrainedConfig,
    data: dict[str, object],
) -> Profile:
    """The profile that `Reranker(profile=...)` reads.

    Args:
        config: of the profiling: model, revision, scoring, framework ("auto" replaced).
        text_config: transformers configuration of the whole model.
        data: where the queries come from.
    """
    blind_to_order = config.framework == "pointwise" or config.document_states != "joint"
    return Profile(
        scoring=config.scoring,
        framework="pointwise" if config.framework == "pointwise" else "listwise",
        document_states=config.document_states,
        heads=study.chosen,
        likelihood_weight=study.likelihood_weight,
        # Documents that see each other see the order as it is.
        first_stage_weight=FIRST_STAGE_WEIGHT if blind_to_order else 0.0,
        model=config.model,
        revision=config.revision,
        shape=Shape.of(text_config),
        data=data,
        method=f"{choice.method}, {len(study.chosen)} readings ({choice.reading})",
        measured=study.measured,
        held_out=study.held_out,
        curve=None if study.curve is None else study.curve.to_dict(),
        created=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        versions=versions(),
    )


def _all_layers(samples: Sequence[Sample], reading: str) -> np.ndarray:
    layers, heads = samples[0].readings.shape[1:3]
    return evaluate_heads(samples, window_heads((0, layers - 1), heads, reading))


def _below(sample: Sample, last: int) -> Sample:
    return replace(sample, readings=sample.readings[:, : last + 1])


def _mean(values: np.ndarray) -> float:
    return round(float(values.mean()), 4)
