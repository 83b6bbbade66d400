"""``icr-rag serve``: a reranker over HTTP, for every client that speaks to one."""

from __future__ import annotations

import asyncio
from pathlib import Path

from icr_rag import RerankerConfig
from icr_rag.cli.console import messages, prepare, quiet_bars
from icr_rag.cli.options import with_reranker_options
from icr_rag.cli.serve_options import with_server_options
from icr_rag.errors import ICRError, require
from icr_rag.server.settings import ServerSettings

#: What leaves documents out of an answer, counts the first stage, or answers with no ranking; a
#: deadline is the server's.
_LEFT_OUT = ("top_n", "score_threshold", "min_answerable", "near_duplicates", "on_error", "fusion",
             "fusion_weight", "first_stage_weights", "embedder", "deadline_ms")  # fmt: skip


@with_reranker_options(without=_LEFT_OUT)
@with_server_options
def serve(config: RerankerConfig, settings: ServerSettings) -> None:
    """Serve a reranker over HTTP, in the JSON shapes of Cohere, Jina, vLLM, TEI and others.

    Scores are probabilities where the profile in use has a calibration, else explained scores;
    --score-mode asks for others by name.

    icr-rag serve

    ICR_RAG_API_KEY=... icr-rag serve --host 0.0.0.0 --config reranker.yaml
    """
    for module in ("fastapi", "uvicorn", "prometheus_client"):
        require(module, "server", "The server")
    from icr_rag.server.app import create_app
    from icr_rag.server.logs import write_logs
    from icr_rag.server.patient import PatientServer

    app = create_app(config, settings)
    write_logs(settings.log_format)
    quiet_bars(config)
    server = PatientServer(app, settings, _tell)
    asyncio.run(server.serve())
    failure = app.state.engine.failure
    if isinstance(failure, ICRError):
        raise failure
