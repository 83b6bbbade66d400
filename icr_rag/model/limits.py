"""How many tokens a prompt may have, by what a model's configuration says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from icr_rag.model._transformers import sliding_windows, stretched_beyond


def context_length(text_config: Any) -> int | None:
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


def reach(text_config: Any, layers: Sequence[int]) -> int | None:
    """Tokens of a prompt that the query's rows see in at least one of these layers; None: all.

    Where every layer that is read has a sliding window, documents beyond it would score nothing.
    """
    windows = sliding_windows(text_config)
    read = [windows[layer] for layer in layers]
    if not read or any(window is None for window in read):
        return None
    return max(window for window in read if window is not None)
