"""Scores in a Redis that several servers share, and that may be gone, slow or wrong.

No request fails for it: what cannot be read counts as not there, what cannot be written is not
kept. After a failure it is left alone for a few seconds, so that a Redis which does not answer
costs one timeout now and then and not one per request; then it is asked again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from icr_rag.errors import ConfigError, require
from icr_rag.server.score_packing import pack, unpack
from icr_rag.server.score_stats import CacheStats, Counting

if TYPE_CHECKING:
    import redis

logger = logging.getLogger(__name__)

#: Seconds for which a score is kept: a week.
TTL = 7 * 24 * 3600.0
#: What keys begin with.
PREFIX = "icr_rag:score:"
#: Seconds in which Redis must answer; a pass of the model takes longer.
TIMEOUT = 0.25

#: Seconds between two warnings.
_QUIET = 60.0
#: Keys in one command; others wait behind it.
_TOGETHER = 1000


class Commands(Protocol):
    """Commands that are sent together."""

    def set(self, name: bytes, value: bytes, *, px: int) -> object:
        """Keep a value for so many milliseconds."""

    def execute(self) -> object:
        """Send them."""


class Client(Protocol):
    """What is needed of ``redis.Redis``."""

    def mget(self, keys: Sequence[bytes]) -> object:
        """The value of each key; None where there is none."""

    def pipeline(self, transaction: bool = True) -> Commands:
        """Commands to be sent together."""

    def close(self) -> None:
        """Close its connections."""


class RedisScores:
    """A score cache in Redis. Safe under threads.

    Args:
        url: ``redis://`` or, with TLS, ``rediss://``; as the redis package reads it. It may hold a
            password and is never shown.
        ttl: seconds for which a score is kept, from when it was written.
        prefix: what its keys begin with, beside those of other programs.
        timeout: seconds in which it must connect, and answer.
        pause: seconds for which it is not asked after a failure.
        clock: what the seconds between failures are read from.
        client: in place of one for ``url``.

    Raises:
        MissingDependencyError: if the redis package is not installed.
        ConfigError: if an argument cannot be. Nothing is connected to yet.
    """

    def __init__(
        self,
        url: str,
        *,
        ttl: float = TTL,
        prefix: str = PREFIX,
        timeout: float = TIMEOUT,
        pause: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        client: Client | None = None,
    ) -> None:
        for name, value, least in (("ttl", ttl, 0.001), ("timeout", timeout, 0.001),
                                   ("pause", pause, 0.0)):  # fmt: skip
            if not least <= value < 1e10:
                raise ConfigError(
                    f"{name}={value} of a score cache in Redis is not allowed; it is a number of "
                    f"seconds, at least {least:g}"
                )
        self._milliseconds = max(1, round(1000 * ttl))
        self._prefix = prefix.encode()
        self._pause = pause
        self._clock = clock
        self._counting = Counting()
        self._lock = threading.Lock()
        self._asleep_until: float | None = None
        self._told: float | None = None
        self._failures, self._client = _failures(), client or _connect(url, timeout)

    @property
    def stats(self) -> CacheStats:
        """What it has done; how much Redis holds is not known."""
        return self._counting.stats

    def get(self, keys: Sequence[bytes]) -> list[float | None]:
        """The score of each key; None where there is none, or Redis fails."""
        found: list[float | None] = [None] * len(keys)
        if keys and self._awake():
            try:
                stored = [value for part in _parts(keys) for value in self._read(part)]
                found = self._unpacked(keys, stored)
            except self._failures as error:
                self._failed(error)
        misses = found.count(None)
        self._counting.found(len(keys) - misses, misses)
        return found

    def put(self, scores: Mapping[bytes, float]) -> None:
        """Keep these, unless Redis fails.

        Raises:
            InputError: for NaN and infinity, which no score is.
        """
        packed = {key: pack(key, score) for key, score in scores.items()}
        if not packed or not self._awake():
            return
        try:
            for part in _parts(list(packed)):
                commands = self._client.pipeline(transaction=False)
                for key in part:
                    commands.set(self._prefix + key, packed[key], px=self._milliseconds)
                commands.execute()
        except self._failures as error:
            self._failed(error)

    def close(self) -> None:
        """Close its connections."""
        try:
            self._client.close()
        except self._failures as error:
            self._failed(error)

    def _read(self, keys: Sequence[bytes]) -> list[object]:
        values = self._client.mget([self._prefix + key for key in keys])
        if not isinstance(values, list) or len(values) != len(keys):
            raise ValueError(f"no {len(keys)} values came back")
        return values

    def _unpacked(self, keys: Sequence[bytes], stored: Sequence[object]) -> list[float | None]:
        found: list[float | None] = []
        wrong = 0
        for key, value in zip(keys, stored, strict=True):
            score = unpack(key, value) if isinstance(value, bytes) else None
            wrong += value is not None and score is None
            found.append(score)
        if wrong:
            self._counting.error(wrong)
            self._tell("%d values in it are no scores of this library; they are computed", wrong)
        return found

    def _awake(self) -> bool:
        """Whether it may be asked now."""
        with self._lock:
            if self._asleep_until is None or self._clock() >= self._asleep_until:
                return True
        self._counting.skip()
        return False

    def _failed(self, error: Exception) -> None:
        self._counting.error()
        with self._lock:
            self._asleep_until = self._clock() + self._pause
        # Its text may hold the address.
        self._tell("%s; scores are computed without it", type(error).__name__)

    def _tell(self, message: str, *values: object) -> None:
        with self._lock:
            now = self._clock()
            if self._told is not None and now - self._told < _QUIET:
                return
            self._told = now
        logger.warning("the score cache in Redis: " + message, *values)


def _parts(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for begin in range(0, len(keys), _TOGETHER):
        yield keys[begin : begin + _TOGETHER]


def _failures() -> tuple[type[Exception], ...]:
    """What a Redis that fails raises: its client's errors, the network's, and answers that cannot
    be read."""
    module = require("redis", "redis", "A score cache in Redis")
    found: type[Exception] = module.RedisError
    return found, OSError, ValueError


def _connect(url: str, timeout: float) -> Client:
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    try:
        client: redis.Redis = Redis.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            # Its own retries take many times the timeout.
            retry=Retry(NoBackoff(), 0),
        )
        # Options in the address are looked at no sooner than a connection is made; none is opened.
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)
    # Whatever it says may repeat a password.
    except (ValueError, TypeError):
        raise ConfigError(
            "the address of the score cache cannot be read; it is like "
            "redis://:PASSWORD@HOST:6379/0, or rediss:// with TLS"
        ) from None
    return _Official(client)


class _Official:
    """The official client, with the types of what is used of it."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def mget(self, keys: Sequence[bytes]) -> object:
        return self._client.mget(list(keys))

    def pipeline(self, transaction: bool = True) -> Commands:
        commands: Commands = self._client.pipeline(transaction=transaction)
        return commands

    def close(self) -> None:
        self._client.close()
