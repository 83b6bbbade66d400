"""The one seam to transformers: every name of it that is private, or that has changed, is here.

Each entry says which versions it holds for. What the installed version offers decides, never its
number. tests/test_transformers_seam.py asserts that each entry exists and behaves.

Imported only when a model is loaded, because it imports torch and transformers.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from icr_rag.errors import UnsupportedModelError

#: Names of the argument that earlier tokens' states are passed by: ``cache`` from 5.24,
#: ``past_key_values`` in all before it (from 5.24 it warns, and goes in 5.40).
CACHE_ARGUMENTS = ("cache", "past_key_values")


def cache_argument(model: nn.Module) -> str:
    """The name of the argument by which ``model`` takes earlier tokens' states.

    Raises:
        UnsupportedModelError: if its forward pass takes none.
    """
    return _cache_argument(type(model))


@functools.cache
def _cache_argument(kind: type[nn.Module]) -> str:
    names: Iterable[str] = inspect.signature(kind.forward).parameters
    for name in CACHE_ARGUMENTS:
        if name in names:
            return name
    raise UnsupportedModelError(
        f"{kind.__name__} keeps no keys and values of earlier tokens (its forward pass takes "
        f"neither {' nor '.join(CACHE_ARGUMENTS)}); a decoder-only LLM that does is needed"
    )


def with_cache(model: nn.Module, cache: Any) -> dict[str, Any]:
    """Keyword arguments that make ``model`` continue ``cache`` and add to it."""
    return {cache_argument(model): cache, "use_cache": True}


#: The name under which transformers registers flash attention (all 5.x).
FLASH_ATTENTION = "flash_attention_2"


class _Overlay:
    """An object as it is, except for the attributes given; the object itself is not changed."""

    def __init__(self, base: Any, **attributes: Any) -> None:
        self._base = base
        vars(self).update(attributes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._base, name)


def flash_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """transformers' flash attention for a module whose configuration names another attention.

    It looks its kernel up by ``module.config._attn_implementation`` (all 5.x), where our views
    hold the tap's name. It is shown the module with that one name replaced.

    Args:
        module: the attention module.
        query, key, value: [batch, head, token, dimension].
        attention_mask: bool [batch, token], False where a token is padding; None: no padding.
        kwargs: as the model passes them.

    Raises:
        UnsupportedModelError: for attention with learned sinks, which flash attention 2 does not
            know and transformers would leave out without a word.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if kwargs.get("s_aux") is not None:
        raise UnsupportedModelError(
            f"{type(module).__name__} has learned sinks, which attn_implementation="
            f"{FLASH_ATTENTION!r} does not know; use 'sdpa' or 'eager'"
        )
    # By positions that do not rise by one it would take a prompt for several packed ones.
    kwargs.pop("position_ids", None)
    config = _Overlay(module.config, _attn_implementation=FLASH_ATTENTION)
    result: tuple[torch.Tensor, torch.Tensor | None] = ALL_ATTENTION_FUNCTIONS[FLASH_ATTENTION](
        _Overlay(module, config=config), query, key, value, attention_mask, **kwargs
    )
    return result
