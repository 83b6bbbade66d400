"""An engine of what there is to serve: settings, a reranker, or an engine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from icr_rag.config import RerankerConfig
from icr_rag.reranker import Reranker
from icr_rag.server.call import Answers
from icr_rag.server.engine import Engine
from icr_rag.server.known import KnownScores
from icr_rag.server.ranks import Ranks
from icr_rag.server.score_choice import check_served, load_served, serve_given
from icr_rag.server.settings import ServerSettings
from icr_rag.server.watcher import Watcher

#: What can be served.
Source = RerankerConfig | Reranker | Answers


def make_engine(
    source: Source,
    settings: ServerSettings,
    *,
    cache: Callable[[Ranks], KnownScores] | None = None,
    watcher: Watcher | None = None,
) -> Engine | None:
    """The engine of a source; None for what answers by itself.

    Args:
        cache: gives the known scores of a loaded reranker; not for an engine, which has its own.

    Raises:
        ConfigError: as `icr_rag.server.score_choice.check_served`.
    """
    if isinstance(source, RerankerConfig):
        check_served(source)
        load = partial(load_served, source)
        return Engine(source, load, settings, cache=cache, watcher=watcher)
    if isinstance(source, Reranker):
        check_served(source.config)
        load = partial(serve_given, source)
        return Engine(source.config, load, settings, cache=cache, watcher=watcher)
    return source if isinstance(source, Engine) else None
