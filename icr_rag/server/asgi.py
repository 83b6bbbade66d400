"""What the middlewares share: one form of errors, headers, and the answer itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.types import Scope, Send


@dataclass(frozen=True)
class Failure:
    """What a client is told of an error.

    Attributes:
        status: of HTTP.
        kind: a word that programs may go by.
        message: plain words, without a document's text, a path or a stack.
        retry_after: seconds after which to try again; None: trying again is of no use, or nobody
            knows.
    """

    status: int
    kind: str
    message: str
    retry_after: int | None = None

    @property
    def body(self) -> dict[str, str]:
        """JSON in which each client finds the message where it looks: Cohere's under "message",
        TEI's under "error", Jina's and FastAPI's under "detail"."""
        return {
            "message": self.message,
            "error": self.message,
            "error_type": self.kind,
            "detail": self.message,
        }

    @property
    def headers(self) -> dict[str, str]:
        """Beside the usual ones."""
        return {} if self.retry_after is None else {"retry-after": str(self.retry_after)}


async def send_failure(send: Send, failure: Failure, *, close: bool = False) -> None:
    """Answer with an error; ``close``: and take no more on this connection."""
    headers = failure.headers | ({"connection": "close"} if close else {})
    if failure.status == 401:
        headers["www-authenticate"] = "Bearer"
    await send_json(send, failure.status, failure.body, headers)


async def send_json(
    send: Send, status: int, value: Mapping[str, object], headers: Mapping[str, str]
) -> None:
    """Answer with JSON."""
    body = json.dumps(value).encode()
    named = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *((name.encode(), text.encode()) for name, text in headers.items()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": named})
    await send({"type": "http.response.body", "body": body})


def header(scope: Scope, name: bytes) -> str | None:
    """A header's first value; None if it is not there."""
    for own, value in scope["headers"]:
        if own == name:
            return bytes(value).decode("latin-1").strip()
    return None


def route_of(scope: Scope) -> str:
    """The route that served a request, one of few; not its path, of which there is no end."""
    found = getattr(scope.get("route"), "path", None)
    return found if isinstance(found, str) else "other"
