"""Processes that were forked after a model had run in their parent.

OpenMP's threads, which torch computes with, do not exist in the child, and its first parallel
operation waits for them for ever. With one thread there is nothing to wait for. Locks that another
thread of the parent held at that moment are renewed, for nobody would release them.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol

from icr_rag.errors import ForkedError


class _HasLock(Protocol):
    lock: threading.RLock


_holders: weakref.WeakSet[_HasLock] = weakref.WeakSet()
#: The process in which torch has run for us; 0: in none yet.
_computing_in = 0


_registered = False


def hold(holder: _HasLock) -> None:
    """Note whose lock a child process is to renew."""
    global _registered
    _holders.add(holder)
    if not _registered and hasattr(os, "register_at_fork"):
        _registered = True
        os.register_at_fork(after_in_child=_renew)


def computing() -> None:
    """Note that torch runs in this process from now on."""
    global _computing_in
    _computing_in = _computing_in or os.getpid()


def _renew() -> None:
    # What shared a lock shares the new one.
    renewed: dict[int, threading.RLock] = {}
    for holder in list(_holders):
        holder.lock = renewed.setdefault(id(holder.lock), threading.RLock())


def check_process(device: str) -> None:
    """Raise `ForkedError` where the next operation would wait for ever.

    Args:
        device: where the weights are.
    """
    if not _computing_in or _computing_in == os.getpid():
        return
    import torch

    threads = torch.get_num_threads()
    if device.startswith("cpu") and threads == 1:
        return
    what = f"with {threads} threads" if device.startswith("cpu") else f"on {device}"
    raise ForkedError(
        f"this process ({os.getpid()}) was forked after its parent ({_computing_in}) had run a "
        f"model {what}: its computations would never end. Load the model after the fork (no "
        "preloading in gunicorn and the like), start processes by 'spawn', or, on a CPU, call "
        "torch.set_num_threads(1) in both before ranking"
    )
