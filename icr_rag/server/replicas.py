"""Calls that go to one of many replicas, and to another one when that is lost.

Nothing here knows how replicas are reached: `Replicas` does, of which `icr_rag.server.ray_handles`
is the one for Ray.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from icr_rag.errors import ConfigError, ICRError, InputError, OverloadedError, shown
from icr_rag.server.affinity import document_set_key
from icr_rag.server.call import RerankAnswer, RerankCall

logger = logging.getLogger(__name__)

#: Seconds before the second attempt; each further one waits twice as long.
_PAUSE = 0.05
#: Seconds beyond a call's deadline in which a replica may still say that it was late.
_GRACE = 1.0
#: Milliseconds that a last attempt after the deadline is given: its answer is the given order.
_LEAST_MS = 1.0


class ReplicaLostError(Exception):
    """A replica died or cannot be reached; the call may have been begun, and changed nothing."""


class Replicas(Protocol):
    """The replicas of one model."""

    async def __call__(self, call: RerankCall, key: str) -> RerankAnswer | ICRError:
        """What one replica answers; an error that is the call's own is returned, not raised.

        Args:
            call: may be asked again, of another replica.
            key: calls with the same key go to the same replica while it can take them.

        Raises:
            ReplicaLostError: if the replica was lost.
            OverloadedError: if no replica has room.
        """


class ReplicatedAnswers:
    """`icr_rag.server.call.Answers` by replicas of one model or several.

    With one model, any name is answered by it: clients send names of their own. With several, a
    call that names none goes to the first, and one that names another is refused.

    A call whose replica is lost goes to another one: a ranking changes nothing, so that it may be
    begun twice. What is left of its deadline goes along. After its deadline it is sent at most
    once more, with next to no time, so that it still comes back: in the given order, and told so.

    Args:
        models: replicas by the name of their model; the first one is the default.
        attempts: how many replicas a call may be sent to, from 1.
        patience: seconds that an attempt without a deadline may take, waiting included.
        clock: seconds; for tests.
        pause: waits these seconds; for tests.

    Raises:
        ConfigError: for no models, or numbers that are not allowed.
    """

    def __init__(
        self,
        models: Mapping[str, Replicas],
        *,
        attempts: int = 3,
        patience: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if not models:
            raise ConfigError("models is empty; at least one must be served")
        if attempts < 1:
            raise ConfigError(f"attempts={attempts}; allowed are whole numbers from 1")
        if not patience > 0:
            raise ConfigError(f"patience={patience}; allowed are seconds above 0")
        self._models = dict(models)
        self._attempts = attempts
        self._patience = patience
        self._clock = clock
        self._pause = pause
        #: Calls that went to another replica because theirs was lost, so far.
        self.retried = 0

    @property
    def model(self) -> str:
        """The name of the model that is served where a call names none."""
        return next(iter(self._models))

    @property
    def models(self) -> tuple[str, ...]:
        """The names of all models that are served."""
        return tuple(self._models)

    async def rerank(self, call: RerankCall) -> RerankAnswer:
        """Rank a call's documents; see `icr_rag.server.call.Answers.rerank`.

        Raises:
            InputError: for a model that is not among several that are served.
            OverloadedError: if no replica could be reached, or had room, in time.
            ICRError: as `icr_rag.Reranker.rank`.
        """
        replicas = self._models[self._name(call.model)]
        key = document_set_key(call.documents)
        begun = self._clock()
        for attempt in range(1, self._attempts + 1):
            left = self._left(call, begun)
            try:
                outcome = await self._ask(replicas, call, key, left)
            except ReplicaLostError as error:
                if attempt == self._attempts or (left is not None and left <= 0):
                    raise OverloadedError(
                        f"{attempt} replicas were lost while they ranked; try again later"
                    ) from error
                self.retried += 1
                logger.warning("a replica was lost; its call goes to another one (%s)", error)
                await self._pause(_PAUSE * 2 ** (attempt - 1))
                continue
            if isinstance(outcome, ICRError):
                raise outcome
            return outcome
        raise AssertionError("the last attempt returns or raises")

    def _name(self, asked: str | None) -> str:
        if asked is None or len(self._models) == 1:
            return self.model
        if asked not in self._models:
            raise InputError(
                f"model={shown(asked)} is not served; served are "
                f"{', '.join(map(repr, self._models))}"
            )
        return asked

    def _left(self, call: RerankCall, begun: float) -> float | None:
        """Milliseconds until the call's deadline; None where it has none."""
        if call.deadline_ms is None:
            return None
        return call.deadline_ms - 1000 * (self._clock() - begun)

    async def _ask(
        self, replicas: Replicas, call: RerankCall, key: str, left: float | None
    ) -> RerankAnswer | ICRError:
        """One attempt, which ends: a router waits for ever where there is no replica."""
        seconds = self._patience
        if left is not None:
            left = max(left, _LEAST_MS)
            seconds = min(seconds, left / 1000 + _GRACE)
            call = dataclasses.replace(call, deadline_ms=left)
        try:
            return await asyncio.wait_for(replicas(call, key), seconds)
        except asyncio.TimeoutError as error:
            raise OverloadedError(
                f"no replica answered within {seconds:.1f} s; try again later, or let more "
                "replicas run"
            ) from error
