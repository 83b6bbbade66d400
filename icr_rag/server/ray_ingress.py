"""The server's own application in front of replicas: limits, keys, metrics and deadlines are the
ingress's, rankings are not."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from icr_rag.config import RerankerConfig
from icr_rag.errors import ConfigError, require
from icr_rag.server.call import Answers, RerankAnswer, RerankCall
from icr_rag.server.limits import check_call
from icr_rag.server.settings import ServerSettings
from icr_rag.server.telling import deadline_of, told
from icr_rag.server.watcher import Watcher

if TYPE_CHECKING:
    from fastapi import FastAPI

#: Where each process finds the API key, so that it is never sent from one to another.
_KEY = "ICR_RAG_API_KEY"


class IngressAnswers:
    """Other answers, with what the server's engine does before and after a ranking.

    Args:
        answers: what ranks.
        settings: limits, and the deadline of a call that names none.
        watcher: told of answers.
    """

    def __init__(self, answers: Answers, settings: ServerSettings, watcher: Watcher) -> None:
        self._answers = answers
        self._settings = settings
        self._watcher = watcher

    @property
    def model(self) -> str:
        """The name of the model that is served where a call names none."""
        return self._answers.model

    async def rerank(self, call: RerankCall) -> RerankAnswer:
        """Rank a call's documents; see `icr_rag.server.call.Answers.rerank`.

        Raises:
            InputError: as `icr_rag.server.limits.check_call`.
            ICRError: as `icr_rag.Reranker.rank`.
        """
        own = told.get()
        # Fields of documents are a reranker's affair; all have a text here.
        check_call(call, self._settings, RerankerConfig())
        deadline = deadline_of(call, self._settings.deadline_ms)
        if own is not None:
            own.documents = len(call.documents)
            if deadline is not None:
                # What its body took to come is gone.
                deadline = max(1.0, deadline - 1000 * (time.perf_counter() - own.arrived))
        answer = await self._answers.rerank(dataclasses.replace(call, deadline_ms=deadline))
        self._watcher.answered(answer, 0)
        if own is not None:
            own.answer, own.together = answer, 1
        return answer


def make_server(server: Mapping[str, object]) -> Callable[[Answers], FastAPI]:
    """The function that makes ``icr-rag serve``'s application over other answers.

    Where Serve listens is not known here, so that it is taken for an address that others reach,
    unless ``host`` says so: there must be a key, in ``keys_file`` or ICR_RAG_API_KEY, or
    ``allow_public``.

    Args:
        server: fields of `ServerSettings`; ``port`` is Serve's affair, and without effect.

    Raises:
        ConfigError: if a setting is wrong; here, rather than in another process.
        MissingDependencyError: without FastAPI.
    """
    for module in ("fastapi", "prometheus_client"):
        require(module, "server", "The server")
    if "api_key" in server:
        raise ConfigError(
            f"api_key among the settings would be sent through the cluster; set {_KEY} on each "
            "machine, or keys_file"
        )
    _settings(server)

    def make(answers: Answers) -> FastAPI:
        from icr_rag.server.app import create_app
        from icr_rag.server.meters import Meters

        settings, meters = _settings(server), Meters()
        return create_app(IngressAnswers(answers, settings, meters), settings, meters=meters)

    return make


def engine_settings(server: Mapping[str, object], model: str) -> dict[str, object]:
    """Of a server's settings those that its replicas' engines need, without where it listens, who
    may call, and the deadline, which calls bring along."""
    outer = ("host", "port", "keys_file", "api_key", "allow_public", "deadline_ms")
    kept = {name: value for name, value in server.items() if name not in outer}
    return {**kept, "model_name": model}


def _settings(server: Mapping[str, object]) -> ServerSettings:
    return ServerSettings(**{"host": "0.0.0.0", "api_key": os.environ.get(_KEY), **server})  # noqa: S104
