"""The application: routes, what stands before them, and a life from loading to shutting down."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from icr_rag import __version__
from icr_rag.config import RerankerConfig
from icr_rag.errors import ConfigError, ICRError
from icr_rag.reranker import Reranker
from icr_rag.server.bodies import Bodies
from icr_rag.server.call import Answers
from icr_rag.server.failures import failure_of
from icr_rag.server.guard import Guard
from icr_rag.server.health import health_routes, states_told
from icr_rag.server.keys import Keys
from icr_rag.server.making import Source, make_engine
from icr_rag.server.meters import Meters
from icr_rag.server.outermost import Outermost
from icr_rag.server.playground import playground_routes
from icr_rag.server.routes import rerank_routes
from icr_rag.server.score_cache import score_cache
from icr_rag.server.scores_kept import scores_in
from icr_rag.server.settings import ServerSettings
from icr_rag.server.telling import told
from icr_rag.server.traces import TracedRequests

logger = logging.getLogger(__name__)

#: Makes the routes by which clients reach what answers.
Routes = Callable[[Answers], APIRouter]


def create_app(
    source: Source,
    settings: ServerSettings | None = None,
    *,
    routes: Sequence[Routes] = (),
    meters: Meters | None = None,
) -> FastAPI:
    """An ASGI application that serves a reranker.

    Making it loads nothing: its lifespan does, while it answers ``/health`` already. How it is
    logged is left to the process; its loggers are below "icr_rag.server".

    Args:
        source: settings of a reranker, of which the server makes one whose scores compare
            (`icr_rag.server.score_choice.load_served`); or a reranker, which is not closed; or an
            engine that is not started yet, and tells ``meters`` by itself; or what else answers.
        settings: None: the defaults.
        routes: makers of routes beside those of re-ranking and of the page at ``/``.
        meters: None: new ones.

    Raises:
        ConfigError: if the file of keys or the score cache cannot be used, or a setting leaves
            documents out; for a score cache beside what answers by itself.
        MissingDependencyError: if Redis is asked for and its client is not installed.
    """
    settings = settings or ServerSettings()
    meters = meters or Meters()
    if settings.score_cache is not None and not isinstance(source, (RerankerConfig, Reranker)):
        # Its value may hold a password.
        raise ConfigError(
            f"score_cache is for settings or a reranker; {type(source).__name__} has a cache of "
            "its own or none: leave it out"
        )
    cache = None if settings.score_cache is None else score_cache(settings.score_cache)
    opened = None if cache is None else scores_in(cache)
    answers, engine = make_engine(source, settings, cache=opened, watcher=meters)
    keys = Keys(settings)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        if engine is not None:
            engine.start()
        try:
            yield
        finally:
            if engine is not None:
                await engine.stop()
                if isinstance(source, RerankerConfig) and isinstance(engine.reranker, Reranker):
                    engine.reranker.close()
            if cache is not None:
                cache.close()

    stands_before = [
        Middleware(Outermost, meters=meters, log=settings.access_log),
        Middleware(Guard, keys=keys),
        Middleware(Bodies, settings=settings),
    ]
    if engine is not None and engine.config.traces != "none":
        stands_before.insert(1, Middleware(TracedRequests))
    # The framework's pages of the description load scripts from elsewhere; /openapi.json does not.
    app = FastAPI(
        title="icr_rag",
        version=__version__,
        lifespan=life,
        middleware=stands_before,
        docs_url=None,
        redoc_url=None,
    )
    for kind in (ICRError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _answer_failure)
    app.include_router(health_routes(engine, meters))
    if engine is not None:
        meters.show_states(partial(states_told, engine))
    if cache is not None:
        meters.show_cache(lambda: cache.stats)
    app.include_router(rerank_routes(answers, max_documents=settings.max_documents))
    app.include_router(playground_routes())
    for make in routes:
        app.include_router(make(answers))
    app.state.engine = engine
    return app


async def _answer_failure(request: Request, error: Exception) -> JSONResponse:
    """What a client is told of an error in a route."""
    failure = failure_of(error)
    own = told.get()
    if failure.status >= 500:
        name = "" if own is None else own.request_id
        logger.error("request %s failed: %s", name, type(error).__name__)
        logger.debug("request %s failed", name, exc_info=error)
    # Which methods a path has, for one.
    given = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    return JSONResponse(failure.body, failure.status, given | failure.headers)
