"""Nobody in without a key, if keys are needed."""

from __future__ import annotations

from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from icr_rag.server.asgi import Failure, header, send_failure
from icr_rag.server.keys import Keys

#: What is open to all: whether the server lives, and a page that knows no secret.
OPEN = ("/health", "/ready", "/")

_REFUSED = Failure(
    401,
    "unauthorized",
    "this server needs an API key: send 'Authorization: Bearer KEY', or KEY as x-api-key",
)


class Guard:
    """Middleware; asks for a key on every path that is not open.

    Args:
        app: what answers. keys: those that are accepted. unguarded: paths that need none.
    """

    def __init__(self, app: ASGIApp, keys: Keys, unguarded: Collection[str] = OPEN) -> None:
        self._app = app
        self._keys = keys
        self._open = frozenset(unguarded)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it without reading its body."""
        # What else there is begins and ends the application, and is nobody's request.
        asks = scope["type"] in ("http", "websocket")
        closed = asks and self._keys.needed and not self._is_open(scope)
        if not closed or any(map(self._keys.accept, _given(scope))):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await send_failure(send, _REFUSED, close=True)
        else:
            # Servers answer 403 to it.
            await send({"type": "websocket.close", "code": 1008})

    def _is_open(self, scope: Scope) -> bool:
        return scope.get("method") in ("GET", "HEAD") and scope["path"] in self._open


def _given(scope: Scope) -> list[bytes]:
    """Keys in the headers in which clients send them."""
    scheme, _, bearer = (header(scope, b"authorization") or "").partition(" ")
    found = [bearer.strip()] if scheme.lower() == "bearer" else []
    found += [header(scope, name) or "" for name in (b"x-api-key", b"api-key")]
    return [key.encode("latin-1") for key in found if key]
