"""Put kept states together for one pass.

Two ways:

- `gather_batch`: one prompt per document, head + document, for a batch of short tails;
- `gather_list`: one prompt with all documents side by side, for a tail that sees all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers.cache_utils import Cache

from icr_rag.model.kv_cache import gathered_states, stored_states
from icr_rag.states.store import StoredStates


def gather_batch(
    head: Cache, documents: Sequence[StoredStates], room: int, in_one_buffer: bool
) -> tuple[Cache, list[int]]:
    """A cache for one pass, with one prompt per document: head, padding, document; ends stand in
    one column.

    Args:
        head: the head's states.
        documents: each of at least one token.
        room: tokens that will follow.
        in_one_buffer: as `DocumentStates` has it.

    Returns:
        The cache, and per prompt how many columns of padding there are behind the head.
    """
    width = max(states.tokens for states in documents)
    padding = [width - states.tokens for states in documents]

    def place(buffer: torch.Tensor, before: int, parts: Sequence[torch.Tensor]) -> None:
        for number, (part, pad) in enumerate(zip(parts, padding, strict=True)):
            buffer[number, :, before + pad : before + width] = part

    shape = len(documents), width
    return _gathered(head, documents, shape, room, place, in_one_buffer), padding


def gather_list(
    head: Cache, documents: Sequence[StoredStates], room: int, in_one_buffer: bool
) -> Cache:
    """A cache for one pass, with one prompt: head, then all documents side by side, then
    ``room``."""
    total = sum(states.tokens for states in documents)

    def place(buffer: torch.Tensor, before: int, parts: Sequence[torch.Tensor]) -> None:
        torch.cat(list(parts), dim=1, out=buffer[0, :, before : before + total])

    return _gathered(head, documents, (1, total), room, place, in_one_buffer)


def _gathered(
    head: Cache,
    documents: Sequence[StoredStates],
    shape: tuple[int, int],
    room: int,
    place: Callable[[torch.Tensor, int, Sequence[torch.Tensor]], None],
    in_one_buffer: bool,
) -> Cache:
    """A cache of (prompts, tokens): the head, then what ``place`` puts behind it.

    A layer's states are put together when it runs, where all share a buffer over those of the
    layer before.
    """
    prompts, tokens = shape
    before = head.get_seq_length()
    buffers: dict[tuple[str, int, int, int], torch.Tensor] = {}

    def fill(
        kind: str, layer: int, own: torch.Tensor | None, parts: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        groups, _, dimension = parts[0].shape
        key = kind, groups, dimension, 0 if in_one_buffer else layer
        if key not in buffers:
            # Zeros, for padding that is masked out must still be a number.
            size = (prompts, groups, before + tokens + room, dimension)
            buffers[key] = parts[0].new_zeros(size)
        if own is not None:
            buffers[key][:, :, :before] = own
        place(buffers[key], before, parts)
        return buffers[key]

    def gather(layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        own_keys, own_values = _layer(head, layer)
        keys = fill("keys", layer, own_keys, [states.keys[layer] for states in documents])
        if layer < len(documents[0].values):
            return keys, fill("values", layer, own_values, [s.values[layer] for s in documents])
        return keys, keys.new_zeros(1).expand(keys.shape)

    return gathered_states(gather, len(documents[0].keys), before + tokens)


def _layer(states: Cache, number: int) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Keys and values of one layer of the head; (None, None) for an empty head."""
    if number >= len(states.layers):
        return None, None
    return stored_states(states, number)
