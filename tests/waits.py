"""Threads that are waited for."""

from __future__ import annotations

import threading
from contextlib import contextmanager


@contextmanager
def held(lock):
    """Another thread holds a lock inside the block, however long that takes."""
    has, end = threading.Event(), threading.Event()

    def hold():
        with lock:
            has.set()
            end.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    has.wait()
    try:
        yield
    finally:
        end.set()
        thread.join()
