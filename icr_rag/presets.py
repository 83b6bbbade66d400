"""Layer windows for known models, each with its source.

A model is known by the shape in its configuration, so that a local folder, a mirror or a
quantised copy finds the same preset as the hub name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: Width of a window where nothing better is known (Selective-ICR, arXiv 2602.22591).
WINDOW_WIDTH = 4


@dataclass(frozen=True)
class Shape:
    """What tells models apart in their configuration."""

    model_type: str
    num_hidden_layers: int
    hidden_size: int
    num_attention_heads: int


@dataclass(frozen=True)
class LayerPreset:
    """A window of layers, 0-indexed and inclusive, and where it comes from."""

    first: int
    last: int
    source: str


LAYER_PRESETS: dict[Shape, LayerPreset] = {
    Shape("llama", 30, 576, 9): LayerPreset(
        18, 18, "SmolLM2-135M: best single layer in benchmarks/windows.py, see docs/log.md"
    ),
    Shape("qwen3", 28, 1024, 16): LayerPreset(
        10, 13, "Qwen3-0.6B: window used by the authors of Selective-ICR, arXiv 2602.22591"
    ),
    Shape("qwen3", 36, 4096, 32): LayerPreset(
        18, 21, "Qwen3-8B: window used by the authors of Selective-ICR, arXiv 2602.22591"
    ),
}


def shape_of(config: Any) -> Shape:
    """The shape of a transformers text configuration."""
    return Shape(
        config.model_type, config.num_hidden_layers, config.hidden_size, config.num_attention_heads
    )


def auto_layers(config: Any) -> tuple[list[int], str]:
    """The layers for ``layers="auto"``, ascending, and the reason for the choice.

    Args:
        config: a transformers text configuration of the whole model, not of a truncated one.
    """
    preset = LAYER_PRESETS.get(shape_of(config))
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
    width = min(WINDOW_WIDTH, count)
    first = (count - width) // 2
    layers = list(range(first, first + width))
    return layers, f"no preset for this model: the middle {width} of {count}"
