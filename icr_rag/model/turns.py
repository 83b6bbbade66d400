"""Turns that threads take: on a model, on loading it, on what is made for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from icr_rag.deadline import Deadline, OutOfTime
from icr_rag.model.forking import hold


class Turns:
    """A lock of its own, for what takes turns and is no model."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        hold(self)


@contextmanager
def turn(lock: threading.RLock, due: Deadline | None) -> Iterator[None]:
    """Hold a lock inside the block. How long others held it is counted: `Deadline.waited`.

    Raises:
        OutOfTime: if others held it for too long.
    """
    if due is None:
        with lock:
            yield
        return
    with due.waiting():
        taken = lock.acquire(timeout=min(max(0.0, due.left), threading.TIMEOUT_MAX))
    if not taken:
        raise OutOfTime
    try:
        yield
    finally:
        lock.release()
