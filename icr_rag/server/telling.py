"""What a request's log line and deadline need, carried with the request by a context variable."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field

from icr_rag.server.call import RerankAnswer, RerankCall


@dataclass
class Told:
    """A request, as far as it is known; never its texts.

    Attributes:
        request_id: the client's, or one that was made.
        arrived: when its first byte was there, by `time.perf_counter`.
        deadline_ms: what its headers ask for; None: nothing.
        documents: how many it has; None: it ranks nothing.
        together: how many requests were ranked with it, itself counted; 0: it did not get so far.
        answer: what it got.
    """

    request_id: str = ""
    arrived: float = field(default_factory=time.perf_counter)
    deadline_ms: float | None = None
    documents: int | None = None
    together: int = 0
    answer: RerankAnswer | None = None


#: The request at hand; None outside of one.
told: ContextVar[Told | None] = ContextVar("icr_rag_server_told", default=None)


def deadline_of(call: RerankCall, default: float | None) -> float | None:
    """Milliseconds from its arrival in which a request is to be answered: the fewest that its body
    and its headers ask for, else ``default``."""
    own = told.get()
    asked = [call.deadline_ms, None if own is None else own.deadline_ms]
    return min((value for value in asked if value is not None), default=default)
