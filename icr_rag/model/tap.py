"""The attention tap: one function that reads attention in every transformers model.

transformers lets an attention function be registered by name. Ours computes the layer's output
with the fast kernel underneath and, for the layers asked for, computes once more the logits of
the *query rows* alone, in float32: (rows x keys), never tokens x tokens. It receives queries and
keys after normalisation and rotary embedding, so one function serves every architecture.

A `Pass` says what a forward pass is for. It travels in a context variable, so that passes in
different threads cannot meet, and a model called outside of a pass behaves as ever.

At the last layer of a pass nothing above the attention logits is needed: the tap raises
`PassComplete`, and the kernel, the output projection, the MLP and the final norm are not run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from icr_rag.errors import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

TAP_NAME = "icr_rag"

#: Largest block of attention logits held at once, in elements (float32: 128 MiB).
_MAX_LOGITS = 2**25

#: Rows that share one range of visible keys in the CPU kernel.
_ROW_BLOCK = 768


#: Rows, the keys that any of them sees, and that part of the mask.
Block = tuple[slice, slice, torch.Tensor]


class PassComplete(Exception):
    """Raised by the tap when the last layer that is read has been read."""


@dataclass(frozen=True)
class PackedTail:
    """One of several tails that share a prefix and are run in one sequence, side by side.

    Attributes:
        start: where the tail's tokens begin among the tokens of this pass.
        length: how many tokens it has.
        rows: the rows to read, half-open, relative to ``start``.
    """

    start: int
    length: int
    rows: slice


@dataclass
class Pass:
    """What one forward pass computes.

    Attributes:
        kernel: the attention implementation underneath ("sdpa", "eager", "flash_attention_2").
        last_layer: the pass ends in this layer.
        prefix_length: tokens already in the cache; used only with ``tails``.
        tails: none while the prefix is run; else the tails packed into this pass.
        heads: layer -> heads to read, None for all; layers that are absent are not read.
        sum_heads: keep only the sum over heads.
        readings: layer -> one float32 tensor per tail, [head, prefix + tail tokens], attention
            probability, mean over the tail's rows; [prefix + tail tokens] with ``sum_heads``.
        blocks: see `_visible_blocks`.
    """

    kernel: str
    last_layer: int
    prefix_length: int = 0
    tails: Sequence[PackedTail] = ()
    heads: dict[int, list[int] | None] = field(default_factory=dict)
    sum_heads: bool = False
    readings: dict[int, list[torch.Tensor]] = field(default_factory=dict)
    blocks: dict[int, tuple[torch.Tensor, list[Block]]] = field(default_factory=dict)


_current: ContextVar[Pass | None] = ContextVar("icr_rag_pass", default=None)


@contextmanager
def running(current: Pass) -> Iterator[Pass]:
    """Make ``current`` the pass that the tap serves inside the block."""
    token = _current.set(current)
    try:
        yield current
    finally:
        _current.reset(token)


def is_reading() -> bool:
    """True while tails are run, False while a prefix is."""
    current = _current.get()
    return current is not None and bool(current.tails)


def register() -> None:
    """Make the tap known to transformers under `TAP_NAME`. Harmless when repeated."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(TAP_NAME, _attention)
    # Without a mask function of the same name transformers passes no mask at all, and every
    # token would see the future.
    AttentionMaskInterface.register(TAP_NAME, _mask)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The registered attention function.

    Args:
        module: the attention module; ``layer_idx`` says which.
        query: [batch, head, row, dimension].
        key, value: [batch, key/value head, token, dimension], earlier tokens included.
        attention_mask: bool [batch, 1, row, token], True where a row sees a token; None: causal.
    """
    current = _current.get()
    if current is None:
        raise UnsupportedModelError(
            f"attention implementation {TAP_NAME!r} works only inside a Reranker; set the model's "
            "attn_implementation to 'sdpa' to call it yourself"
        )
    layer: int = module.layer_idx  # type: ignore[assignment]
    if current.tails and layer in current.heads:
        if attention_mask is None:
            raise UnsupportedModelError(
                f"layer {layer} of {type(module).__name__} was given no attention mask; models "
                "that build their own masks cannot be read"
            )
        current.readings[layer] = _read(current, layer, query[0], key[0], attention_mask, kwargs)
    if layer == current.last_layer:
        raise PassComplete
    return _kernel(current)(module, query, key, value, attention_mask, **kwargs)


def _kernel(current: Pass) -> Callable[..., tuple[torch.Tensor, torch.Tensor | None]]:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    # Flash attention takes no mask, and packed tails need one. They are few rows.
    name = "sdpa" if current.tails and current.kernel != "eager" else current.kernel
    if name == "eager":
        return _eager
    return ALL_ATTENTION_FUNCTIONS[name] if name != "sdpa" else _sdpa


def _sdpa(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    # torch's kernel knows neither soft-capped logits (Gemma 2) nor learned sinks (gpt-oss).
    if kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        return _eager(module, query, key, value, attention_mask, **kwargs)
    kernel = ALL_ATTENTION_FUNCTIONS["sdpa"]
    if attention_mask is None or query.device.type != "cpu" or query.shape[2] <= _ROW_BLOCK:
        output: tuple[torch.Tensor, torch.Tensor | None] = kernel(
            module, query, key, value, attention_mask, **kwargs
        )
        return output
    # With a mask the CPU kernel computes every logit and then hides some. Keys that no row of a
    # block sees (the future; what a sliding window has left behind) are cut away first.
    grouped = query.shape[1] != key.shape[1]
    output_rows = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
    for rows, keys, part in _visible_blocks(attention_mask):
        output_rows[:, rows] = torch.nn.functional.scaled_dot_product_attention(
            query[:, :, rows],
            key[:, :, keys],
            value[:, :, keys],
            attn_mask=part,
            scale=kwargs.get("scaling"),
            enable_gqa=grouped,
        ).transpose(1, 2)
    return output_rows, None


def _visible_blocks(mask: torch.Tensor) -> list[Block]:
    """Blocks of rows, the range of keys that any row of each sees, and that part of the mask.

    All layers of one kind are given the same mask object, so the blocks are kept with the pass.
    """
    current = _current.get()
    blocks: dict[int, tuple[torch.Tensor, list[Block]]] = {} if current is None else current.blocks
    if id(mask) not in blocks:
        found = []
        for begin in range(0, mask.shape[2], _ROW_BLOCK):
            rows = slice(begin, begin + _ROW_BLOCK)
            seen = mask[0, 0, rows].any(dim=0).nonzero()
            keys = slice(int(seen[0]), int(seen[-1]) + 1)
            found.append((rows, keys, mask[:, :, rows, keys].contiguous()))
        # The mask is kept too, so that its id cannot be given to another one.
        blocks[id(mask)] = (mask, found)
    return blocks[id(mask)][1]


def _eager(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The model's own eager attention, given the additive mask that it expects."""
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    if eager is None:
        raise UnsupportedModelError(
            f"{type(module).__module__} has no eager attention, which its soft-capped logits or "
            "attn_implementation='eager' ask for"
        )
    rows, tokens = query.shape[2], key.shape[2]
    if attention_mask is None:
        attention_mask = torch.ones(
            (1, 1, rows, tokens), dtype=torch.bool, device=query.device
        ).tril(diagonal=tokens - rows)
    additive = torch.zeros(attention_mask.shape, dtype=query.dtype, device=query.device)
    additive.masked_fill_(~attention_mask, torch.finfo(query.dtype).min)
    output: tuple[torch.Tensor, torch.Tensor | None] = eager(
        module, query, key, value, additive, **kwargs
    )
    return output


def _mask(*args: Any, **kwargs: Any) -> Any:
    """The registered mask function: what transformers would build for the kernel underneath.

    Packed tails are told apart here: each sees the prefix and itself, and every distance (for
    sliding windows) is counted as if it followed the prefix directly.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    current = _current.get()
    if current is not None and current.tails:
        device = kwargs.get("device", "cpu")
        kwargs["mask_function"] = _packed(kwargs["mask_function"], current, device)
        kwargs["allow_is_causal_skip"] = False
        name = "sdpa"
    else:
        name = "sdpa" if current is None or current.kernel == "eager" else current.kernel
    return ALL_MASK_ATTENTION_FUNCTIONS[name](*args, **kwargs)


def _packed(mask_function: Callable[..., Any], current: Pass, device: Any) -> Callable[..., Any]:
    total = current.prefix_length + sum(tail.length for tail in current.tails)
    position = torch.arange(total, device=device)
    owner = torch.full((total,), -1, device=device)  # -1: the prefix, which everyone sees
    for number, tail in enumerate(current.tails):
        begin = current.prefix_length + tail.start
        position[begin : begin + tail.length] -= tail.start
        owner[begin : begin + tail.length] = number

    def inner(batch: Any, head: Any, row: Any, token: Any) -> Any:
        sees = mask_function(batch, head, position[row], position[token])
        return sees & ((owner[token] < 0) | (owner[token] == owner[row]))

    return inner


def _read(
    current: Pass,
    layer: int,
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor,
    settings: dict[str, Any],
) -> list[torch.Tensor]:
    """Attention probabilities of the query rows, one tensor per tail; see `Pass.readings`.

    Args:
        query: [head, row, dimension]; key: [key/value head, token, dimension].
        mask: bool [1, 1, row, token].
        settings: what the model passes to its attention function (scaling, softcap, ...).
    """
    head_count, key_head_count = query.shape[0], key.shape[0]
    chosen = current.heads[layer]
    group = head_count // key_head_count
    if chosen is None:
        # Heads of one group share their keys: put them side by side instead of repeating keys.
        grouped_keys = key.float()
    else:
        index = torch.tensor(chosen, device=query.device)
        query, group = query[index], 1
        grouped_keys = key[index // (head_count // key_head_count)].float()
    heads_read = query.shape[0]
    scaling = settings.get("scaling")
    if scaling is None:
        scaling = query.shape[-1] ** -0.5
    result = []
    for tail in current.tails:
        rows = range(tail.start + tail.rows.start, tail.start + tail.rows.stop)
        total = torch.zeros(heads_read, key.shape[1], device=query.device)
        block = max(1, _MAX_LOGITS // (heads_read * key.shape[1]))
        for begin in range(rows.start, rows.stop, block):
            part = slice(begin, min(begin + block, rows.stop))
            rows_in_part = part.stop - part.start
            packed = query[:, part].float().reshape(-1, group * rows_in_part, query.shape[-1])
            logits = (packed @ grouped_keys.transpose(1, 2)).mul_(scaling)
            logits = logits.view(heads_read, rows_in_part, -1)
            total += _probabilities(logits, mask[0, 0, part], settings, chosen).sum(dim=1)
        total /= len(rows)
        # A tail's own axis: the prefix, then its own tokens.
        own = current.prefix_length + tail.start
        total = torch.cat(
            (total[:, : current.prefix_length], total[:, own : own + tail.length]), dim=1
        )
        if current.sum_heads:
            result.append(total.sum(dim=0).cpu())
        elif chosen is None:
            result.append(total.cpu())
        else:
            full = torch.zeros(head_count, total.shape[1])
            full[chosen] = total.cpu()
            result.append(full)
    return result


def _probabilities(
    logits: torch.Tensor,
    mask: torch.Tensor,
    settings: dict[str, Any],
    chosen: list[int] | None,
) -> torch.Tensor:
    """Softmax of float32 logits [head, row, token] over the tokens that each row sees."""
    softcap = settings.get("softcap")
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    logits = logits.masked_fill_(~mask, float("-inf"))
    sinks = settings.get("s_aux")
    if sinks is None:
        return logits.softmax(dim=-1)
    # A learned sink (gpt-oss) takes part in the softmax and is then dropped.
    sinks = (sinks if chosen is None else sinks[chosen]).float().view(-1, 1, 1)
    with_sink = torch.cat((logits, sinks.expand(-1, logits.shape[1], 1)), dim=-1)
    return with_sink.softmax(dim=-1)[..., :-1]
