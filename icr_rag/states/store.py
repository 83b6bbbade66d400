"""Document states under keys: the newest in memory, all of them on disk if a folder is given."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from icr_rag.states.codec import decode, encode
from icr_rag.states.disk import DiskStates

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredStates:
    """Keys and values of a document's tokens.

    Attributes:
        keys: per layer, [key/value head, token, dimension].
        values: likewise; without the last layer's where only its keys are read.

    What a store gives back may be what it holds: not to be written to.
    """

    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]

    @property
    def tokens(self) -> int:
        """How many tokens."""
        return int(self.keys[0].shape[-2])

    def first(self, tokens: int) -> StoredStates:
        """Those of the first tokens, at most all; they depend on no later ones."""
        if tokens >= self.tokens:
            return self
        return StoredStates(
            tuple(tensor[:, :tokens] for tensor in self.keys),
            tuple(tensor[:, :tokens] for tensor in self.values),
        )

    def to(self, device: torch.device) -> StoredStates:
        """The same on a device; the very same if they are there."""
        if self.keys[0].device == device:
            return self
        return StoredStates(
            tuple(tensor.to(device) for tensor in self.keys),
            tuple(tensor.to(device) for tensor in self.values),
        )


@dataclass
class StoreStats:
    """What a store has done: where states were found, and what had to go."""

    memory_hits: int = 0
    disk_hits: int = 0
    misses: int = 0
    evictions: int = 0


class StateStore:
    """Keeps states in memory, least recently used out first, and on disk.

    Memory holds them as they are stored, so that the budget counts what is really held. Safe
    under threads; the folder may be shared by processes.

    Args:
        namespace: as `namespace` makes it: other namespaces' states are never seen.
        memory_bytes: what memory may hold; an entry that is larger is not held.
        folder: where states are kept on disk; None: nowhere.
        dtype: one of `icr_rag.states.codec.DTYPES`.
        parts: what the namespace stands for.
    """

    def __init__(
        self,
        namespace: str,
        *,
        memory_bytes: int,
        folder: Path | None = None,
        dtype: str = "same",
        parts: Mapping[str, Any] | None = None,
    ) -> None:
        self.memory_bytes = memory_bytes
        self.dtype = dtype
        self.disk = None if folder is None else DiskStates(folder, namespace, parts or {})
        self.stats = StoreStats()
        self.held_bytes = 0
        self._held: OrderedDict[str, dict[str, torch.Tensor]] = OrderedDict()
        self._type: torch.dtype | None = None
        self._lock = threading.Lock()

    def __contains__(self, key: str) -> bool:
        """Whether there seem to be states; what a file holds is looked at by `get` only."""
        with self._lock:
            if key in self._held:
                return True
        return self.disk is not None and key in self.disk

    def get(self, key: str) -> StoredStates | None:
        """States in the type of the weights; None if they must be made."""
        with self._lock:
            stored = self._held.get(key)
            if stored is not None:
                self._held.move_to_end(key)
                self.stats.memory_hits += 1
        if stored is None and self.disk is not None:
            stored = self.disk.read(key)
            if stored is not None:
                self.stats.disk_hits += 1
                self._hold(key, stored)
        if stored is None:
            with self._lock:
                self.stats.misses += 1
            return None
        return _states(decode(stored, _plain_type(stored)))

    def put(self, key: str, states: StoredStates) -> StoredStates:
        """Keep states; returns them as `get` will, rounded if the storage type rounds."""
        tensors = {f"k.{i}": tensor for i, tensor in enumerate(states.keys)}
        tensors |= {f"v.{i}": tensor for i, tensor in enumerate(states.values)}
        stored = {name: _own(tensor) for name, tensor in encode(tensors, self.dtype).items()}
        # An empty tensor that tells the type to come back to.
        stored["type"] = states.keys[0].new_empty(0)
        if self.disk is not None and key not in self.disk:
            self.disk.write(key, stored)
        self._hold(key, stored)
        return _states(decode(stored, _plain_type(stored)))

    def _hold(self, key: str, stored: dict[str, torch.Tensor]) -> None:
        size = _bytes(stored)
        with self._lock:
            previous = self._held.pop(key, None)
            if previous is not None:
                self.held_bytes -= _bytes(previous)
            if size > self.memory_bytes:
                self._lost(1)
                return
            self._held[key] = stored
            self.held_bytes += size
            while self.held_bytes > self.memory_bytes:
                _, oldest = self._held.popitem(last=False)
                self.held_bytes -= _bytes(oldest)
                self._lost(1)

    def _lost(self, count: int) -> None:
        """Count documents that found no room in memory, and tell the first time."""
        self.stats.evictions += count
        if self.disk is None and self.stats.evictions == count:
            logger.warning(
                "states_memory=%d MiB does not hold the states of all documents: the least "
                "recently used are let go, and encoded again when they come back; set a larger "
                "states_memory, or states_dir to keep them in a folder",
                self.memory_bytes // 2**20,
            )

    def clear(self) -> None:
        """Let go of what is in memory; the disk keeps its own."""
        with self._lock:
            self._held.clear()
            self.held_bytes = 0


def _states(tensors: Mapping[str, torch.Tensor]) -> StoredStates:
    counts = {kind: sum(name.startswith(f"{kind}.") for name in tensors) for kind in "kv"}
    return StoredStates(
        tuple(tensors[f"k.{i}"] for i in range(counts["k"])),
        tuple(tensors[f"v.{i}"] for i in range(counts["v"])),
    )


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that keeps no larger one alive, which the budget would not count."""
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone()


def _plain_type(stored: Mapping[str, torch.Tensor]) -> torch.dtype:
    return stored["type"].dtype


def _bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def state_key(token_ids: Sequence[int]) -> str:
    """The key of a document's token ids."""
    text = ",".join(map(str, token_ids))
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()


def namespace(parts: Mapping[str, Any]) -> str:
    """The name of everything that states depend on; any change gives another."""
    text = json.dumps(dict(parts), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
