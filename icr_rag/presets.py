"""Layer windows and head sets for known models, each with its source.

A model is known by the shape in its configuration, so that a local folder, a mirror or a
quantised copy finds the same preset as the hub name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from icr_rag.profiles import HeadWeight, Profile, Shape

#: Width of a window where nothing better is known (Selective-ICR, arXiv 2602.22591).
WINDOW_WIDTH = 4


@dataclass(frozen=True)
class LayerPreset:
    """A window of layers, 0-indexed and inclusive, and where it comes from."""

    first: int
    last: int
    source: str


def _shape(model_type: str, layers: int, width: int, heads: int) -> Shape:
    return Shape(
        model_type=model_type,
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
    )


LAYER_PRESETS: dict[Shape, LayerPreset] = {
    _shape("llama", 30, 576, 9): LayerPreset(
        18, 18, "SmolLM2-135M: best single layer in benchmarks/windows.py, see docs/log.md"
    ),
    _shape("qwen3", 28, 1024, 16): LayerPreset(
        10, 13, "Qwen3-0.6B: window used by the authors of Selective-ICR, arXiv 2602.22591"
    ),
    _shape("qwen3", 36, 4096, 32): LayerPreset(
        18, 21, "Qwen3-8B: window used by the authors of Selective-ICR, arXiv 2602.22591"
    ),
}


@dataclass(frozen=True)
class HeadPreset:
    """A set of heads for one way of scoring, and where it comes from.

    Attributes:
        model: name of the model it was found on.
        scoring, framework, document_states: what it is for.
        weights: weighted readings of heads.
        likelihood_weight, first_stage_weight: as in `icr_rag.profiles.Profile`.
        source: where it comes from.
    """

    model: str
    scoring: Literal["attention", "mixed"]
    framework: Literal["listwise", "setwise", "pointwise"]
    weights: tuple[HeadWeight, ...]
    source: str
    likelihood_weight: float = 0.0
    first_stage_weight: float = 0.0
    document_states: Literal["joint", "independent", "blind"] = "joint"

    def profile(self, shape: Shape) -> Profile:
        """As a profile of a model of this shape."""
        return Profile(
            scoring=self.scoring,
            framework=self.framework,
            document_states=self.document_states,
            heads=self.weights,
            likelihood_weight=self.likelihood_weight,
            first_stage_weight=self.first_stage_weight,
            model=self.model,
            shape=shape,
            method=self.source,
        )


def _published(model: str, pairs: str, source: str) -> tuple[HeadPreset, ...]:
    """A published set of heads, "layer-head layer-head ...", equally weighted."""
    split = [pair.split("-") for pair in pairs.split()]
    weights = tuple(
        HeadWeight(layer=int(layer), head=int(head), reading="calibrated", weight=1 / len(split))
        for layer, head in split
    )
    return (HeadPreset(model, "attention", "listwise", weights, source),)


def _learned(text: str) -> tuple[HeadWeight, ...]:
    """Learned weights of the reading "log_mass", "layer-head:weight layer-head:weight ..."."""
    weights = []
    for item in text.split():
        pair, weight = item.split(":")
        layer, head = pair.split("-")
        weights.append(
            HeadWeight(layer=int(layer), head=int(head), reading="log_mass", weight=float(weight))
        )
    return tuple(weights)


#: SmolLM2-135M. `python benchmarks/make_profile.py` learns them from labelled queries of one half
#: of scifact and from label-free ones; docs/study.md says how and what came of it.
_SMOLLM2 = _learned(
    "15-7:+0.395 21-6:+0.327 2-4:+0.280 20-7:-0.258 15-1:+0.237 11-0:-0.224 11-4:-0.217 "
    "7-5:-0.216 20-0:+0.202 14-7:-0.201 14-2:+0.198 17-4:+0.195 14-1:-0.195 17-5:+0.190 "
    "15-0:+0.190 21-8:+0.189 13-8:-0.186 10-6:+0.178 6-2:-0.177 16-4:+0.177 19-4:-0.174 "
    "9-0:+0.173 15-6:+0.172 2-0:-0.169 18-3:+0.162 1-8:+0.160 7-6:+0.155 1-6:-0.152 "
    "0-5:-0.151 12-7:-0.142 8-7:+0.138 21-7:+0.137 17-6:-0.133 20-5:-0.131 3-8:+0.126 "
    "18-1:-0.126 0-0:-0.125 17-2:-0.123 18-2:-0.120 20-4:-0.117 20-3:+0.115 0-8:-0.113 "
    "11-5:+0.113 21-4:+0.110 16-6:+0.108 1-1:+0.106 21-5:-0.106 13-3:-0.104 9-1:-0.099 "
    "13-6:+0.098 16-0:+0.097 10-7:+0.096 5-1:-0.094 20-1:+0.094 9-7:-0.094 0-7:-0.093 "
    "8-0:+0.089 10-8:-0.087 13-5:+0.085 5-2:-0.084 0-6:-0.081 10-1:-0.072 9-3:-0.071 "
    "18-4:-0.056"
)
_SMOLLM2_SHARED = _learned(
    "8-0:+0.406 17-4:+0.338 15-6:+0.322 16-1:-0.305 6-5:-0.278 14-5:-0.243 18-7:+0.236 "
    "2-4:+0.226 9-0:+0.213 19-5:-0.203 2-2:+0.189 2-7:-0.183 17-3:+0.181 17-0:+0.179 "
    "15-7:+0.178 17-7:-0.162 17-8:-0.159 15-0:+0.157 21-6:-0.156 8-8:-0.153 18-5:+0.150 "
    "0-2:-0.146 7-5:-0.146 18-4:-0.142 17-2:-0.141 12-3:-0.137 21-2:-0.130 0-0:-0.128 "
    "13-0:-0.122 20-7:-0.121 11-0:-0.119 21-7:+0.118 7-4:-0.116 9-2:+0.114 17-5:+0.112 "
    "0-3:+0.111 14-1:-0.106 19-8:+0.100 16-3:+0.097 2-6:-0.095 14-6:-0.095 0-5:-0.094 "
    "4-1:-0.094 11-6:+0.092 18-6:+0.092 13-5:+0.087 2-8:-0.086 0-4:-0.085 20-2:-0.079 "
    "8-6:+0.077 11-8:+0.074 21-8:+0.074 8-7:+0.073 7-7:+0.073 2-0:-0.072 14-3:+0.070 "
    "17-1:+0.069 21-5:-0.069 19-0:+0.065 12-8:-0.063 20-6:-0.063 8-1:+0.061 16-4:+0.051 "
    "10-6:+0.049"
)
_SMOLLM2_BLIND = _learned(
    "8-0:+0.385 15-6:+0.328 21-6:-0.204 17-3:+0.200 17-7:-0.195 19-5:-0.194 12-0:+0.191 "
    "17-4:+0.190 18-7:+0.174 16-1:-0.173 17-5:+0.168 2-7:-0.168 0-2:-0.168 9-0:+0.160 "
    "2-2:+0.160 15-0:+0.157 15-7:+0.157 11-0:-0.156 2-4:+0.154 12-3:-0.154 8-8:-0.152 "
    "14-5:-0.148 18-6:+0.146 20-3:-0.133 13-0:-0.129 14-1:-0.126 0-4:-0.124 17-8:-0.121 "
    "6-5:-0.118 16-5:-0.117 2-6:-0.114 18-3:+0.110 0-6:-0.110 0-3:+0.108 14-3:+0.107 "
    "20-7:-0.103 13-2:-0.102 15-1:+0.101 17-0:+0.101 5-0:-0.100 21-4:+0.096 21-2:-0.096 "
    "16-7:-0.094 17-2:-0.093 17-1:-0.092 0-5:-0.091 1-3:-0.089 14-0:+0.086 12-5:+0.086 "
    "0-1:+0.085 18-5:+0.081 13-5:+0.081 0-7:-0.080 20-4:-0.079 15-5:+0.077 12-6:-0.076 "
    "9-2:+0.073 15-8:-0.071 15-4:-0.069 11-1:+0.067 16-3:+0.066 11-5:-0.061 19-0:+0.060 "
    "14-2:+0.059"
)
_SMOLLM2_SOURCE = (
    "SmolLM2-135M: 64 head weights learned on half of scifact and on label-free queries, "
    "docs/study.md"
)


#: Of several for one way of scoring, the first has the framework that ``framework="auto"`` takes.
HEAD_PRESETS: dict[Shape, tuple[HeadPreset, ...]] = {
    _shape("llama", 30, 576, 9): (
        HeadPreset(
            "HuggingFaceTB/SmolLM2-135M-Instruct",
            "attention",
            "pointwise",
            _SMOLLM2,
            _SMOLLM2_SOURCE,
            first_stage_weight=0.3,
        ),
        HeadPreset(
            "HuggingFaceTB/SmolLM2-135M-Instruct",
            "mixed",
            "pointwise",
            _SMOLLM2,
            _SMOLLM2_SOURCE,
            likelihood_weight=1.0,
            first_stage_weight=0.3,
        ),
        HeadPreset(
            "HuggingFaceTB/SmolLM2-135M-Instruct",
            "attention",
            "listwise",
            _SMOLLM2_SHARED,
            _SMOLLM2_SOURCE,
            first_stage_weight=0.3,
            document_states="independent",
        ),
        HeadPreset(
            "HuggingFaceTB/SmolLM2-135M-Instruct",
            "attention",
            "listwise",
            _SMOLLM2_BLIND,
            _SMOLLM2_SOURCE,
            first_stage_weight=0.3,
            document_states="blind",
        ),
    ),
    _shape("qwen3", 36, 2560, 32): _published(
        "Qwen/Qwen3-4B-Instruct-2507",
        "20-15 21-11 17-27 23-10 22-4 21-10 21-8 21-18 18-15 18-19 17-25 17-17 24-13 17-4 19-12 "
        "21-31",
        "Qwen3-4B-Instruct-2507: retrieval heads published by QRHead, arXiv 2506.09944",
    ),
    _shape("llama", 32, 4096, 32): _published(
        "meta-llama/Llama-3.1-8B-Instruct",
        "13-18 13-1 14-13 13-21 14-31 13-13 8-11 14-20",
        "Llama-3.1-8B: 8 heads published by CoRe, arXiv 2510.02219",
    ),
    _shape("mistral", 32, 4096, 32): _published(
        "mistralai/Mistral-7B-Instruct-v0.2",
        "15-21 15-1 16-12 15-7 9-26 12-11 12-7 18-0",
        "Mistral-7B-v0.2: 8 heads published by CoRe, arXiv 2510.02219",
    ),
}


def preset_profile(
    config: Any, scoring: str, framework: str, document_states: str = "joint"
) -> Profile | None:
    """The profile that ships for a model of this shape and this way of scoring, if one does.

    Args:
        config: a transformers text configuration of the whole model.
        framework: "auto": the one that serves this model best.
        document_states: "joint", "independent" or "blind".
    """
    shape = Shape.of(config)
    for preset in HEAD_PRESETS.get(shape, ()):
        profile = preset.profile(shape)
        if preset.scoring == scoring and profile.serves(framework, document_states):
            return profile
    return None


def auto_layers(config: Any, readable: Sequence[int] = ()) -> tuple[list[int], str]:
    """The layers for ``layers="auto"``, ascending, and the reason for the choice.

    Args:
        config: a transformers text configuration of the whole model, not of a truncated one.
        readable: layers that have attention; empty: all.
    """
    preset = LAYER_PRESETS.get(Shape.of(config))
    if preset is not None:
        return list(range(preset.first, preset.last + 1)), preset.source
    count = config.num_hidden_layers
    kinds = getattr(config, "layer_types", None) or []
    if len(set(kinds)) > 1:
        # Layers that see a sliding window only cannot see documents beyond it.
        middle = range(count // 4, count - count // 4)
        full = [layer for layer in middle if kinds[layer] == "full_attention"]
        if full:
            return full, "no preset for this model: the full-attention layers in the middle half"
    layers = list(readable) or list(range(count))
    width = min(WINDOW_WIDTH, len(layers))
    first = (len(layers) - width) // 2
    among = f"{count}" if len(layers) == count else f"its {len(layers)} with attention"
    chosen = layers[first : first + width]
    return chosen, f"no preset for this model: the middle {width} of {among}"
