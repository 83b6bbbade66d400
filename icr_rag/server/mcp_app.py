"""The MCP server: one tool, over standard input and output or streamable HTTP.

Made of the official SDK's plain server: its convenient one sets up the logging of the process.
Over HTTP each request stands by itself (no sessions) and is answered with JSON. Pages in a browser
must not reach a server on this machine by a name of their own (DNS rebinding), so that the Host and
Origin of every request are looked at, as the specification asks.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import icr_rag
from icr_rag.errors import (
    ClosedError,
    ConfigError,
    InputError,
    ModelLoadError,
    OverloadedError,
    PromptTooLongError,
    require,
)
from icr_rag.server import mcp_tool
from icr_rag.server.addresses import is_loopback
from icr_rag.server.call import Answers

if TYPE_CHECKING:
    import mcp_types
    from mcp.server.context import ServerRequestContext
    from mcp.server.lowlevel import Server
    from starlette.applications import Starlette

logger = logging.getLogger(__name__)

#: Documents of one call.
MOST_DOCUMENTS = 1000
#: Bytes of one request over HTTP.
MOST_BYTES = 16 * 2**20
#: Where clients find it.
PATH = "/mcp"

#: What an agent can do something about, or wait for.
_OF_THE_CALL = (InputError, PromptTooLongError, OverloadedError, ClosedError)
_LOOPBACK_HOSTS = ("127.0.0.1:*", "localhost:*", "[::1]:*")


def mcp_server(answers: Answers, *, most_documents: int = MOST_DOCUMENTS) -> Server[object]:
    """A server of the tool ``rerank``.

    What goes wrong in a call is the tool's answer, in plain words and marked as an error, so that
    an agent can mend its call; texts of others stay in the log.

    Args:
        answers: what ranks.
        most_documents: of one call.

    Raises:
        MissingDependencyError: if the SDK is not installed.
    """
    check_installed()
    import mcp_types as types
    from mcp.server.lowlevel import Server
    from mcp.shared.exceptions import MCPError

    tool = types.Tool(
        name=mcp_tool.NAME,
        title=mcp_tool.TITLE,
        description=mcp_tool.DESCRIPTION,
        input_schema=mcp_tool.Arguments.model_json_schema(),
        output_schema=mcp_tool.Ranked.model_json_schema(mode="serialization"),
        annotations=types.ToolAnnotations(
            title=mcp_tool.TITLE,
            read_only_hint=True,
            destructive_hint=False,
            idempotent_hint=True,
            open_world_hint=False,
        ),
    )

    async def list_tools(
        context: ServerRequestContext[object], params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[tool])

    async def call_tool(
        context: ServerRequestContext[object], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        if params.name != tool.name:
            raise MCPError(types.INVALID_PARAMS, f"there is no such tool; there is {tool.name!r}")
        try:
            ranked = await _rank(answers, params.arguments or {}, most_documents)
        except _OF_THE_CALL as error:
            return _failed(str(error))
        except Exception as error:
            # Texts of a call stay out of logs, and what is known of this machine out of answers.
            own = f": {error}" if isinstance(error, (ConfigError, ModelLoadError)) else ""
            logger.error("the tool %s failed: %s%s", tool.name, type(error).__name__, own)
            logger.debug("how it failed", exc_info=error)
            return _failed(
                f"ranking failed ({type(error).__name__}), for a reason that is not in the call; "
                "the server's log says more"
            )
        return types.CallToolResult(
            content=[types.TextContent(type="text", text=ranked.model_dump_json())],
            structured_content=ranked.model_dump(mode="json"),
        )

    return Server(
        "icr_rag",
        version=icr_rag.__version__,
        title="icr_rag",
        instructions=mcp_tool.INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


async def serve_stdio(server: Server[object]) -> None:
    """Serve one client over this process's standard input and output until it closes them.

    What anything else prints meanwhile goes to standard error.
    """
    from mcp.server.stdio import stdio_server

    async with stdio_server() as (read, write):
        # Also what waits in sys.stdout's buffer until the process ends.
        with contextlib.redirect_stdout(sys.stderr):
            await server.run(read, write, server.create_initialization_options())


def http_app(
    server: Server[object],
    *,
    host: str = "127.0.0.1",
    allow_public: bool = False,
    allowed_hosts: Sequence[str] = (),
    allowed_origins: Sequence[str] = (),
) -> Starlette:
    """An ASGI application that serves streamable HTTP at `PATH`.

    Args:
        server: as `mcp_server` makes it.
        host: the address that it will listen on.
        allow_public: whether that may be one that other machines reach: there is no key.
        allowed_hosts: values of the Host header beside those of this machine, as "name",
            "name:port" or "name:*"; an address that others reach needs one.
        allowed_origins: likewise of the Origin header, which browsers send: "https://name".

    Raises:
        ConfigError: for an address that others reach, where that is not allowed.
    """
    from mcp.server.transport_security import TransportSecuritySettings

    if not is_loopback(host):
        if not allow_public:
            raise ConfigError(
                f"host={host!r} can be reached from other machines, and this server has no keys; "
                "leave it out to listen on this machine only, or set allow_public (with "
                "something before it that checks who calls)"
            )
        if not allowed_hosts:
            raise ConfigError(
                f"host={host!r} needs allowed_hosts, the names by which clients call this "
                "server ('rank.example.org:*'): others are refused"
            )
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=[*_LOOPBACK_HOSTS, *allowed_hosts],
        allowed_origins=[*(f"http://{own}" for own in _LOOPBACK_HOSTS), *allowed_origins],
    )
    return server.streamable_http_app(
        streamable_http_path=PATH,
        json_response=True,
        stateless_http=True,
        max_request_body_size=MOST_BYTES,
        transport_security=security,
        host=host,
    )


def check_installed() -> None:
    """Raise `MissingDependencyError` if the SDK, version 2 or newer, is not installed."""
    # Version 1 has no such package beside it.
    for module in ("mcp", "mcp_types"):
        require(module, "mcp", "The MCP server")


async def _rank(answers: Answers, given: object, most: int) -> mcp_tool.Ranked:
    arguments = mcp_tool.read_arguments(given, most)
    call = mcp_tool.as_call(arguments)
    return mcp_tool.as_ranked(arguments, call, await answers.rerank(call))


def _failed(why: str) -> mcp_types.CallToolResult:
    import mcp_types as types

    return types.CallToolResult(content=[types.TextContent(type="text", text=why)], is_error=True)
