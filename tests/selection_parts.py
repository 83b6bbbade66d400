"""Models and profiles of which layers and heads are chosen."""

from __future__ import annotations

import transformers
from tiny import tiny_model

from icr_rag import RerankerConfig
from icr_rag.profiles import HeadWeight, Profile, Shape, shipped
from icr_rag.scoring.selection import select_heads

TINY = tiny_model("llama").config
#: What ships, by shape: heads in the order in which they are looked up, and windows of layers.
HEADS: dict[Shape, list[Profile]] = {}
for item in shipped.shipped_profiles():
    if item.heads:
        HEADS.setdefault(item.shape, []).append(item)
LAYERS = {item.shape: item for item in shipped.shipped_profiles() if item.layers}
CLASSES = {
    "llama": "LlamaConfig", "qwen2": "Qwen2Config", "qwen3": "Qwen3Config",
    "mistral": "MistralConfig",
}  # fmt: skip


def known(model_type, **others):
    """A configuration of the shape that a preset knows, without weights."""
    shape = next(shape for shape in HEADS if shape.model_type == model_type)
    return getattr(transformers, CLASSES[model_type])(
        num_hidden_layers=shape.num_hidden_layers,
        hidden_size=shape.hidden_size,
        num_attention_heads=shape.num_attention_heads,
        **others,
    )


SMOLLM2 = known("llama")
QWEN3 = known("qwen3")


def select(text_config=TINY, **settings):
    return select_heads(RerankerConfig(**settings), text_config)


def make_profile(**changes):
    values = {
        "model": "somebody/tiny",
        "shape": Shape.of(TINY),
        "heads": (HeadWeight(layer=3, head=2, weight=-0.5), HeadWeight(layer=1, head=0)),
    }
    return Profile(**{**values, **changes})
