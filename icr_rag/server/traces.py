"""A span for each request of a server, the child of its caller's where the request names one.

Inside it everything that runs on the request's own task, and what is handed to a thread by
`icr_rag.worker.carried`, has this span as its parent. Attributes are those of OpenTelemetry's
stable conventions for HTTP servers; neither bodies nor query strings nor headers are in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from icr_rag.telemetry import Value, Written, check_traces, tracer

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Methods that a span may be named after; anything else is whatever a client writes.
_METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")


class TracedRequests:
    """ASGI middleware that puts a span around each HTTP request.

    Args:
        app: what is served.

    Raises:
        MissingDependencyError: if OpenTelemetry's API is not installed.
    """

    def __init__(self, app: ASGIApp) -> None:
        check_traces()
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; see the class."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind

        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        method = scope["method"] if scope["method"] in _METHODS else "HTTP"
        beginning: dict[str, Value] = {
            "http.request.method": method if method != "HTTP" else "_OTHER",
            "url.scheme": scope.get("scheme", "http"),
        }
        with tracer().start_as_current_span(
            method,
            # What a client makes up is no trace, and starts a new one.
            context=extract(headers),
            kind=SpanKind.SERVER,
            attributes=beginning,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            written = Written(span)

            async def noticed(message: Message) -> None:
                if message["type"] == "http.response.start":
                    status = message["status"]
                    written.say({"http.response.status_code": status})
                    if status >= 500:
                        written.wrong(str(status))
                await send(message)

            try:
                await self._app(scope, receive, noticed)
            except BaseException as error:
                written.failed(error, texts=False)
                raise
            finally:
                # Known when a router has chosen it; paths that lead nowhere are not repeated.
                route = getattr(scope.get("route"), "path", None)
                if isinstance(route, str):
                    span.update_name(f"{method} {route}")
                    written.say({"http.route": route})
