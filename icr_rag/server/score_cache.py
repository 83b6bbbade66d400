"""Scores that were computed before, so that the same question costs no pass of the model.

Only scores that are of the query and the document alone can be kept: others mean nothing beside
other documents. What they depend on is in their keys (`icr_rag.server.score_key`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from icr_rag.errors import ConfigError, shown
from icr_rag.server.score_memory import MemoryScores
from icr_rag.server.score_redis import PREFIX, TIMEOUT, TTL, RedisScores
from icr_rag.server.score_stats import CacheStats

__all__ = ["CacheStats", "MemoryScores", "RedisScores", "ScoreCache", "score_cache"]

#: MiB of "memory": about two hundred thousand scores.
_MEMORY = 64
#: So that bytes stay a number that a machine can have.
_MOST = 1024 * 1024


class ScoreCache(Protocol):
    """Keeps scores by key. Safe under threads."""

    @property
    def stats(self) -> CacheStats:
        """What it has done."""

    def get(self, keys: Sequence[bytes]) -> list[float | None]:
        """The score of each key, exactly as it was put; None where there is none."""

    def put(self, scores: Mapping[bytes, float]) -> None:
        """Keep these.

        Raises:
            InputError: for NaN and infinity, which no score is.
        """

    def close(self) -> None:
        """Let go of memory and connections."""


def score_cache(
    written: str,
    *,
    ttl: float | None = None,
    prefix: str | None = None,
    timeout: float | None = None,
) -> ScoreCache:
    """The score cache that a setting asks for.

    Args:
        written: "memory", or "memory:256" for so many MiB; "redis://HOST:PORT/DB" or, with TLS,
            "rediss://...".
        ttl, prefix, timeout: of Redis; see `RedisScores`, whose defaults None stands for.

    Raises:
        ConfigError: for anything else, and for settings of Redis without it.
        MissingDependencyError: if the redis package is not installed.
    """
    if written.startswith(("redis://", "rediss://")):
        return RedisScores(
            written,
            ttl=TTL if ttl is None else ttl,
            prefix=PREFIX if prefix is None else prefix,
            timeout=TIMEOUT if timeout is None else timeout,
        )
    match = re.fullmatch(r"memory(?::([0-9]{1,8}))?", written)
    size = _MEMORY if match is None or match[1] is None else int(match[1])
    if match is None or not 0 < size <= _MOST:
        # An address may hold a password.
        seen = "this" if "@" in written or "://" in written else shown(written)
        raise ConfigError(
            f"{seen} is no score cache; allowed are 'memory', 'memory:MIB' with 1 to {_MOST} MiB, "
            "'redis://HOST:PORT/DB' and 'rediss://HOST:PORT/DB'"
        )
    given = {"ttl": ttl, "prefix": prefix, "timeout": timeout}
    useless = sorted(name for name, value in given.items() if value is not None)
    if useless:
        raise ConfigError(
            f"{', '.join(useless)} of a score cache is for Redis, and {shown(written)} is none; "
            "leave it out"
        )
    return MemoryScores(size * 2**20)
