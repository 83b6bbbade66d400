"""A batch whose prompts cannot be padded or packed: each is run by itself; see `one_by_one`."""

from __future__ import annotations

import torch
from transformers.cache_utils import Cache

from icr_rag.model.kv_cache import make_states
from icr_rag.model.one_by_one import follow
from icr_rag.model.reading import DocumentReader
from icr_rag.model.runner import Runner
from icr_rag.types import Span


class OneByOneRunner(Runner):
    """As `Runner`, for models whose layers keep more than keys and values."""

    def _head(self) -> Cache:
        # Each prompt is run whole.
        return make_states(0)

    def _groups(self) -> list[list[int]]:
        return [[member] for member in range(len(self.batch.bodies))]

    def _head_tokens(self) -> int:
        return 0

    def _own_tokens(self, member: int) -> int:
        again = len(self.batch.tails_of(member)) if self.anatomy.way == "whole" else 1
        prefix = len(self.batch.head_ids) + len(self.batch.bodies[member])
        return max(1, again) * prefix + self.tail_tokens[member]

    def _run_long(self, head: Cache, member: int) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        before = len(self.batch.head_ids)
        reader = None
        if self.heads:
            spans = [Span(before + a, before + b) for a, b in self.batch.spans[member]]
            reader = DocumentReader(self.heads, [spans], self.token_mask, needed=self.needed)
        logits = follow(
            self.view if self.reduce is not None else self.inner,
            self.anatomy,
            self.kernel,
            self.last,
            [*self.batch.head_ids, *self.batch.bodies[member]],
            self.batch.tails_of(member),
            reader,
            chunk=self.size,
            device=self.device,
            config=self.decoder.config,
            logits=self.reduce is not None,
        )
        reduced = None
        if self.reduce is not None and logits is not None:
            reduced = self._reduced(self.reduce, logits, [member])
        return self._readings(reader, 1), reduced
