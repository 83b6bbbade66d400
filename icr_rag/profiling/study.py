"""A layer study from readings to a profile: curve, choice, honest figures, provenance."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from icr_rag.config import RerankerConfig
from icr_rag.errors import InputError
from icr_rag.evaluation.environment import versions
from icr_rag.frameworks.evidence import FIRST_STAGE_WEIGHT
from icr_rag.profiles import HeadWeight, Profile, Shape
from icr_rag.profiles.shipped import WINDOW_WIDTH
from icr_rag.profiling.crossval import (
    Selector,
    cross_validate,
    likelihood_weight,
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
from icr_rag.profiling.samples import Sample
from icr_rag.profiling.weights import learn_weights

if TYPE_CHECKING:
    from transformers import PretrainedConfig

#: Figure -> its value; "transfer": chosen on -> measured on -> value.
Measured = dict[str, float | dict[str, dict[str, float]]]

#: How heads are chosen; `icr_rag.profiling.heads` and `icr_rag.profiling.weights` say more.
METHODS = ("learned", "core", "qrhead", "greedy", "window")


@dataclass(frozen=True)
class Choice:
    """How to choose.

    Attributes:
        method: of `METHODS`.
        size: how many heads, or weighted readings for "learned"; layers for "window".
        reading: which reading is used.
        l2: of "learned".
        depth_penalty: see the methods.
        max_layer: nothing above it is chosen.
    """

    method: str = "learned"
    size: int = 64
    reading: str = "log_mass"
    l2: float = 20.0
    depth_penalty: float = 0.0
    max_layer: int | None = None

    def select(self, samples: Sequence[Sample]) -> tuple[HeadWeight, ...]:
        """The choice on these samples.

        Raises:
            InputError: for an unknown method, or samples without a relevant candidate.
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
            )
        if self.max_layer is not None:
            samples = [_below(sample, self.max_layer) for sample in samples]
        if self.method == "greedy":
            return greedy_heads(samples, self.size, self.reading, self.depth_penalty)
        if self.method == "window":
            width = min(self.size, WINDOW_WIDTH) if self.size < WINDOW_WIDTH else WINDOW_WIDTH
            curve = layer_curve(samples, self.reading, width=width, resamples=1)
            return window_heads(curve.window, samples[0].readings.shape[2], self.reading)
        values = core_values(samples, self.reading) if self.method == "core" else qr_values(samples)
        return select_heads_by(values, self.size, self.reading, self.depth_penalty)


@dataclass(frozen=True)
class Study:
    """The outcome of a layer study.

    Attributes:
        curve: over layers. heads: float64 [layer, head], nDCG@10 of each alone.
        chosen: weighted readings.
        measured: nDCG@10, mean over queries: "given order", "all layers", "best window" (the
            window chosen in cross-validation), "chosen" (likewise), and for several groups
            "transfer", chosen on one and measured on another.
        likelihood_weight: for mixed scoring.
    """

    curve: LayerCurve
    heads: np.ndarray
    chosen: tuple[HeadWeight, ...]
    measured: Measured
    likelihood_weight: float


def run_study(samples: Sequence[Sample], choice: Choice, mixed: bool = False) -> Study:
    """Curve, choice and cross-validated figures.

    Args:
        samples: of one group or several.
        choice: how heads are chosen.
        mixed: choose the weight of query likelihood too.

    Raises:
        InputError: if the samples are too few or have no relevant candidates.
    """
    curve = layer_curve(samples, choice.reading)
    chosen = choice.select(samples)
    window = Choice("window", WINDOW_WIDTH, choice.reading)
    uniform = choice.reading
    measured: Measured = {
        "queries": len(samples),
        "all layers": _mean(_all_layers(samples, uniform)),
        "best layer, chosen on these queries": _mean(
            layer_values(samples, choice.reading)[:, curve.values.argmax()]
        ),
        "window, cross-validated": _mean(cross_validate(samples, window.select)),
        f"{choice.method}, cross-validated": _mean(cross_validate(samples, choice.select)),
    }
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.group, []).append(sample)
    if len(groups) > 1:
        select: Selector = choice.select
        measured["transfer"] = {
            source: {name: round(value, 4) for name, value in row.items()}
            for source, row in transfer(groups, select).items()
        }
    weight = likelihood_weight(samples, choice.select) if mixed else 0.0
    return Study(curve, head_values(samples, choice.reading).mean(axis=0), chosen, measured, weight)


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
        curve=study.curve.to_dict(),
        created=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        versions=versions(),
    )


def _all_layers(samples: Sequence[Sample], reading: str) -> np.ndarray:
    from icr_rag.profiling.crossval import evaluate_heads

    layers, heads = samples[0].readings.shape[1:3]
    return evaluate_heads(samples, window_heads((0, layers - 1), heads, reading))


def _below(sample: Sample, last: int) -> Sample:
    from dataclasses import replace

    return replace(sample, readings=sample.readings[:, : last + 1])


def _mean(values: np.ndarray) -> float:
    return round(float(values.mean()), 4)
