"""``icr-rag mcp``: the reranker as a tool of agents, by the Model Context Protocol."""

from __future__ import annotations

import asyncio
import socket
import threading
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from icr_rag import RerankerConfig
from icr_rag.cli.console import messages, quiet_bars
from icr_rag.cli.options import with_reranker_options
from icr_rag.cli.serve_options import NOT_OF_CALLS
from icr_rag.errors import ConfigError, ICRError
from icr_rag.server.addresses import url_of
from icr_rag.server.mcp_app import (
    MOST_DOCUMENTS,
    PATH,
    check_installed,
    http_app,
    mcp_server,
    serve_stdio,
)
from icr_rag.server.one_by_one import OneByOne

if TYPE_CHECKING:
    from starlette.applications import Starlette


class Transport(str, Enum):
    """How clients reach it."""

    stdio = "stdio"
    http = "http"


@with_reranker_options(without=NOT_OF_CALLS)
def mcp(
    config: RerankerConfig,
    transport: Annotated[
        Transport,
        typer.Option(
            metavar="stdio|http",
            help="stdio: a client starts this command and talks to it over standard input and "
            "output; http: streamable HTTP, for clients that know an address.",
        ),
    ] = Transport.stdio,
    host: Annotated[str, typer.Option(help="For http: the address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="For http; 0: any that is free.")
    ] = 8788,
    allow_public: Annotated[
        bool,
        typer.Option(
            "--allow-public", help="Listen on an address that others reach; there are no keys."
        ),
    ] = False,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:PORT]",
            help="For http: a name by which clients call this server, beside those of this "
            "machine; 'NAME:*' for any port. May be given several times.",
        ),
    ] = None,
    allowed_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN", help="For http: a web page's origin that may call this server."
        ),
    ] = None,
    max_documents: Annotated[
        int, typer.Option(min=1, help="Most documents of one call.")
    ] = MOST_DOCUMENTS,
) -> None:
    """Offer ranking to agents as a tool, by the Model Context Protocol.

    icr-rag mcp

    icr-rag mcp --transport http --port 8788
    """
    check_installed()
    answers = OneByOne(config.replace(fusion="none"))
    server = mcp_server(answers, most_documents=max_documents)
    quiet_bars(config)
    if transport is Transport.stdio:
        _start_loading(answers)
        asyncio.run(serve_stdio(server))
        return
    app = http_app(
        server,
        host=host,
        allow_public=allow_public,
        allowed_hosts=allowed_host or (),
        allowed_origins=allowed_origin or (),
    )
    with _listening(host, port) as listening:
        _start_loading(answers)
        _serve_http(app, listening)


def _start_loading(answers: OneByOne) -> None:
    """Load the model while the client says hello; a call that comes before waits for it."""

    def load() -> None:
        try:
            answers.load()
        # Calls are told in turn.
        except ICRError as error:
            messages.print(Text(f"error: {error}", style="bold red"), soft_wrap=True)

    threading.Thread(target=load, name="icr_rag_load", daemon=True).start()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family)
    except OSError as error:
        raise ConfigError(
            f"host={host!r}, port={port} cannot be listened on: {error.strerror or error}; "
            "choose another port, or 0 for any that is free"
        ) from error


def _serve_http(app: Starlette, listening: socket.socket) -> None:
    import uvicorn

    messages.print(Text(f"listening on {url_of(listening)}{PATH}"), soft_wrap=True)
    # Its own logging would write to standard output.
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    asyncio.run(server.serve(sockets=[listening]))
