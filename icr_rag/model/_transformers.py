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
