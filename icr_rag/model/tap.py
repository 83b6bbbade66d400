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

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch

from icr_rag.errors import UnsupportedModelError
from icr_rag.model._transformers import (
    FLASH_ATTENTION,
    attention_function,
    eager_attention,
    flash_attention,
    mask_function,
    register_attention,
)
from icr_rag.model.masks import selected_alone, visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from icr_rag.model.reading import AttentionSettings, Reader

TAP_NAME = "icr_rag"

#: Rows that share one range of visible keys in the CPU kernel.
_ROW_BLOCK = 768


class Witness(Protocol):
    """Sees every layer's attention: what went in and what came out."""

    def __call__(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        settings: AttentionSettings,
        output: torch.Tensor,
    ) -> None:
        """As the tap has them; ``output`` is [batch, row, head, dimension]."""


class Insertion(Protocol):
    """Keys that the reader sees between the prefix and the tails, and the layers do not."""

    def inserted(
        self,
        current: Pass,
        layer: int,
        key: torch.Tensor,
        mask: torch.Tensor,
        settings: AttentionSettings,
    ) -> tuple[Pass, torch.Tensor, torch.Tensor]:
        """Pass, keys and mask as a reader is to see them; arguments as `Reader.read` has them."""


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
        own_rows: per prompt, its own in their place, where tails of different prompts share these
            columns and have different lengths; empty: ``rows`` are all prompts'. What stands
            behind a prompt's tail is padding, which no row of it sees.
    """

    start: int
    length: int
    rows: slice
    own_rows: Sequence[slice] = ()

    def rows_of(self, prompt: int) -> slice:
        """The rows to read of one prompt, among the tokens of the pass."""
        rows = self.own_rows[prompt] if self.own_rows else self.rows
        return slice(self.start + rows.start, self.start + rows.stop)


@dataclass
class Pass:
    """What one forward pass computes.

    The tokens of the pass are a *stem* (possibly empty), which all tails see, and the tails. A
    batch holds several prompts whose stems differ; shorter ones are padded on the left.

    Attributes:
        kernel: the attention implementation underneath ("sdpa", "eager", "flash_attention_2").
        last_layer: the pass ends in this layer; None: it runs to the model's end.
        prefix_length: tokens already in the cache; used only with ``tails``.
        stem_length: tokens of the stem, padding included.
        padding: per prompt, how many of the stem's first tokens are padding; empty: none.
        padding_start: where padding begins, if not with the stem: in the cache.
        places: of the tokens in the cache, where they count as standing, for sliding windows;
            None: where they stand. Documents side by side all stand right behind the head.
        start: where the stem counts as beginning; None: right behind the cache.
        tails: none while the prefix is run; else the tails packed into this pass.
        reader: reads attention in the layers that it asks for; None: nothing is read.
        insertion: keys that the reader sees and the layers do not; None: none.
        adds_masks: no layer attends by the tap; they add the mask to their logits.
        witness: sees what every layer was given and what it made of it; None: nobody.
        expected: layers whose attention must come by; `run_pass` checks that it did.
        seen: layers whose attention came by so far.
        blocks: see `_visible_blocks`.
    """

    kernel: str
    last_layer: int | None
    prefix_length: int = 0
    stem_length: int = 0
    padding: Sequence[int] = ()
    padding_start: int | None = None
    places: Sequence[int] | None = None
    start: int | None = None
    tails: Sequence[PackedTail] = ()
    reader: Reader | None = None
    insertion: Insertion | None = None
    witness: Witness | None = None
    adds_masks: bool = False
    expected: frozenset[int] = frozenset()
    seen: set[int] = field(default_factory=set)
    blocks: dict[int, tuple[torch.Tensor, list[Block]]] = field(default_factory=dict)

    @property
    def packed(self) -> bool:
        """Whether causality alone does not say who sees whom."""
        return bool(self.tails) or self.stem_length > 0

    @property
    def wants_mask(self) -> bool:
        """Whether somebody looks at who sees whom, though causality alone says it."""
        return self.reader is not None or self.witness is not None


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
    """True while something is read, False while a prefix is run."""
    current = _current.get()
    return current is not None and current.reader is not None


def register() -> None:
    """Make the tap known to transformers under `TAP_NAME`. Harmless when repeated."""
    register_attention(TAP_NAME, _attention, _mask)


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
    layer = _layer_number(module)
    if layer is None:
        # Attention over something else than the text's tokens; it is run and not read.
        return _kernel(current)(module, query, key, value, attention_mask, **kwargs)
    current.seen.add(layer)
    reader = current.reader
    reads = reader is not None and reader.wants(layer)
    if attention_mask is None and (reads or current.packed):
        # Who sees whom is in the mask alone; without it every token would see all before it.
        raise UnsupportedModelError(
            f"layer {layer} of {type(module).__name__} was given no attention mask; models "
            "that build their own masks cannot be read"
        )
    if attention_mask is not None and attention_mask.dtype != torch.bool:
        attention_mask = visible(module, attention_mask)
    attention_mask = selected_alone(module, attention_mask, kwargs, key.shape[2])
    if reader is not None and reads and attention_mask is not None:
        shown = current, key, attention_mask
        if current.insertion is not None:
            shown = current.insertion.inserted(current, layer, key, attention_mask, kwargs)
        reader.read(shown[0], layer, query, shown[1], shown[2], kwargs)
    if layer == current.last_layer:
        raise PassComplete
    output, weights = _kernel(current)(module, query, key, value, attention_mask, **kwargs)
    if current.witness is not None:
        current.witness(layer, query, key, value, attention_mask, kwargs, output)
    return output, weights


def _layer_number(module: torch.nn.Module) -> int | None:
    number = getattr(module, "layer_idx", None)
    # Modules that several layers share say -1.
    return number if isinstance(number, int) and number >= 0 else None


def _kernel(current: Pass) -> Callable[..., tuple[torch.Tensor, torch.Tensor | None]]:
    # Flash attention takes no mask, and what is packed or read has one. Those are few rows.
    masked = current.packed or current.wants_mask
    name = "sdpa" if masked and current.kernel != "eager" else current.kernel
    return {"eager": _eager, FLASH_ATTENTION: flash_attention}.get(name, _sdpa)


def _sdpa(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    # torch's kernel knows neither soft-capped logits (Gemma 2) nor learned sinks (gpt-oss).
    if kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        return _eager(module, query, key, value, attention_mask, **kwargs)
    if attention_mask is None or query.device.type != "cpu":
        return attention_function("sdpa")(module, query, key, value, attention_mask, **kwargs)
    if query.shape[0] > 1 or query.shape[2] <= _ROW_BLOCK:
        return _cpu_sdpa(query, key, value, attention_mask, kwargs), None
    # With a mask the CPU kernel computes every logit and then hides some. Keys that no row of a
    # block sees (the future; what a sliding window has left behind) are cut away first.
    output_rows = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
    for rows, keys, part in _visible_blocks(attention_mask):
        output_rows[:, rows] = _cpu_sdpa(
            query[:, :, rows], key[:, :, keys], value[:, :, keys], part, kwargs
        )
    return output_rows, None


def _cpu_sdpa(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    settings: AttentionSettings,
) -> torch.Tensor:
    """[batch, row, head, dimension].

    transformers repeats keys and values for every head where there is a mask, which costs more
    than the attention of a few rows.
    """
    return torch.nn.functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        scale=settings.get("scaling"),
        enable_gqa=query.shape[1] != key.shape[1],
    ).transpose(1, 2)


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
    eager = eager_attention(module)
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
    return eager(module, query, key, value, additive, **kwargs)


def _mask(*args: Any, **kwargs: Any) -> Any:
    """The registered mask function: what transformers would build for the kernel underneath.

    Packed tails are told apart here: each sees the prefix, the stem and itself, and every
    distance (for sliding windows) is counted as if it followed the stem directly.
    """
    current = _current.get()
    if current is not None and current.adds_masks:
        name = "eager"
    elif current is not None and current.packed:
        device = kwargs.get("device", "cpu")
        kwargs["mask_function"] = _packed(kwargs["mask_function"], current, device)
        kwargs["allow_is_causal_skip"] = False
        name = "sdpa"
    else:
        name = "sdpa" if current is None or current.kernel == "eager" else current.kernel
        if current is not None and current.wants_mask:
            kwargs["allow_is_causal_skip"] = False
            name = "sdpa"
    return mask_function(name)(*args, **kwargs)


def _packed(mask_function: Callable[..., Any], current: Pass, device: Any) -> Callable[..., Any]:
    before = current.prefix_length + current.stem_length
    total = before + sum(tail.length for tail in current.tails)
    position = torch.arange(total, device=device)
    owner = torch.full((total,), -1, device=device)  # -1: prefix and stem, which everyone sees
    for number, tail in enumerate(current.tails):
        begin = current.prefix_length + tail.start
        position[begin : begin + tail.length] += before - begin
        owner[begin : begin + tail.length] = number
    cached = current.prefix_length
    if current.start is not None:
        position[cached:] += current.start - cached
    if current.places is not None:
        position[:cached] = torch.tensor(current.places, device=device)
    padding = torch.tensor([*current.padding] or [0], device=device)[:, None]
    token_number = torch.arange(total, device=device)[None]
    begins = current.padding_start
    stem_begin = current.prefix_length if begins is None else begins
    padded = (token_number >= stem_begin) & (token_number < stem_begin + padding)
    # Distances (sliding windows) are counted as if there were no padding.
    positions = position[None] - torch.where(token_number < stem_begin, 0, padding)

    def inner(batch: Any, head: Any, row: Any, token: Any) -> Any:
        which = batch if current.padding else 0
        sees = mask_function(batch, head, positions[which, row], positions[which, token])
        sees = sees & ((owner[token] < 0) | (owner[token] == owner[row]))
        # Padding sees itself: a row that sees nothing would be NaN, and NaN spreads.
        return (sees & ~padded[which, token]) | (row == token)

    return inner
