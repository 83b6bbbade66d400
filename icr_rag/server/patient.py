"""uvicorn, with an end to its patience: headers that do not come, answers that are not read, and
shutting down."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from icr_rag.server.addresses import url_of
from icr_rag.server.engine import Engine
from icr_rag.server.settings import ServerSettings

#: Largest request line and headers, in bytes.
_HEADERS = 64 * 2**10
#: Connections at once; more are answered 503 by uvicorn.
_CONNECTIONS = 2000
#: Seconds after the grace in which answers are written.
_WRITING = 5


class PatientProtocol(H11Protocol):
    """A connection that is closed if the headers of its next request take too long, or its client
    reads nothing of an answer.

    uvicorn bounds the time between requests only; a client that sends a header now and then would
    hold a connection for ever, and one that reads nothing of a large answer the answer too.
    """

    header_timeout: float = 10.0
    #: Seconds in which something of what is to be read must be.
    reading_timeout: float = 30.0

    _waiting: asyncio.TimerHandle | None = None
    _reading: asyncio.TimerHandle | None = None
    _unread = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected: its first request is awaited."""
        super().connection_made(transport)
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        """A part of a request came."""
        before = self.cycle
        if self._waiting is None and (before is None or before.response_complete):
            self._await_headers()
        super().data_received(data)
        if self.cycle is not before:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._stop_waiting()
        self._stop_watching()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads slower than is written."""
        super().pause_writing()
        self._stop_watching()
        self._watch_reading()

    def resume_writing(self) -> None:
        """It has read nearly all."""
        self._stop_watching()
        super().resume_writing()

    def _watch_reading(self) -> None:
        self._unread = self.transport.get_write_buffer_size()
        self._reading = self.loop.call_later(self.reading_timeout, self._see_reading)

    def _see_reading(self) -> None:
        if self.transport.get_write_buffer_size() < self._unread:
            self._watch_reading()
        else:
            # Closing would wait for what nobody reads.
            self.transport.abort()

    def _stop_watching(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _await_headers(self) -> None:
        self._waiting = self.loop.call_later(self.header_timeout, self._too_late)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _too_late(self) -> None:
        self._waiting = None
        if not self.transport.is_closing():
            self.transport.close()


class PatientServer(uvicorn.Server):
    """Tells the engine to finish when a signal says so, and ends if the model cannot be loaded.

    Args:
        app: as `icr_rag.server.app.create_app` makes it.
        settings: host, port, header_timeout, shutdown_grace.
        on_start: called with the URL when it listens. on_ready: likewise when the model is warm.
    """

    def __init__(
        self,
        app: FastAPI,
        settings: ServerSettings,
        on_start: Callable[[str], None] = lambda url: None,
        on_ready: Callable[[str], None] = lambda url: None,
    ) -> None:
        timed = type("Timed", (PatientProtocol,), {"header_timeout": settings.header_timeout})
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host.strip("[]"),
                port=settings.port,
                http=timed,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                h11_max_incomplete_event_size=_HEADERS,
                limit_concurrency=_CONNECTIONS,
                timeout_graceful_shutdown=int(settings.shutdown_grace) + _WRITING,
            )
        )
        engine = app.state.engine
        self._engine = engine if isinstance(engine, Engine) else None
        self._on_start, self._on_ready = on_start, on_ready
        # Held, because the loop itself holds tasks weakly.
        self._watching: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; then say so, and watch whether the model comes."""
        await super().startup(sockets)
        if not self.started:
            return
        self._on_start(self.url)
        if self._engine is not None:
            self._watching = asyncio.create_task(self._await_model(self._engine))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take nothing new; what was taken has the grace to be finished, and then its answer that
        it was not."""
        if self._engine is not None:
            self._stopping = asyncio.create_task(self._engine.stop())
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal: shut down, at the second Ctrl+C without grace. It is not raised again after
        that, because shutting down is what it asked for."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    @property
    def url(self) -> str:
        """Where it listens."""
        return url_of(self.servers[0].sockets[0])

    async def _await_model(self, engine: Engine) -> None:
        await engine.loaded.wait()
        if engine.ready:
            self._on_ready(self.url)
        elif engine.failure is not None:
            self.should_exit = True
