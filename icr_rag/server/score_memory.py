"""Scores in this process's memory: the least recently used go first."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from icr_rag.errors import ConfigError, InputError
from icr_rag.server.score_stats import CacheStats, Counting

#: What an entry takes beside its key's own bytes: the objects, and its place in the dictionary.
ENTRY_BYTES = 300


class MemoryScores:
    """A bounded score cache. Safe under threads. Nothing here fails but a wrong score.

    Args:
        max_bytes: what entries may take, `ENTRY_BYTES` and the key's length each.

    Raises:
        ConfigError: if that is too little for a single score.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 2 * ENTRY_BYTES:
            raise ConfigError(
                f"a score cache of {max_bytes} bytes holds nothing; give it at least "
                f"{2 * ENTRY_BYTES}, or use none"
            )
        self.max_bytes = max_bytes
        self._held: OrderedDict[bytes, float] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._counting = Counting()

    @property
    def stats(self) -> CacheStats:
        """What it has done and holds."""
        with self._lock:
            return replace(self._counting.stats, entries=len(self._held), bytes=self._bytes)

    def get(self, keys: Sequence[bytes]) -> list[float | None]:
        """The score of each key; None where there is none."""
        found: list[float | None] = []
        with self._lock:
            for key in keys:
                score = self._held.get(key)
                if score is not None:
                    self._held.move_to_end(key)
                found.append(score)
        misses = found.count(None)
        self._counting.found(len(found) - misses, misses)
        return found

    def put(self, scores: Mapping[bytes, float]) -> None:
        """Keep these, the last ones longest where there is not room for all.

        Raises:
            InputError: for NaN and infinity, which no score is; nothing is kept then.
        """
        for score in scores.values():
            if not math.isfinite(score):
                raise InputError(f"a score of {score} cannot be cached; scores are finite numbers")
        evicted = 0
        with self._lock:
            for key, score in scores.items():
                if key not in self._held:
                    self._bytes += _size(key)
                self._held[key] = float(score)
                self._held.move_to_end(key)
                while self._bytes > self.max_bytes:
                    oldest, _ = self._held.popitem(last=False)
                    self._bytes -= _size(oldest)
                    evicted += 1
        if evicted:
            self._counting.evict(evicted)

    def close(self) -> None:
        """Let go of all scores; may be used again."""
        with self._lock:
            self._held.clear()
            self._bytes = 0


def _size(key: bytes) -> int:
    return ENTRY_BYTES + len(key)
