"""A real HTTP server on a free port of this machine, for clients that are packages."""

from __future__ import annotations

import contextlib
import socket
import threading

import uvicorn


class _Ready(uvicorn.Server):
    """Says when it listens, so that nobody has to ask again and again."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = threading.Event()

    async def startup(self, sockets=None) -> None:
        await super().startup(sockets)
        self.listens.set()


@contextlib.contextmanager
def live(app):
    """Serve ``app`` in a thread; gives its address."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none")
    server = _Ready(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        assert server.listens.wait(60)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()
