"""Encode documents independently of each other, once, and rank any number of queries.

Every document attends to the prompt's head and to itself only and begins at the same position, so
that its keys and values depend on nothing else: not on the query, not on other candidates, not on
their order. They are kept in a store; a query then costs its own tokens. Layers above the last
one read are neither run nor kept, and of that layer only the keys.
They are put together again by `icr_rag.states.gather`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from transformers.cache_utils import Cache

from icr_rag.deadline import step
from icr_rag.model import tap
from icr_rag.model.kv_cache import make_states, repeat_states, stored_states
from icr_rag.model.passes import input_device, run_pass, within_memory
from icr_rag.model.runner import causal_view
from icr_rag.model.view import find_decoder, make_view
from icr_rag.states.store import StateStore, StoredStates, state_key

if TYPE_CHECKING:
    from icr_rag.model.engine import Engine

Ids = Sequence[int]

#: What is measured: making documents' states, by their tokens.
_ENCODED = "encoded"


class DocumentStates:
    """States of documents behind one head: from the store, or made on the way and stored.

    Not safe under threads; callers hold the engine's lock.

    Args:
        engine: the model.
        head_ids: the beginning that all prompts share; may be empty.
        last: the last layer that is kept, of which there are keys only; None: all layers, whole.
        open_store: gives the store for the weights as they are; its namespace names all that
            states depend on.
    """

    def __init__(
        self,
        engine: Engine,
        head_ids: Ids,
        last: int | None,
        open_store: Callable[[], StateStore],
    ) -> None:
        self.engine = engine
        self.head_ids = list(head_ids)
        self.last = last
        self._open_store = open_store
        self._store: StateStore | None = None
        self._identity = ""
        self._head: Cache | None = None
        count = engine.text_config.num_hidden_layers
        self._depth = count if last is None else last + 1

    @property
    def store(self) -> StateStore:
        """Of the weights as they are now: adapters may have been switched, or weights changed."""
        identity = self.engine.identity()
        if self._store is None or identity != self._identity:
            anatomy = self.engine.anatomy(self.last)
            anatomy.check_keeps_documents()
            self._expected = anatomy.expected(self.last)
            #: Whether layers' states may be put together in one buffer: not where a later layer
            #: looks again at an earlier one's.
            self.in_one_buffer = anatomy.attention_layers <= anatomy.own_keys
            #: Whether keys are all that the last layer's attention needs of earlier tokens.
            self._keys_suffice = self.last in anatomy.own_keys
            self._identity = identity
            self._head = None
            self._store = self._open_store()
        return self._store

    def states(self, bodies: Sequence[Ids]) -> tuple[list[StoredStates], int]:
        """States of each body, and how many tokens had to be run for them.

        Args:
            bodies: token ids, at least one token each; the same ids are run once.
        """
        store = self.store
        keys = [state_key(body) for body in bodies]
        found: dict[str, StoredStates] = {}
        missing: dict[str, Ids] = {}
        for key, body in zip(keys, bodies, strict=True):
            if key in found or key in missing:
                continue
            stored = store.get(key)
            if stored is None or stored.tokens != len(body):
                missing[key] = body
            else:
                found[key] = stored
        for key, states in self._encode(missing):
            # As they are kept, so that a call gives the same scores now and later.
            found[key] = store.put(key, states)
        # What comes from a file is on the CPU.
        device = input_device(self.engine.decoder)
        found = {key: states.to(device) for key, states in found.items()}
        return [found[key] for key in keys], sum(map(len, missing.values()))

    def encode(self, bodies: Sequence[Ids]) -> tuple[int, int]:
        """Make and store what is not in the store yet.

        Returns:
            How many documents were encoded, and their tokens.
        """
        store = self.store
        missing = {state_key(body): body for body in bodies}
        missing = {key: body for key, body in missing.items() if key not in store}
        for key, states in self._encode(missing):
            store.put(key, states)
        return len(missing), sum(map(len, missing.values()))

    def missing(self, bodies: Sequence[Ids]) -> list[int]:
        """The places of bodies that have no states at this moment."""
        store = self.store
        return [place for place, body in enumerate(bodies) if state_key(body) not in store]

    def kept(self, keys: Collection[str]) -> int:
        """How many of these `state_key` have states at this moment."""
        store = self.store
        return sum(key in store for key in keys)

    @property
    def opened(self) -> StateStore | None:
        """The store that was used last; None: none was yet. Opens none, so that it may be called
        without the engine's lock."""
        return self._store

    @property
    def evictions(self) -> int:
        """How many documents' states had to make room so far."""
        return 0 if self._store is None else self._store.stats.evictions

    @torch.inference_mode()
    def head(self) -> Cache:
        """States of the head; run once for weights as they are."""
        # Notices whether they still are.
        _ = self.store
        if self._head is None:
            tap.register()
            cache = make_states(len(self.head_ids))
            if self.head_ids:
                self._run(cache, [self.head_ids], 0, self.engine.chunk)
            self._head = cache
        return self._head

    @torch.inference_mode()
    def _encode(self, bodies: dict[str, Ids]) -> Iterator[tuple[str, StoredStates]]:
        """On CPUs one after the other: what a document's states are is then the same bits
        whatever it is encoded with. On accelerators, which short passes leave idle, in batches."""
        self.head()
        device = input_device(self.engine.decoder)
        engine = self.engine
        for group in self._groups(bodies, alone=device.type == "cpu"):
            rows = [bodies[key] for key in group]
            what = f"documents of up to {len(rows[0])} tokens to encode"
            # A reading that finds them kept takes none of this time.
            with step(_ENCODED, sum(map(len, rows)), apart=True):
                made, worked = within_memory(
                    partial(self._run_rows, rows), engine.chunk, what, device
                )
            engine.chunk = min(engine.chunk, worked)
            yield from zip(group, made, strict=True)

    def _groups(self, bodies: dict[str, Ids], *, alone: bool) -> list[list[str]]:
        """Longest first, as many together as the engine runs tokens at once."""
        if alone:
            return [[key] for key in bodies]
        groups: list[list[str]] = []
        room = 0
        for key in sorted(bodies, key=lambda key: -len(bodies[key])):
            if room == 0:
                room = max(1, self.engine.chunk // len(bodies[key]))
                groups.append([])
            groups[-1].append(key)
            room -= 1
        return groups

    def _run_rows(self, rows: Sequence[Ids], size: int) -> list[StoredStates]:
        """States of these documents, the first of which is the longest.

        They are padded at the end, where nothing of theirs sees it.
        """
        width, before = len(rows[0]), len(self.head_ids)
        together = max(1, size // width)
        found = []
        for begin in range(0, len(rows), together):
            part = rows[begin : begin + together]
            cache = repeat_states(self.head(), len(part), before + width)
            self._run(cache, [[*row, *[0] * (width - len(row))] for row in part], before, size)
            for number, row in enumerate(part):
                found.append(self._cut(cache, number, slice(before, before + len(row))))
        return found

    def _run(self, cache: Cache, rows: Sequence[Ids], start: int, size: int) -> None:
        # A view of all layers has no last one that is only read.
        whole = self.last is None
        view = (
            find_decoder(causal_view(self.engine))
            if whole
            else make_view(self.engine.decoder, self._depth)
        )
        for begin in range(0, len(rows[0]), size):
            part = [list(row[begin : begin + size]) for row in rows]
            where = range(start + begin, start + begin + len(part[0]))
            current = tap.Pass(self.engine.kernel, self.last, expected=self._expected)
            run_pass(view, current, part, [where] * len(part), cache,
                     input_device(self.engine.decoder))  # fmt: skip

    def _cut(self, cache: Cache, number: int, tokens: slice) -> StoredStates:
        """What is kept of one document of a batch."""
        keys, values = [], []
        for layer in range(len(cache.layers[: self._depth])):
            key, value = stored_states(cache, layer)
            keys.append(key[number, :, tokens].clone())
            if layer != self.last or not self._keys_suffice:
                values.append(value[number, :, tokens].clone())
        return StoredStates(tuple(keys), tuple(values))
