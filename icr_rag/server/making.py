"""An engine of what there is to serve: settings, a reranker, or an engine."""

from __future__ import annotations

from functools import partial

from icr_rag.config import RerankerConfig
from icr_rag.reranker import Reranker
from icr_rag.server.call import Answers
from icr_rag.server.engine import Engine
from icr_rag.server.known import OpenScores
from icr_rag.server.score_choice import check_served, load_served, serve_given
from icr_rag.server.settings import ServerSettings
from icr_rag.server.watcher import Watcher

#: What can be served.
Source = RerankerConfig | Reranker | Answers


def make_engine(
    source: Source,
    settings: ServerSettings,
    *,
    cache: OpenScores | None = None,
    watcher: Watcher | None = None,
) -> tuple[Answers, Engine | None]:
    """What answers for a source, and the engine in it; None for what answers by itself.

    Args:
        cache: gives the known scores of a loaded reranker; not for an engine, which has its own.

    Raises:
        ConfigError: as `icr_rag.server.score_choice.check_served`.
    """
    if isinstance(source, RerankerConfig):
        check_served(source)
        engine = Engine(
            source, partial(load_served, source), settings, cache=cache, watcher=watcher
        )
        return engine, engine
    if isinstance(source, Reranker):
        check_served(source.config)
        engine = Engine(
            source.config, partial(serve_given, source), settings, cache=cache, watcher=watcher
        )
        return engine, engine
    return source, source if isinstance(source, Engine) else None
