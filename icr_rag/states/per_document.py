"""A batch of prompts whose bodies' states are kept: only the tails are run for a query."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from transformers.cache_utils import Cache

from icr_rag.model.batch import MakeRunner
from icr_rag.model.groups import alike, even_groups
from icr_rag.model.runner import Runner, Task
from icr_rag.states.document_states import DocumentStates, Ids
from icr_rag.states.gather import gather_batch

#: Columns held at once, as a multiple of the tokens that may be run at once: few of them are run.
_WIDER = 4
#: Most tokens of padding behind the tails of a group. They are run as all others, and a pass of its
#: own should cost about as much as so many; `benchmarks/together.py` shows what comes of it.
_PADDING = 64


def over_states(states: DocumentStates | None, kept: Sequence[Ids], stem: int) -> MakeRunner | None:
    """What `run_batch` is to run a batch by: with these states, or, without any, as ever.

    Args:
        states: made for the batch's head and the layers that are read.
        kept: per prompt, what is encoded by itself, once, and kept.
        stem: the last tokens of every body, at least one, which are run with the tails; what
            stands before them is what is kept, or its beginning.
    """
    return None if states is None else partial(StatesRunner, states, kept, stem)


class StatesRunner(Runner):
    """As `Runner`, over states that a `DocumentStates` has or makes.

    The last token of a body is run with the tails, for its logits give the tails' first token;
    and so are those before it that depend on the instruction.
    """

    def __init__(
        self, states: DocumentStates, kept: Sequence[Ids], stem: int, task: Task, size: int
    ) -> None:
        super().__init__(task, size)
        self.states = states
        self.kept = kept
        self.stem = stem
        self.encoded = [0] * len(kept)

    def _head(self) -> Cache:
        return self.states.head()

    def _head_tokens(self) -> int:
        return 0

    def _own_tokens(self, member: int) -> int:
        return self.encoded[member] + self.stem + self.tail_tokens[member]

    def _groups(self) -> list[list[int]]:
        """By the length of the tails, which are run, then by length and content of the bodies, so
        that the order of the prompts changes not a bit."""
        bodies, tails = self.batch.bodies, self.tail_tokens

        def place(i: int) -> tuple[int, int, list[int], list[list[int]]]:
            ends = [list(tail.token_ids) for tail in self.batch.tails_of(i)]
            return -tails[i], -len(bodies[i]), list(bodies[i]), ends

        longest_first = sorted(range(len(bodies)), key=place)
        lengths = list(map(len, bodies))
        return [
            group
            for run in alike(longest_first, tails, _PADDING)
            for group in even_groups(run, lengths, tails, _WIDER * self.size)
        ]

    def _run_long(self, head: Cache, member: int) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        return self._run_group(head, [member])

    def _run_group(
        self, head: Cache, members: Sequence[int]
    ) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        # Group by group, so that a long list never has all its states in memory at once.
        found, run = self.states.states([self.kept[member] for member in members])
        for member, tokens in zip(members, run, strict=True):
            self.encoded[member] += tokens
        lengths = [len(self.batch.bodies[member]) - self.stem for member in members]
        found = [own.first(length) for own, length in zip(found, lengths, strict=True)]
        room = self.stem + self._tail_room(members)
        cache, padding = gather_batch(head, found, room, self.states.in_one_buffer)
        before = len(self.batch.head_ids)
        return self._finish(cache, members, cache.get_seq_length(), self.stem, padding, before)
