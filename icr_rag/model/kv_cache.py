"""Document states: keys and values of the prompt's tokens, in buffers of their final size.

transformers' dynamic cache grows by concatenation, which copies all states for every chunk and
leaves freed blocks of every size behind. Here the length is known beforehand.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from transformers.cache_utils import Cache, DynamicLayer

from icr_rag.model._transformers import empty_cache

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class _SizedLayer(DynamicLayer):
    """States of one layer, [batch, key/value head, token, dimension], for ``room`` tokens."""

    def __init__(self, room: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.room = room
        self.length = 0
        self._keys = self._values = torch.empty(0)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append states and return all there are so far, without copying them."""
        if not self.is_initialized:
            self._keys = self._buffer(key_states)
            self._values = self._buffer(value_states)
            self.is_initialized = True
        end = self.length + key_states.shape[-2]
        self._keys[..., self.length : end, :] = key_states
        if self._values.stride(-1):
            self._values[..., self.length : end, :] = value_states
        self.length = end
        return self.stored()

    def stored(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the tokens so far, without copying them."""
        return self._keys[..., : self.length, :], self._values[..., : self.length, :]

    def get_seq_length(self) -> int:
        """Tokens stored."""
        return self.length

    def _buffer(self, states: torch.Tensor) -> torch.Tensor:
        shape = (*states.shape[:-2], self.room, states.shape[-1])
        if states.stride(-1) == 0:
            # Values that nobody reads arrive as one zero, expanded; they stay one.
            return states.new_zeros(1).expand(shape)
        return states.new_empty(shape)


def make_states(tokens: int) -> Cache:
    """An empty cache for ``tokens`` tokens.

    It keeps every key of sliding-window layers too: a reading then covers all tokens, and the
    mask says which are seen.
    """
    return Cache(layer_class_to_replicate=partial(_SizedLayer, tokens))  # type: ignore[arg-type]


def make_mixed_states(tokens: int, config: PreTrainedConfig) -> Cache:
    """As `make_states`, for models with layers that keep more than keys and values.

    Args:
        config: of the text decoder.
    """
    return empty_cache(config, partial(_SizedLayer, tokens))


def stored_keys(cache: Cache, layer: int) -> torch.Tensor | None:
    """Keys that a cache holds of a layer, [batch, key/value head, token, dimension]; None: it
    holds none, because the layer shares another one's or has no attention."""
    if layer >= len(cache.layers):
        return None
    kept = cache.layers[layer]
    if isinstance(kept, _SizedLayer):
        return kept.stored()[0] if kept.length else None
    keys = getattr(kept, "keys", None)
    return keys if isinstance(keys, torch.Tensor) and keys.dim() == 4 else None


def stored_states(cache: Cache, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values that one of our caches holds of a layer, without copying them."""
    kept = cache.layers[layer]
    if not isinstance(kept, _SizedLayer):
        raise TypeError(f"layer {layer} is kept by {type(kept).__name__}, which is not ours")
    return kept.stored()


def repeat_states(states: Cache, count: int, tokens: int) -> Cache:
    """A cache for ``count`` prompts of ``tokens`` tokens that all begin with ``states``.

    Args:
        states: of one prompt; not changed.
        count: prompts in the batch.
        tokens: room for each, what is copied included.
    """
    result = make_states(tokens)
    for number, layer in enumerate(states.layers):
        if isinstance(layer, _SizedLayer) and layer.length:
            keys, values = layer.stored()
            result.update(keys.expand(count, -1, -1, -1), values.expand(count, -1, -1, -1), number)
    return result


#: Gives keys and values of one layer, [prompt, key/value head, token, dimension], with room for
#: the tokens that follow.
Gather = Callable[[int], tuple[torch.Tensor, torch.Tensor]]


class _GatheredLayer(_SizedLayer):
    """Puts its states together when its turn comes, for a cache that serves one pass.

    Two layers' states are never there at once, so that all can use one buffer.
    """

    def __init__(self, gather: Callable[[], tuple[torch.Tensor, torch.Tensor]], length: int):
        super().__init__(0)
        self._gather = gather
        self.length = length

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gather, append, and return all there is."""
        self._keys, self._values = self._gather()
        self.dtype, self.device = self._keys.dtype, self._keys.device
        self.is_initialized = True
        return super().update(key_states, value_states)


def gathered_states(gather: Gather, depth: int, length: int) -> Cache:
    """A cache for one pass over states that are gathered layer by layer.

    Args:
        gather: called once per layer, in the order in which they run.
        depth: layers.
        length: tokens that are there.
    """
    result = make_states(length)
    for number in range(depth):
        result.layers.append(_GatheredLayer(partial(gather, number), length))
    return result
