"""A score cache, and the keys of the reranker that is served."""

from __future__ import annotations

from icr_rag.errors import ConfigError
from icr_rag.reranker import Reranker
from icr_rag.server.known import KnownScores, OpenScores
from icr_rag.server.ranks import Ranks
from icr_rag.server.score_cache import ScoreCache
from icr_rag.server.score_key import ScoreKeys
from icr_rag.server.watcher import Watcher


def scores_in(cache: ScoreCache) -> OpenScores:
    """Gives the known scores of a reranker, once it is loaded: its weights are part of the keys."""

    def opened(reranker: Ranks, watcher: Watcher) -> KnownScores:
        if not isinstance(reranker, Reranker):
            raise ConfigError(
                f"a {type(reranker).__name__} has no keys for its scores; leave out score_cache"
            )
        engine = reranker.engine
        with engine.lock:
            began, keys = engine.identity_at_a_glance(), ScoreKeys.of(reranker)
        # The model may be the caller's, who trains it or switches its adapters meanwhile.
        return KnownScores(
            cache, keys, watcher, valid=lambda: engine.identity_at_a_glance() == began
        )

    return opened
