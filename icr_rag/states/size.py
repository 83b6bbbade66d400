"""How large kept states are, from a model's configuration alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from icr_rag.config import RerankerConfig

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


_BYTES = {"float16": 2, "bfloat16": 2, "int8": 1}


def bytes_per_token(
    config: RerankerConfig,
    text_config: PreTrainedConfig,
    heads: Mapping[int, Sequence[int] | None],
    item_bytes: int,
) -> float:
    """Bytes that a token's states take up in memory.

    Args:
        config: document_states, scoring, states_dtype; "joint" counts as "independent".
        text_config: transformers configuration of the whole model.
        heads: layer -> heads that are read, None for all of that layer.
        item_bytes: of one number of the model's type.

    Scales of 8-bit keys, one per document and channel, are left out.
    """
    attention_heads: int = text_config.num_attention_heads
    groups: int = getattr(text_config, "num_key_value_heads", None) or attention_heads
    size: int = getattr(text_config, "head_dim", None) or (
        text_config.hidden_size // attention_heads
    )
    per_number = _BYTES.get(config.states_dtype, item_bytes)
    # 8-bit values have one scale per head and token.
    key, value = size * per_number, size * per_number + 4 * (config.states_dtype == "int8")
    if config.document_states == "blind":
        shared = attention_heads // groups
        kept = (
            groups if chosen is None else len({head // shared for head in chosen})
            for chosen in heads.values()
        )
        return float(key * sum(kept))
    if config.method.needs_lm_head:
        return float(groups * text_config.num_hidden_layers * (key + value))
    last = max(heads)
    return float(groups * ((last + 1) * key + last * value))
