"""Who sees whom, in the forms in which models say it: always a bool mask in the end.

A mask is [prompt, 1, row, token], True where a row sees a token.
"""

from __future__ import annotations

from typing import Any

import torch

from icr_rag.errors import UnsupportedModelError

#: Below this an additive mask hides a key.
_HIDES = -1e4


def visible(module: torch.nn.Module, mask: torch.Tensor) -> torch.Tensor:
    """An additive mask as who sees whom; models that select keys (sparse attention) make such.

    Raises:
        UnsupportedModelError: if it also weighs what it shows, as linear biases do.
    """
    shown = mask == 0
    if not bool((shown | (mask < _HIDES)).all()):
        raise UnsupportedModelError(
            f"{type(module).__name__} adds a bias to its attention (linear biases, relative "
            "positions); attention that depends on more than queries and keys cannot be read"
        )
    return shown


#: Tensors among an attention's settings that leave to the mask who sees whom: where tokens stand,
#: and sinks, which eager attention knows.
_HARMLESS = ("position_ids", "cache_position", "s_aux")


def selected_alone(
    module: torch.nn.Module, mask: torch.Tensor | None, settings: dict[str, Any], tokens: int
) -> torch.Tensor | None:
    """The mask, narrowed to the keys that a layer has selected for each row (sparse attention).

    Below as many tokens as are selected all are, so that trying a model on a few would not show
    that a selection is lost.

    Args:
        settings: what the layer hands to its attention; "indices" [prompt, row, selected] is taken
            out.
        tokens: keys there are.

    Raises:
        UnsupportedModelError: if it hands over something else that may decide who sees whom.
    """
    indices = settings.pop("indices", None)
    for name, value in settings.items():
        if isinstance(value, torch.Tensor) and name not in _HARMLESS:
            raise UnsupportedModelError(
                f"{type(module).__name__} hands {name!r} to its attention; attention that depends "
                "on more than queries, keys and the keys that are seen cannot be read"
            )
    if indices is None:
        return mask
    if mask is None:
        raise UnsupportedModelError(
            f"{type(module).__name__} selects keys for its attention but has no attention mask"
        )
    selected = mask.new_zeros((*indices.shape[:2], tokens), dtype=torch.bool)
    return mask & selected.scatter(-1, indices.long(), True)[:, None]
