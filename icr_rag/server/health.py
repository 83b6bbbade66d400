"""Whether the server lives, whether it is ready, and its numbers."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from icr_rag import __version__
from icr_rag.reranker import Reranker
from icr_rag.scoring.base import KeepsStates
from icr_rag.server.engine import Engine
from icr_rag.server.meters import Meters, StatesTold


def health_routes(engine: Engine | None, meters: Meters) -> APIRouter:
    """``/health``, ``/ready`` and ``/metrics``.

    Args:
        engine: None: another one answers, which is always ready.
    """
    router = APIRouter(tags=["server"])

    @router.head("/health", include_in_schema=False)
    @router.get("/health")
    async def health() -> dict[str, str]:
        """Whether the process lives; also while the model is loading."""
        return {"status": "ok", "version": __version__}

    @router.head("/ready", include_in_schema=False)
    @router.get("/ready", responses={503: {"description": "Not now."}})
    async def ready() -> JSONResponse:
        """Whether requests are answered: 503 until the model is warm, and while shutting down."""
        if engine is None or engine.ready:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": engine.state}, 503)

    @router.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Numbers for Prometheus."""
        return Response(meters.page(), media_type=CONTENT_TYPE_LATEST)

    return router


def states_told(engine: Engine) -> StatesTold | None:
    """What the store of document states tells; None where none are kept, or not yet."""
    reranker = engine.reranker
    if not isinstance(reranker, Reranker):
        return None
    scorer = reranker.scorer
    states = scorer.states if isinstance(scorer, KeepsStates) else None
    store = None if states is None else states.opened
    if store is None:
        return None
    stats = store.stats
    return stats.memory_hits, stats.disk_hits, stats.misses, store.held_bytes
