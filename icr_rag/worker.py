"""Threads in which a reranker's asynchronous calls are answered, mostly one in which they take
turns."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from icr_rag.errors import ClosedError

Result = TypeVar("Result")


def carried(call: Callable[[], Result]) -> Callable[[], Result]:
    """``call``, to be run once in another thread as if it were here: what this task knows of itself
    (context variables, among them the present span) is known there."""
    return functools.partial(contextvars.copy_context().run, call)


class Worker:
    """Runs calls in the order in which they come, so that waiting ones can be cancelled before
    they start.

    Made when it is first used, and again in a forked process, where its thread does not exist.
    No lock of it is ever held for longer than a look-up: an event loop may call it.

    Args:
        threads: how many calls run at once.
    """

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._process = os.getpid()
        self._closed = False

    async def run(self, call: Callable[[], Result]) -> Result:
        """``call()`` in a thread, in a copy of the caller's context: spans begun there have their
        parent here.

        Raises:
            ClosedError: after `close`.
        """
        loop = asyncio.get_running_loop()
        if self._process != os.getpid():
            self._lock, self._executor = threading.Lock(), None
            self._process = os.getpid()
        with self._lock:
            if self._closed:
                raise ClosedError("this Reranker was closed; make a new one")
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._threads, "icr_rag")
            future = loop.run_in_executor(self._executor, carried(call))
        return await future

    def close(self) -> None:
        """Take no more calls. Those that wait still start, and find out what was closed."""
        with self._lock:
            self._closed = True
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False)
