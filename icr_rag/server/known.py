"""Scores that are known already, and a cache that may fail without a request failing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from icr_rag.deadline import Clock
from icr_rag.server.call import RerankCall
from icr_rag.server.ranks import Ranks
from icr_rag.server.watcher import Watcher
from icr_rag.types import Document

logger = logging.getLogger(__name__)

#: Seconds between two warnings of a cache that fails.
_QUIET = 60.0
#: What is added to the key of a document that was cut when it was read.
_CUT = b"cut"


class ScoreStore(Protocol):
    """Where scores are kept by key. Slow ones and those that fail are put up with."""

    def get(self, keys: Sequence[bytes]) -> list[float | None]:
        """The score of each key; None where there is none."""

    def put(self, scores: Mapping[bytes, float]) -> None:
        """Keep these."""


class ScoreKey(Protocol):
    """Names everything that a score depends on."""

    def __call__(
        self, query: str, document: Document, instruction: str | None, max_tokens: int | None
    ) -> bytes:
        """The key of a query and what is read of a document."""


@dataclass(frozen=True)
class Known:
    """A score, and whether its document was cut when it was read."""

    score: float
    cut: bool


class KnownScores:
    """Looks scores up and keeps them. Called from threads.

    A score of a document that was cut stands under a key of its own, so that answers from the cache
    tell of it too.

    Args:
        store: where they are kept. key: names them.
        watcher: told of failures.
        valid: whether the weights are those that keys stand for; while they are not, nothing is
            known and nothing is kept.
    """

    def __init__(
        self,
        store: ScoreStore,
        key: ScoreKey,
        watcher: Watcher,
        clock: Clock = time.monotonic,
        valid: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._key = key
        self._watcher = watcher
        self._clock = clock
        self._valid = valid
        self._told: float | None = None

    def look_up(self, call: RerankCall, documents: Sequence[Document]) -> list[Known | None]:
        """What is known of each document; nothing of any where the cache fails."""
        try:
            if not self._valid():
                return [None] * len(documents)
            keys = self._keys(call, documents)
            found = self._store.get([*keys, *(key + _CUT for key in keys)])
            if len(found) != 2 * len(keys):
                raise ValueError(f"{len(found)} scores for {2 * len(keys)} keys")
        except Exception as error:  # noqa: BLE001
            self._failed(error)
            return [None] * len(documents)
        pairs = zip(found[: len(keys)], found[len(keys) :], strict=True)
        return [_known(whole, cut) for whole, cut in pairs]

    def keep(self, call: RerankCall, scores: Sequence[tuple[Document, Known]]) -> None:
        """Keep scores, each beside what was read of its document."""
        try:
            # Looked at after the scores were computed: they may be of other weights than these.
            if not self._valid():
                return
            keys = self._keys(call, [document for document, _ in scores])
            named = zip(keys, (known for _, known in scores), strict=True)
            self._store.put({key + _CUT if own.cut else key: own.score for key, own in named})
        except Exception as error:  # noqa: BLE001
            self._failed(error)

    def _keys(self, call: RerankCall, documents: Sequence[Document]) -> list[bytes]:
        instruction, most = call.instruction, call.max_tokens_per_doc
        return [self._key(call.query, own, instruction, most) for own in documents]

    def _failed(self, error: Exception) -> None:
        self._watcher.cache_failed()
        now = self._clock()
        if self._told is None or now - self._told >= _QUIET:
            self._told = now
            logger.warning(
                "the score cache failed (%s); scores are computed without it", type(error).__name__
            )


def _known(whole: float | None, cut: float | None) -> Known | None:
    if whole is not None:
        return Known(whole, cut=False)
    return None if cut is None else Known(cut, cut=True)


#: Gives the known scores of a loaded reranker, told whom to tell of failures; runs in a thread.
OpenScores = Callable[[Ranks, Watcher], KnownScores]
