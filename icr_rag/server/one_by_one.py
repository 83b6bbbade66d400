"""Answers calls with a reranker, one after the other: enough for one agent on this machine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

from icr_rag.config import RerankerConfig
from icr_rag.errors import ConfigError, InputError
from icr_rag.reranker import Reranker
from icr_rag.server.call import UNFITTING, RerankAnswer, RerankCall
from icr_rag.server.score_choice import load_absolute, load_warm


class OneByOne:
    """Answers calls (`icr_rag.server.call.Answers`). Loads its reranker when it is first needed.

    Args:
        config: the settings; see `load_comparable`.
        load: gives the reranker; called once, in a thread.
    """

    def __init__(
        self,
        config: RerankerConfig,
        load: Callable[[RerankerConfig], Reranker] | None = None,
    ) -> None:
        self._config = config
        self._load = load or load_comparable
        self._reranker: Reranker | None = None
        self._lock = threading.Lock()

    @property
    def model(self) -> str:
        """The model's name; of a path the last part."""
        return Path(self._config.model).name

    def load(self) -> Reranker:
        """The reranker; loaded on the first call, and again if that failed. Safe under threads."""
        with self._lock:
            if self._reranker is None:
                self._reranker = self._load(self._config)
            return self._reranker

    async def rerank(self, call: RerankCall) -> RerankAnswer:
        """Rank a call's documents; see `icr_rag.server.call.Answers`."""
        reranker = self._reranker
        if reranker is None:
            reranker = await asyncio.to_thread(self.load)
        try:
            ranking = await reranker.arank(
                call.query,
                call.documents,
                deadline_ms=call.deadline_ms,
                instruction=call.instruction,
                max_tokens_per_doc=call.max_tokens_per_doc,
            )
        except ConfigError as error:
            # The settings alone were found to be right when it was loaded.
            raise InputError(UNFITTING) from error
        # A setting may leave documents out of the hits; they have a score, and are last.
        order = [hit.index for hit in ranking]
        left = sorted(set(range(len(call.documents))) - set(order))
        order += sorted(left, key=lambda place: -ranking.scores[place])
        return RerankAnswer(
            model=self.model,
            scores=ranking.scores,
            order=tuple(order),
            probability=reranker.config.score_mode == "probability",
            tokens=ranking.usage.tokens,
            truncated=ranking.usage.truncated,
            degraded=ranking.degraded,
            seconds=tuple(ranking.usage.seconds.items()),
        )

    def close(self) -> None:
        """Let go of the model."""
        with self._lock:
            if self._reranker is not None:
                self._reranker.close()


def load_comparable(config: RerankerConfig) -> Reranker:
    """A loaded reranker whose scores compare across calls, if the settings leave that open.

    ``score_mode`` that is not given is "probability" where the profile in use has a calibration,
    else "explained" where the method has such scores, else as ever.

    Raises:
        ConfigError: if a setting does not fit the model.
        ModelLoadError: if the model cannot be loaded.
    """
    if "score_mode" in config.model_fields_set:
        return load_warm(config)
    try:
        return load_absolute(config)
    except ConfigError:
        return load_warm(config)
