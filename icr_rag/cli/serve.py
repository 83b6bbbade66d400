"""``icr-rag serve``: a reranker over HTTP, for every client that speaks to one."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from icr_rag import Reranker, RerankerConfig
from icr_rag.cli.console import quiet_bars, write
from icr_rag.cli.options import with_reranker_options
from icr_rag.cli.serve_options import NOT_OF_CALLS, with_server_options
from icr_rag.errors import ICRError, require
from icr_rag.server.settings import ServerSettings

if TYPE_CHECKING:
    from icr_rag.server.engine import Engine

_EXAMPLE = '{"query": "what melts first?", "documents": ["Tin melts at 232 C.", "Lead is soft."]}'


# A deadline is the server's.
@with_reranker_options(without=(*NOT_OF_CALLS, "deadline_ms"))
@with_server_options
def serve(config: RerankerConfig, settings: ServerSettings) -> None:
    """Serve a reranker over HTTP, in the JSON shapes of Cohere, Jina, vLLM, TEI and others.

    Scores are probabilities where the profile in use has a calibration, else explained scores;
    --score-mode asks for others by name.

    icr-rag serve

    icr-rag serve --host 0.0.0.0 --keys-file keys.txt --config reranker.yaml
    """
    for module in ("fastapi", "uvicorn", "prometheus_client"):
        require(module, "server", "The server")
    from icr_rag.server.app import create_app
    from icr_rag.server.logs import write_logs
    from icr_rag.server.patient import PatientServer

    app = create_app(config, settings)
    engine = app.state.engine
    write_logs(settings.log_format)
    quiet_bars(config)
    server = PatientServer(
        app,
        settings,
        on_start=lambda url: _tell_start(url, config),
        on_ready=lambda url: _tell_ready(url, engine, settings),
    )
    asyncio.run(server.serve())
    if isinstance(engine.failure, ICRError):
        raise engine.failure


def _tell_start(url: str, config: RerankerConfig) -> None:
    """Where it listens, at once: loading may take a while."""
    _print(f"listening on {url}, loading {config.model}")


def _tell_ready(url: str, engine: Engine, settings: ServerSettings) -> None:
    """What ranks, and how to ask it."""
    config, reranker = engine.config, engine.reranker
    method = config.settled().scoring
    reason = ""
    if isinstance(reranker, Reranker):
        method, reason = reranker.scorer.config.scoring, f" ({reranker.scorer.reason})"
    _print(f"ready: {engine.model}, scoring {method}{reason}, score_mode {config.score_mode}")
    keyed = settings.keys_file is not None or settings.api_key is not None
    key = " -H 'Authorization: Bearer KEY'" if keyed else ""
    # From outside, where it listens on all addresses.
    url = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    _print(f"try: curl {url}/v1/rerank{key} -H 'Content-Type: application/json' -d '{_EXAMPLE}'")


def _print(line: str) -> None:
    write(f"{line}\n")
    # Whoever waits for it reads a pipe.
    sys.stdout.flush()
