"""Tails that cannot share a pass: each is run by itself, and read as if they had been packed.

Layers that keep a recurrent state cannot hide one tail from the next. Every tail then follows a
copy of the prefix's states, or, where states cannot be continued, the prefix itself run again. What
attention was given is collected, put side by side, and read by the reader that packed tails have.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from icr_rag.model import tap
from icr_rag.model.anatomy import Anatomy
from icr_rag.model.kv_cache import make_mixed_states
from icr_rag.model.passes import run_pass
from icr_rag.prompts.layout import Tail

if TYPE_CHECKING:
    from icr_rag.model.reading import AttentionSettings, Reader


@dataclass
class _Collected:
    """What one tail's pass gave a layer: queries and keys of the tail, keys before it."""

    query: torch.Tensor
    key: torch.Tensor
    before: torch.Tensor
    mask: torch.Tensor
    settings: AttentionSettings


@dataclass
class _Collector:
    """A reader that keeps what it is given.

    Attributes:
        reader: for which.
        start: where the tail begins on the axis of keys.
        first_row: where it begins among the rows of the pass.
    """

    reader: Reader
    start: int
    first_row: int
    layers: dict[int, _Collected] = field(default_factory=dict)

    def wants(self, layer: int) -> bool:
        return self.reader.wants(layer)

    def read(
        self,
        current: tap.Pass,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        mask: torch.Tensor,
        settings: AttentionSettings,
    ) -> None:
        self.layers[layer] = _Collected(
            query[:, :, self.first_row :].clone(),
            key[:, :, self.start :].clone(),
            key[:, :, : self.start].clone(),
            mask[:1, :1, self.first_row :].clone(),
            settings,
        )


def follow(
    view: nn.Module,
    anatomy: Anatomy,
    kernel: str,
    last: int | None,
    prefix_ids: Sequence[int],
    tails: Sequence[Tail],
    reader: Reader | None,
    *,
    chunk: int,
    device: torch.device,
    config: Any,
    logits: bool = False,
) -> torch.Tensor | None:
    """Run a prefix and each tail behind it.

    Args:
        view: of the decoder, or with ``logits`` of the causal LM.
        anatomy: its ``way`` is "copied" or "whole".
        last: the layer in which passes end; None: they run to the model's end.
        prefix_ids: at least one token.
        tails: may be empty with ``logits``. Tokens behind a tail's last row are run with
            ``logits`` only.
        reader: reads all tails together; None: nothing is read.
        config: of the text decoder.

    Returns:
        With ``logits`` [1, 1 + tail tokens, vocabulary]: of the prefix's last token and of all
        tails' tokens, side by side.
    """
    runs = [list(t.token_ids if logits else t.token_ids[: t.rows.stop]) for t in tails]
    room = len(prefix_ids) + max(map(len, runs), default=0)
    expected = anatomy.expected(last)

    def call(ids: Sequence[int], start: int, cache: Any, read: Reader | None) -> Any:
        current = tap.Pass(kernel, last, reader=read, adds_masks=anatomy.own_attention,
                           expected=expected)  # fmt: skip
        where = range(start, start + len(ids))
        return run_pass(view, current, [ids], [where], cache, device)

    rows: list[torch.Tensor] = []
    collected: list[_Collector] = []
    whole = anatomy.way == "whole"
    cache = None
    if not whole:
        cache = make_mixed_states(room, config)
        for begin in range(0, len(prefix_ids), chunk):
            output = call(prefix_ids[begin : begin + chunk], begin, cache, None)
        if logits:
            rows.append(output.logits[:, -1:])
    elif logits and not runs:
        output = call(prefix_ids, 0, make_mixed_states(room, config), None)
        rows.append(output.logits[:, -1:])
    for number, run in enumerate(runs):
        before = len(prefix_ids)
        found = None if reader is None else _Collector(reader, before, before if whole else 0)
        if whole:
            output = call([*prefix_ids, *run], 0, make_mixed_states(room, config), found)
        else:
            output = call(run, before, copy.deepcopy(cache), found)
        if logits:
            own = output.logits[:, -len(run) - 1 :] if whole else output.logits
            # The prefix's last token is the same for all.
            rows.append(own[:, 1:] if whole and number else own)
        if found is not None:
            collected.append(found)
    if reader is not None:
        _read_together(collected, tails, runs, reader, kernel, last, len(prefix_ids))
    return torch.cat(rows, dim=1) if logits else None


def _read_together(
    collected: Sequence[_Collector],
    tails: Sequence[Tail],
    runs: Sequence[Sequence[int]],
    reader: Reader,
    kernel: str,
    last: int | None,
    before: int,
) -> None:
    """Hand the layers to the reader as one packed pass over the prefix would have."""
    packed, place = [], 0
    for tail, run in zip(tails, runs, strict=True):
        packed.append(tap.PackedTail(place, len(run), tail.rows))
        place += len(run)
    current = tap.Pass(kernel, last, prefix_length=before, tails=packed, reader=reader)
    for layer in sorted(collected[0].layers):
        parts = [one.layers[layer] for one in collected]
        mask = torch.zeros(
            1, 1, place, before + place, dtype=torch.bool, device=parts[0].key.device
        )
        for part, at in zip(parts, packed, strict=True):
            own = slice(at.start, at.start + at.length)
            mask[:, :, own, :before] = part.mask[..., :before]
            columns = slice(before + at.start, before + at.start + at.length)
            mask[:, :, own, columns] = part.mask[..., before:]
        query = torch.cat([part.query for part in parts], dim=2)
        key = torch.cat([parts[0].before, *(part.key for part in parts)], dim=2)
        reader.read(current, layer, query, key, mask, parts[0].settings)
