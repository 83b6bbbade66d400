"""The first to see a request and the last to see its answer: its id, its log line, its numbers, and
an answer to whatever went wrong inside."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from icr_rag.server.asgi import header, route_of, send_failure
from icr_rag.server.failures import failure_of
from icr_rag.server.logs import access
from icr_rag.server.meters import Meters
from icr_rag.server.telling import Told, told

logger = logging.getLogger(__name__)

_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
#: Who went away gets no answer; nginx's number for it.
HUNG_UP = 499

#: Headers by which clients say how long they wait -> milliseconds in their unit, and the share of
#: that in which to answer, so that the answer is there in time. The first is this server's own; the
#: SDKs of OpenAI and of others that are generated like them send the next two, in seconds; Envoy
#: sends the last one.
TIMEOUTS = {
    b"x-request-timeout-ms": (1.0, 1.0),
    b"x-stainless-read-timeout": (1000.0, 0.95),
    b"x-stainless-timeout": (1000.0, 0.95),
    b"x-envoy-expected-rq-timeout-ms": (1.0, 0.95),
}


class Outermost:
    """Middleware; takes requests of HTTP, passes on the rest.

    Args:
        app: what answers. meters: count requests. log: whether each has a line in the log.
    """

    def __init__(self, app: ASGIApp, meters: Meters, log: bool) -> None:
        self._app = app
        self._meters = meters
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        own = Told(request_id(scope), deadline_ms=deadline_of(scope))
        token = told.set(own)
        status = 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                name = (b"x-request-id", own.request_id.encode())
                message = {**message, "headers": [*message["headers"], name]}
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except asyncio.CancelledError:
            status = status or HUNG_UP
            raise
        except Exception as error:
            logger.error("request %s failed: %s", own.request_id, type(error).__name__)
            logger.debug("request %s failed", own.request_id, exc_info=error)
            if not status:
                await send_failure(send_on, failure_of(error))
        finally:
            told.reset(token)
            self._tell(scope, own, status or HUNG_UP)

    def _tell(self, scope: Scope, own: Told, status: int) -> None:
        seconds = time.perf_counter() - own.arrived
        route = route_of(scope)
        self._meters.request(route, status, seconds)
        if self._log:
            access(own, scope["method"], route, status, seconds)


def request_id(scope: Scope) -> str:
    """The client's, if it is one that may stand in a log; else a new one."""
    given = header(scope, b"x-request-id")
    return given if given is not None and _SANE_ID.fullmatch(given) else uuid.uuid4().hex


def deadline_of(scope: Scope) -> float | None:
    """Milliseconds that the headers leave; None if they say nothing, or nothing sensible."""
    found = []
    for name, (unit, share) in TIMEOUTS.items():
        text = header(scope, name)
        try:
            milliseconds = float(text) * unit * share if text else 0.0
        except ValueError:
            continue
        if math.isfinite(milliseconds) and milliseconds > 0:
            found.append(milliseconds)
    return min(found, default=None)
