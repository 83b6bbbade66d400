"""What a score cache has done, in numbers; counted under a lock, read as one whole."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class CacheStats:
    """What a score cache has done since it was made.

    Attributes:
        hits: scores asked for that were there.
        misses: those that were not, those of a cache that failed among them.
        errors: calls that failed, and values that were not what was written.
        skipped: calls that were not made because the last one failed a moment ago.
        evictions: scores that had to make room.
        entries: scores held now; None: not known.
        bytes: memory for them, about; None: not known.
    """

    hits: int = 0
    misses: int = 0
    errors: int = 0
    skipped: int = 0
    evictions: int = 0
    entries: int | None = None
    bytes: int | None = None


class Counting:
    """Counts up; safe under threads."""

    def __init__(self) -> None:
        self._stats = CacheStats()
        self._lock = threading.Lock()

    @property
    def stats(self) -> CacheStats:
        """The numbers as they are now."""
        return self._stats

    def found(self, hits: int, misses: int) -> None:
        """So many scores that were asked for were there, and so many were not."""
        with self._lock:
            own = self._stats
            self._stats = replace(own, hits=own.hits + hits, misses=own.misses + misses)

    def error(self, count: int = 1) -> None:
        """So much went wrong."""
        with self._lock:
            self._stats = replace(self._stats, errors=self._stats.errors + count)

    def skip(self) -> None:
        """A call was not made."""
        with self._lock:
            self._stats = replace(self._stats, skipped=self._stats.skipped + 1)

    def evict(self, count: int) -> None:
        """So many had to make room."""
        with self._lock:
            self._stats = replace(self._stats, evictions=self._stats.evictions + count)
