"""A model proves itself before anything is ranked with it.

A sentence of random tokens goes through the model as its authors wrote it, and through everything
that is done to it here: the tap, chunks, packed tails, padding, the cut above the last layer. What
comes out must be the same, and what is read as attention must be the attention that the layer
applied: probabilities times values are its output. A model that differs, in whatever way, is
refused. It costs a few passes of some thirty tokens, once per model.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn

from icr_rag.errors import ICRError, UnsupportedModelError
from icr_rag.model import tap
from icr_rag.model._transformers import (
    cache_argument,
    check_attends,
    implementation,
    keeps_only_keys_and_values,
)
from icr_rag.model.anatomy import Anatomy, Way
from icr_rag.model.forward import run_tails
from icr_rag.model.kv_cache import make_mixed_states, make_states, stored_keys
from icr_rag.model.passes import input_device, run_pass
from icr_rag.model.reading import AttentionSettings, TokenReader, attention_rows
from icr_rag.model.view import config_of, find_decoder, make_causal_view, make_view, twin_of_depth
from icr_rag.prompts.layout import Tail

Ids = Sequence[int]

_PREFIX, _SHORT, _TAILS = 23, 14, (5, 4)
#: Tokens of the prefix run at once; it does not divide the prefix.
_CHUNK = 9
#: Largest relative difference of a row that arithmetic explains in float32; in coarser formats,
#: where a router may turn on a rounding, of the median row.
_EXACT, _COARSE = 2e-3, 0.2


def prove(model: nn.Module, depth: int, kernel: str, *, whole: bool) -> Anatomy:
    """Run ``model`` in both ways and compare.

    Args:
        model: a decoder, or with ``whole`` a causal LM around one; not changed.
        depth: layers that will be run.
        kernel: attention implementation underneath the tap.
        whole: the LM head is used too.

    Raises:
        UnsupportedModelError: if the two differ; says in what.
    """
    try:
        return _Trial(model, depth, kernel, whole).anatomy()
    except (ICRError, torch.OutOfMemoryError):
        raise
    # Models may do anything: whatever goes wrong here would go wrong in ranking.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot be ranked with: run as a re-ranker its forward pass "
            f"fails with {type(error).__name__}: {reason}"
        ) from error


class _Differs(Exception):
    """What came out is not what the model gives by itself."""


@dataclass
class _Reads:
    """A witness: what is read of every layer must be what the layer did."""

    exact: bool
    probabilities: dict[int, torch.Tensor] = field(default_factory=dict)
    keys: dict[int, torch.Tensor] = field(default_factory=dict)

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
        """See `icr_rag.model.tap.Witness`."""
        self.keys[layer] = key
        if mask is None:
            return
        for prompt in range(query.shape[0]):
            seen = mask[prompt % len(mask), 0]
            rows = attention_rows(query[prompt], key[prompt], seen, settings)
            group = query.shape[1] // value.shape[1]
            values = value[prompt].float().repeat_interleave(group, dim=0)
            made = (rows @ values).transpose(0, 1)
            if not _same(made.flatten(1), output[prompt].float().flatten(1), self.exact):
                raise _Differs(
                    f"layer {layer} attends in another way than its queries and keys say "
                    "(biases, relative positions, or another softmax)"
                )
            self.probabilities[layer] = rows


class _Trial:
    def __init__(self, model: nn.Module, depth: int, kernel: str, whole: bool) -> None:
        tap.register()
        self.model = model
        self.decoder = find_decoder(model)
        self.config = config_of(self.decoder)
        self.depth = depth
        self.kernel = kernel
        self.whole = whole
        self.device = input_device(self.decoder)
        parameter = next(self.decoder.parameters())
        self.exact = parameter.dtype == torch.float32
        rows = self.decoder.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
        generator = torch.Generator().manual_seed(0)
        count = _PREFIX + sum(_TAILS)
        # The upper half of a vocabulary is where control tokens and images stand.
        ids = torch.randint(min(3, rows - 1), max(4, rows // 2), (count,), generator=generator)
        self.prefix = [int(i) % rows for i in ids[:_PREFIX]]
        rest = [int(i) % rows for i in ids[_PREFIX:]]
        self.tails = [rest[: _TAILS[0]], rest[_TAILS[0] :]]
        #: Layers whose attention came by in any pass.
        self.seen: set[int] = set()
        self.adds_masks = False

    def anatomy(self) -> Anatomy:
        """The first way in which the model gives what it gives by itself."""
        check_attends(self.config)
        cache_argument(self.model)
        prefix = slice(0, _PREFIX)
        if not _same(self.references[0][prefix], self.references[1][prefix], self.exact):
            raise UnsupportedModelError(
                f"{type(self.model).__name__} is not causal: what follows a text changes what it "
                "is read as, so that documents cannot be read before the query"
            )
        plain = keeps_only_keys_and_values(self.config)
        ways: tuple[Way, ...] = ("packed", "copied", "whole") if plain else ("copied", "whole")
        found: dict[str, list[str]] = {}
        for way in ways:
            try:
                return self._tried(way)
            except _Differs as error:
                found.setdefault(str(error), []).append(way)
        if not self.seen:
            # Attention of the model's own adds the mask to its logits.
            self.adds_masks = True
            for way in ways[-2:]:
                with suppress(_Differs):
                    return self._tried(way)
            raise UnsupportedModelError(
                f"{type(self.model).__name__} cannot be ranked with: none of its layers attends "
                "through transformers' attention interface (its attention, or what it keeps of "
                "earlier tokens, is code of its own), and run as a re-ranker it does not give "
                "what it gives by itself; use another model"
            )
        reasons = "; ".join(f"{', '.join(ways)}: {reason}" for reason, ways in found.items())
        raise UnsupportedModelError(
            f"{type(self.model).__name__} cannot be ranked with: its scores would be wrong. Run "
            f"as a re-ranker it does not give what it gives by itself ({reasons})"
        )

    def _tried(self, way: Way) -> Anatomy:
        try:
            return self._proven(way)
        except (_Differs, torch.OutOfMemoryError):
            raise
        # Another way may work where this one fails.
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            own = isinstance(error, ICRError)
            raise _Differs(reason if own else f"{type(error).__name__}: {reason}") from error

    @cached_property
    def references(self) -> list[torch.Tensor]:
        """What the model gives by itself for the prefix and each tail, [token, dimension]."""
        return [self._reference([*self.prefix, *tail]) for tail in self.tails]

    @torch.inference_mode()
    def _reference(self, ids: Sequence[int]) -> torch.Tensor:
        own = implementation(self.config)
        name = own if own in ("eager", "sdpa") else "eager"
        plain = (
            make_causal_view(self.model, name)
            if self.whole
            else twin_of_depth(self.decoder, self.depth, name)
        )
        output = plain(input_ids=torch.tensor([list(ids)], device=self.device), use_cache=False)
        return self._rows(output)

    def _rows(self, output: Any) -> torch.Tensor:
        rows: torch.Tensor = output.logits if self.whole else output.last_hidden_state
        return rows[0].float()

    @cached_property
    def view(self) -> nn.Module:
        return (
            make_causal_view(self.model)
            if self.whole
            else make_view(self.decoder, self.depth, last_is_read=False)
        )

    @torch.inference_mode()
    def _proven(self, way: Way) -> Anatomy:
        witness = _Reads(self.exact)
        run = {"packed": self._packed, "copied": self._copied, "whole": self._whole}[way]
        seen, own = run(witness)
        if not seen and not self.adds_masks:
            raise _Differs("no layer's attention came by")
        if way == "packed":
            self._padded()
        anatomy = Anatomy(type(self.model).__name__, way, frozenset(seen), frozenset(own))
        if seen:
            self._early_exit(anatomy, witness)
        return anatomy

    def _pass(self, current: tap.Pass, ids: Sequence[int], start: int, cache: Any) -> torch.Tensor:
        return self._run(current, [ids], [range(start, start + len(ids))], cache)

    def _run(
        self, current: tap.Pass, rows: Sequence[Ids], positions: Sequence[Ids], cache: Any
    ) -> torch.Tensor:
        current.adds_masks = self.adds_masks
        try:
            return self._rows(run_pass(self.view, current, rows, positions, cache, self.device))
        finally:
            self.seen |= current.seen

    def _fill(self, cache: Any) -> None:
        # Nobody looks on: through the kernel itself, which may take no mask.
        for begin in range(0, _PREFIX, _CHUNK):
            current = tap.Pass(self.kernel, None)
            self._pass(current, self.prefix[begin : begin + _CHUNK], begin, cache)

    def _compare(self, number: int, rows: torch.Tensor, what: str) -> None:
        wanted = self.references[number][-len(rows) :]
        if not _same(rows, wanted, self.exact):
            raise _Differs(f"{what} changes its output by {_difference(rows, wanted):.2g}")

    def _packed(self, witness: _Reads) -> tuple[set[int], set[int]]:
        cache = make_states(_PREFIX + sum(_TAILS))
        self._fill(cache)
        first, second = self.tails
        packed = [
            tap.PackedTail(0, len(first), slice(0, len(first))),
            tap.PackedTail(len(first), len(second), slice(0, len(second))),
        ]
        current = tap.Pass(self.kernel, None, prefix_length=_PREFIX, tails=packed, witness=witness)
        positions = [_PREFIX + place for tail in self.tails for place in range(len(tail))]
        rows = self._run(current, [[*first, *second]], [positions], cache)
        self._compare(0, rows[: len(first)], "reading it in chunks with several queries")
        self._compare(1, rows[len(first) :], "reading it in chunks with several queries")
        return current.seen, _own_keys(cache, witness)

    def _copied(self, witness: _Reads) -> tuple[set[int], set[int]]:
        cache = make_mixed_states(_PREFIX + max(_TAILS), self.config)
        self._fill(cache)
        seen: set[int] = set()
        own: set[int] = set()
        # The first tail last: its readings are what the early exit is compared with.
        for number in (1, 0):
            tail = self.tails[number]
            copied = copy.deepcopy(cache)
            current = tap.Pass(self.kernel, None, prefix_length=_PREFIX,
                               tails=[tap.PackedTail(0, len(tail), slice(0, len(tail)))],
                               witness=witness)  # fmt: skip
            rows = self._pass(current, tail, _PREFIX, copied)
            self._compare(number, rows, "reading it in chunks")
            seen |= current.seen
            own = _own_keys(copied, witness)
        return seen, own

    def _whole(self, witness: _Reads) -> tuple[set[int], set[int]]:
        seen: set[int] = set()
        for number in (1, 0):
            ids = [*self.prefix, *self.tails[number]]
            current = tap.Pass(self.kernel, None, witness=witness)
            cache = make_mixed_states(len(ids), self.config)
            self._compare(number, self._pass(current, ids, 0, cache), "reading it")
            seen |= current.seen
        return seen, set()

    def _padded(self) -> None:
        """A short prompt beside a long one, padded on the left."""
        tail = self.tails[0]
        short = self.prefix[:_SHORT]
        pad = _PREFIX - _SHORT
        rows = [[0] * pad + short + tail, self.prefix + tail]
        short_places = [_SHORT - len(short)] * pad + list(range(_SHORT + len(tail)))
        positions = [short_places, list(range(_PREFIX + len(tail)))]
        current = tap.Pass(
            self.kernel,
            None,
            stem_length=_PREFIX,
            padding=[pad, 0],
            tails=[tap.PackedTail(_PREFIX, len(tail), slice(0, len(tail)))],
        )
        cache = make_states(_PREFIX + len(tail))
        output = run_pass(self.view, current, rows, positions, cache, self.device)
        both = output.logits if self.whole else output.last_hidden_state
        for number, wanted in enumerate((self._reference(short + tail), self.references[0])):
            found = both[number, -len(tail) :].float()
            if not _same(found, wanted[-len(tail) :], self.exact):
                raise _Differs("padding beside a longer text changes its output")

    def _early_exit(self, anatomy: Anatomy, witness: _Reads) -> None:
        """A pass that ends in the last layer reads what a pass to the end reads."""
        last = max(anatomy.attention_layers)
        reader = TokenReader({last: None})
        tails = [Tail(tail, slice(0, len(tail))) for tail in self.tails]
        run_tails(self.decoder, self.prefix, tails, [last], reader, kernel=self.kernel,
                  chunk=_CHUNK, anatomy=anatomy)  # fmt: skip
        wanted = witness.probabilities[last][:, : len(self.tails[0]), :_PREFIX]
        if anatomy.way == "whole":
            wanted = witness.probabilities[last][:, _PREFIX:, :_PREFIX]
        found = reader.readings[last][0][:, :_PREFIX]
        if not _same(found, wanted.mean(dim=1).cpu(), self.exact):
            raise _Differs("ending its pass in the last layer that is read changes the reading")


def _own_keys(cache: Any, witness: _Reads) -> set[int]:
    """Layers whose keys, as they were attended to, are in the cache."""
    own = set()
    for layer, key in witness.keys.items():
        stored = stored_keys(cache, layer)
        if stored is not None and stored.shape == key.shape and torch.equal(stored, key):
            own.add(layer)
    return own


def _difference(found: torch.Tensor, wanted: torch.Tensor, *, median: bool = False) -> float:
    """Relative difference of the worst row, or of the median one."""
    scale = wanted.norm(dim=-1).clamp_min(1e-6)
    each = (found - wanted).norm(dim=-1) / scale
    return float(each.median() if median else each.max())


def _same(found: torch.Tensor, wanted: torch.Tensor, exact: bool) -> bool:
    if not bool(torch.isfinite(wanted).all()):
        # What the model gives by itself is no number; ranking says so in its own words.
        return True
    if found.shape != wanted.shape:
        return False
    if exact:
        return _difference(found, wanted) <= _EXACT
    return _difference(found, wanted, median=True) <= _COARSE
