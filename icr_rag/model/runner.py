"""A batch of short prompts that share their beginning, run group by group."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.cache_utils import Cache

from icr_rag.errors import NonFiniteScoreError, UnsupportedModelError
from icr_rag.model import tap
from icr_rag.model._transformers import logits_to_keep
from icr_rag.model.anatomy import Anatomy
from icr_rag.model.columns import tail_columns
from icr_rag.model.engine import Engine
from icr_rag.model.groups import even_groups
from icr_rag.model.kv_cache import make_states, repeat_states
from icr_rag.model.passes import check_finite, check_read, input_device, run_pass
from icr_rag.model.reading import DocumentReader
from icr_rag.model.view import find_decoder, make_causal_view
from icr_rag.prompts.layout import PromptBatch
from icr_rag.types import Span


@dataclass
class BatchResult:
    """What the prompts gave, in their order.

    Attributes:
        tokens: that were run.
        own_tokens: per prompt, those of them that are its own; the others are the head's.
        readings: per prompt, float32 [document, layer and head, reading], the (layer, head)
            pairs in ascending order of layers and as asked for within one.
        outputs: per prompt, what ``reduce`` made of its logits.
    """

    readings: list[torch.Tensor] = field(default_factory=list)
    outputs: list[torch.Tensor] = field(default_factory=list)
    tokens: int = 0
    own_tokens: list[int] = field(default_factory=list)

    def of_lists(self, counts: Sequence[int]) -> list[BatchResult]:
        """What each of several lists of so many prompts, one behind the other, gave.

        The head's tokens are shared evenly.
        """
        head = self.tokens - sum(self.own_tokens)
        found, begin = [], 0
        for number, count in enumerate(counts):
            own = slice(begin, begin + count)
            begin += count
            shared = head * (number + 1) // len(counts) - head * number // len(counts)
            tokens = self.own_tokens[own]
            found.append(
                BatchResult(self.readings[own], self.outputs[own], shared + sum(tokens), tokens)
            )
        return found


#: Takes logits [prompt, 1 + tail tokens, vocabulary]: the rows of the body's last token and of all
#: tails' tokens, side by side, each padded at its end to the longest one's; and which prompts of
#: the batch these are. Returns [prompt, ...].
Reduce = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]


def causal_view(engine: Engine) -> torch.nn.Module:
    """A twin of the engine's causal LM.

    Raises:
        UnsupportedModelError: if the weights that were handed in have no LM head.
    """
    if engine.causal is None:
        raise UnsupportedModelError(
            f"{type(engine.decoder).__name__} has no LM head, which likelihood, generation and "
            "mixed scoring need; pass the whole AutoModelForCausalLM model"
        )
    return make_causal_view(engine.causal)


@dataclass(frozen=True)
class Task:
    """What is to be run of a batch, and what is wanted of it.

    Attributes:
        engine: the model. view: of it, with an LM head where ``reduce`` looks at logits.
        batch: the prompts.
        heads: layer -> heads to read, None for all of that layer; None: no attention is read.
        token_mask, readings: as `icr_rag.model.reading.DocumentReader` has them.
        reduce: see `Reduce`; None: no logits.
        last: the layer that a pass ends in; None: it runs to the model's end.
    """

    engine: Engine
    view: torch.nn.Module
    batch: PromptBatch
    heads: Mapping[int, Sequence[int] | None] | None
    token_mask: bool
    readings: Collection[str]
    reduce: Reduce | None
    last: int | None


class Runner:
    """One attempt at a batch, with at most ``size`` tokens at once."""

    def __init__(self, task: Task, size: int) -> None:
        self.kernel = task.engine.kernel
        self.anatomy: Anatomy = task.engine.anatomy(task.last)
        self.decoder = task.engine.decoder
        self.view = task.view
        # Without the LM head, for passes whose logits nobody asks for.
        self.inner = task.view if task.last is not None else find_decoder(task.view)
        self.batch = task.batch
        self.heads = task.heads
        self.token_mask = task.token_mask
        self.needed = task.readings
        self.reduce = task.reduce
        self.last = task.last
        self.size = size
        self.device = input_device(task.engine.decoder)
        self.tail_tokens = task.batch.tail_tokens

    def run(self) -> BatchResult:
        """All prompts."""
        batch = self.batch
        readings: dict[int, torch.Tensor] = {}
        outputs: dict[int, torch.Tensor] = {}
        head = self._head()
        for members in self._groups():
            if len(members) == 1:
                found, reduced = self._run_long(head, members[0])
            else:
                found, reduced = self._run_group(head, members)
            for place, member in enumerate(members):
                if found:
                    readings[member] = found[place]
                if reduced is not None:
                    outputs[member] = reduced[place]
        order = range(len(batch.bodies))
        own = [self._own_tokens(i) for i in order]
        return BatchResult(
            [readings[i] for i in order] if readings else [],
            [outputs[i] for i in order] if outputs else [],
            self._head_tokens() + sum(own),
            own,
        )

    def _head(self) -> Cache:
        """States of the shared beginning."""
        head = make_states(len(self.batch.head_ids))
        self._fill(head, self.batch.head_ids, 0)
        return head

    def _head_tokens(self) -> int:
        """Tokens of the shared beginning that were run."""
        return len(self.batch.head_ids)

    def _own_tokens(self, member: int) -> int:
        """Tokens of one prompt that were run."""
        return len(self.batch.bodies[member]) + self.tail_tokens[member]

    def _groups(self) -> list[list[int]]:
        """Prompts of similar length, as many together as ``size`` tokens allow."""
        lengths = [len(body) for body in self.batch.bodies]
        tails = self.tail_tokens
        longest_first = sorted(range(len(lengths)), key=lambda i: (-lengths[i], -tails[i]))
        return even_groups(longest_first, lengths, tails, self.size)

    def _fill(self, cache: Cache, token_ids: Sequence[int], start: int) -> None:
        """Run tokens that only leave their states behind."""
        for begin in range(0, len(token_ids), self.size):
            part = token_ids[begin : begin + self.size]
            positions = range(start + begin, start + begin + len(part))
            current = tap.Pass(self.kernel, self.last, expected=self.anatomy.expected(self.last))
            self._call(self.inner, current, [part], [positions], cache)

    def _run_long(self, head: Cache, member: int) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """One prompt, in chunks; only its last token goes with the tails."""
        body = self.batch.bodies[member]
        before = len(self.batch.head_ids)
        cache = repeat_states(head, 1, before + len(body) + self.tail_tokens[member])
        self._fill(cache, body[:-1], before)
        return self._finish(cache, [member], before + len(body) - 1, 1, [0])

    def _run_group(
        self, head: Cache, members: Sequence[int]
    ) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        before = len(self.batch.head_ids)
        width = max(len(self.batch.bodies[member]) for member in members)
        padding = [width - len(self.batch.bodies[member]) for member in members]
        room = width + self._tail_room(members)
        cache = repeat_states(head, len(members), before + room)
        return self._finish(cache, members, before, width, padding)

    def _tail_room(self, members: Sequence[int]) -> int:
        """Columns of these prompts' tails."""
        slots = zip(*(self.batch.tails_of(member) for member in members), strict=True)
        return sum(max(len(tail.token_ids) for tail in slot) for slot in slots)

    def _finish(
        self,
        cache: Cache,
        members: Sequence[int],
        prefix: int,
        stem: int,
        padding: Sequence[int],
        padding_start: int | None = None,
    ) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """The last pass: the end of the bodies, and all tails.

        Args:
            prefix: tokens in the cache.
            stem: columns of the bodies that are still to be run.
            padding: how many of them are padding, per member.
            padding_start: where padding begins if it is not in the stem but in the cache.
        """
        tails = tail_columns([self.batch.tails_of(member) for member in members], stem)
        rows, positions = [], []
        for number, (member, pad) in enumerate(zip(members, padding, strict=True)):
            end = prefix + stem - pad
            # Padding in the cache moves the stem; padding in the stem is part of it.
            before = pad if padding_start is None else 0
            body = list(self.batch.bodies[member][-(stem - before) :])
            rows.append([0] * before + body + tails.token_ids[number])
            where = [end - len(body)] * before + list(range(end - len(body), end))
            positions.append(where + [end + place for place in tails.places[number]])
        reader = None
        if self.heads:
            # Spans count from the body's first token; the axis of the pass from the head's.
            spans = [
                [
                    Span(*(prefix + stem - len(self.batch.bodies[member]) + at for at in span))
                    for span in self.batch.spans[member]
                ]
                for member in members
            ]
            reader = DocumentReader(self.heads, spans, self.token_mask, needed=self.needed)
        current = tap.Pass(
            self.kernel,
            self.last,
            prefix_length=prefix,
            stem_length=stem,
            padding=padding,
            padding_start=padding_start,
            tails=tails.packed,
            reader=reader,
            expected=self.anatomy.expected(self.last),
        )
        reduced = None
        if self.reduce is None:
            self._call(self.inner, current, rows, positions, cache)
        else:
            keep = torch.arange(stem - 1, len(rows[0]), device=self.device)
            kept, limit = logits_to_keep(self.view, keep)
            output = self._call(self.view, current, rows, positions, cache, **limit)
            logits = output.logits if kept else output.logits[:, keep]
            reduced = self._reduced(self.reduce, logits, members)
        return self._readings(reader, len(members)), reduced

    def _reduced(
        self, reduce: Reduce, logits: torch.Tensor, members: Sequence[int]
    ) -> torch.Tensor:
        reduced = reduce(logits.float(), members).cpu()
        if not bool(torch.isfinite(reduced).all()):
            raise NonFiniteScoreError(
                f"{type(self.decoder).__name__} gave NaN or infinite likelihoods; load it "
                "with dtype='float32' or 'bfloat16'"
            )
        return reduced

    def _readings(self, reader: DocumentReader | None, count: int) -> list[torch.Tensor]:
        if reader is None or self.heads is None:
            return []
        layers = sorted(self.heads)
        check_read(self.decoder, layers, reader)
        found = [
            torch.cat([reader.readings[layer][prompt] for layer in layers], dim=1)
            for prompt in range(count)
        ]
        check_finite(found, self.decoder, layers)
        return found

    def _call(
        self,
        model: Any,
        current: tap.Pass,
        rows: Sequence[Sequence[int]],
        positions: Sequence[Sequence[int]],
        cache: Cache,
        **arguments: Any,
    ) -> Any:
        return run_pass(model, current, rows, positions, cache, self.device, **arguments)
