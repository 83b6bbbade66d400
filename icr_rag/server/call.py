"""What a request asks, and what it is answered, whichever client's shape it came in.

Dialects (`icr_rag.server.dialects`) turn a client's JSON into a `RerankCall` and a `RerankAnswer`
into the JSON that this client reads; what answers calls (`Answers`) knows no dialect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from icr_rag.types import Document

#: Probabilities nearer to 0 or 1 have the log-odds of these: JSON knows no infinity.
_LEAST = 1e-12

#: What a caller is told whose arguments the settings do not allow: the error that says so is about
#: settings, which may name files.
UNFITTING = (
    "this server's settings do not go with what the request asks for; leave out its instruction "
    "and other arguments of its own"
)


@dataclass(frozen=True)
class RerankCall:
    """One list to rank.

    Attributes:
        query: not blank.
        documents: in the client's order.
        model: the name asked for; None: whichever is served.
        instruction: for this call; None: the server's.
        max_tokens_per_doc: most tokens of a document that are read; None: the server's.
        deadline_ms: milliseconds from its arrival in which to answer; None: the server's.
    """

    query: str
    documents: tuple[Document, ...]
    model: str | None = None
    instruction: str | None = None
    max_tokens_per_doc: int | None = None
    deadline_ms: float | None = None


@dataclass(frozen=True)
class RerankAnswer:
    """A ranking of all documents of a call.

    Attributes:
        model: what ranked.
        scores: one per document, in the client's order; higher is better.
        order: all documents' places in the client's order, best first.
        probability: whether scores are probabilities, between 0 and 1.
        tokens: tokens run through the model for this call.
        truncated: places of documents that were cut, ascending.
        cached: how many scores came from the score cache.
        degraded: as `icr_rag.Ranking` has it.
        seconds: by phase, as `icr_rag.Usage` has them, and "queue", the time waited.
    """

    model: str
    scores: tuple[float, ...]
    order: tuple[int, ...]
    probability: bool
    tokens: int = 0
    truncated: tuple[int, ...] = ()
    cached: int = 0
    degraded: str | None = None
    seconds: tuple[tuple[str, float], ...] = ()

    def logit(self, place: int) -> float:
        """A document's log-odds where scores are probabilities; otherwise its score."""
        score = self.scores[place]
        if not self.probability:
            return score
        held = min(max(score, _LEAST), 1 - _LEAST)
        return math.log(held / (1 - held))


class Answers(Protocol):
    """What ranks for the server."""

    @property
    def model(self) -> str:
        """The name of the model that is served."""

    async def rerank(self, call: RerankCall) -> RerankAnswer:
        """Rank a call's documents.

        Raises:
            OverloadedError: if there is no room in the queue.
            ClosedError: if the server is shutting down.
            ICRError: as `icr_rag.Reranker.rank`.
        """
