"""The server's own application, in the ingress's process."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from icr_rag.server.call import Answers

if TYPE_CHECKING:
    from fastapi import FastAPI


def make_server(server: Mapping[str, object]) -> Callable[[Answers], FastAPI]:
    """The function that makes ``icr-rag serve``'s application over other answers.

    Args:
        server: settings of the server; where it listens is Serve's affair.

    Raises:
        ConfigError: if a setting is wrong; here, rather than in another process.
    """
    settings = importlib.import_module("icr_rag.server.settings").ServerSettings(**server)
    create_app: Callable[..., FastAPI] = importlib.import_module("icr_rag.server.app").create_app

    def make(answers: Answers) -> FastAPI:
        return create_app(settings, answers)

    return make
