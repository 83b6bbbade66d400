"""One call of `Reranker.rank`, as it was given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from icr_rag.arguments import RetrievalScores
from icr_rag.types import Document


@dataclass(frozen=True)
class Request:
    """What a ranking is asked for.

    Attributes:
        query: may be wrong yet: it is checked where a failure may be passed through.
        documents: checked, in first-stage order.
        top_n: how many hits to return; None: all.
        retrieval_scores: the first stage's, unchecked.
        instruction: checked; None: that of the settings.
        read: what the model reads of each document; None: the document as it is.
    """

    query: str
    documents: Sequence[Document]
    top_n: int | None = None
    retrieval_scores: RetrievalScores | None = None
    instruction: str | None = None
    read: Sequence[Document] | None = None
