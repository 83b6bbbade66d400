"""Bodies, read whole before anything is done with them: within a size, a time and a depth.

And clients that go away: what is being done for them is cancelled.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from icr_rag.server.asgi import Failure, header, send_failure
from icr_rag.server.nesting import wrong_json
from icr_rag.server.settings import ServerSettings

#: All bodies that are held at once, in bodies of the largest size.
_TOGETHER = 8
#: Lists, objects and strings of a request: so many, and so many for each document.
_VALUES, _VALUES_OF_A_DOCUMENT = 1000, 20


class _HungUp(Exception):
    """The client went away before its body was there."""


class Bodies:
    """Middleware for requests that have a body.

    Args:
        app: what answers; finds the whole body at once.
        settings: max_body_bytes, max_documents, body_timeout.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._most = settings.max_body_bytes
        self._seconds = settings.body_timeout
        self._values = _VALUES + _VALUES_OF_A_DOCUMENT * settings.max_documents
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT", "PATCH"):
            await self._app(scope, receive, send)
            return
        held = bytearray()
        try:
            refused = await self._refusal(scope, receive, held)
            if refused is None:
                await run_until_gone(self._app, scope, bytes(held), receive, send)
            else:
                await send_failure(send, refused, close=True)
        except _HungUp:
            pass
        finally:
            self._held -= len(held)

    async def _refusal(self, scope: Scope, receive: Receive, held: bytearray) -> Failure | None:
        """Read the body into ``held``; why it is not taken, or None.

        Raises:
            _HungUp: if the client goes away.
        """
        announced = header(scope, b"content-length") or ""
        if announced.isdecimal() and int(announced[:20]) > self._most:
            return self._too_large
        try:
            failure = await asyncio.wait_for(self._read(receive, held), self._seconds)
        except asyncio.TimeoutError:
            return Failure(408, "timeout", f"the body did not come within {self._seconds:g} s")
        if failure is not None:
            return failure
        # JSON is all that is taken here, whatever it says it is.
        problem = wrong_json(bytes(held), self._values)
        return None if problem is None else Failure(400, "invalid", problem)

    @property
    def _too_large(self) -> Failure:
        return Failure(
            413,
            "too_large",
            f"the body is larger than {self._most} bytes, the most that this server takes",
        )

    async def _read(self, receive: Receive, held: bytearray) -> Failure | None:
        """Add the body to ``held``, and its size to what is held of all."""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _HungUp
            part = message.get("body", b"")
            held += part
            self._held += len(part)
            if len(held) > self._most:
                return self._too_large
            if self._held > _TOGETHER * self._most:
                return Failure(429, "overloaded", "too many large requests at once", 1)
            if not message.get("more_body", False):
                return None


async def run_until_gone(
    app: ASGIApp, scope: Scope, body: bytes, receive: Receive, send: Send
) -> None:
    """Answer a request whose body is there; cancelled when its client goes away."""
    gone = asyncio.Event()
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    answering = asyncio.ensure_future(app(scope, receive_again, send))
    watching = asyncio.ensure_future(watch())
    try:
        await asyncio.wait({answering, watching}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        watching.cancel()
        left = not answering.done()
        if left:
            answering.cancel()
        await asyncio.wait({answering, watching})
    if not left:
        answering.result()
