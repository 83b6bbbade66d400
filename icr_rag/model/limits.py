"""How many tokens a prompt may have, by what a model's configuration says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def context_length(text_config: PreTrainedConfig) -> int | None:
    """Tokens of a prompt within which positions mean the same however it is split.

    Models that stretch their positions for long inputs ("longrope", "dynamic") do so by the
    longest position of each pass: a document would be read differently beside a longer one. They
    are used up to the length from which on they stretch.

    Args:
        text_config: of the whole model.
    """
    limits = [getattr(text_config, "max_position_embeddings", None), stretched_beyond(text_config)]
    # Some say -1 for "none".
    known = [limit for limit in limits if isinstance(limit, int) and limit > 0]
    return min(known, default=None)


def reach(text_config: PreTrainedConfig, layers: Sequence[int]) -> int | None:
    """Tokens of a prompt that the query's rows see in at least one of these layers; None: all.

    Where every layer that is read has a sliding window, documents beyond it would score nothing.
    """
    windows = sliding_windows(text_config)
    read = [windows[layer] for layer in layers]
    if not read or any(window is None for window in read):
        return None
    return max(window for window in read if window is not None)


def sliding_windows(config: PreTrainedConfig) -> list[int | None]:
    """Per layer, how many tokens back it sees; None: all. Chunks count as windows. All of 5.x.

    Args:
        config: of the text decoder.
    """
    count: int = config.num_hidden_layers
    window, chunk = _number(config, "sliding_window"), _number(config, "attention_chunk_size")
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        return [window or chunk] * count
    sizes = {"sliding_attention": window, "hybrid_sliding": window, "chunked_attention": chunk}
    return [sizes.get(kind) for kind in kinds]


def stretched_beyond(config: PreTrainedConfig) -> int | None:
    """The number of tokens above which positions are scaled anew; None: they never are.

    "longrope" and "dynamic" rotary embeddings choose their factors by the longest position of a
    pass: beyond this number what a token is like would depend on how a prompt is split. All of
    5.x (``rope_parameters``; one per kind of layer in some models).
    """
    parameters = getattr(config, "rope_parameters", None)
    if not isinstance(parameters, Mapping):
        return None
    nested = [value for value in parameters.values() if isinstance(value, Mapping)]
    limits = []
    for one in nested or [parameters]:
        if one.get("rope_type") not in ("longrope", "dynamic"):
            continue
        original = one.get("original_max_position_embeddings")
        if original is None:
            original = getattr(config, "original_max_position_embeddings", None)
        if original is None:
            original = getattr(config, "max_position_embeddings", None)
        if original is not None:
            limits.append(int(original))
    return min(limits, default=None)


def _number(config: PreTrainedConfig, name: str) -> int | None:
    value = getattr(config, name, None)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
