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
        max_tokens_per_doc: most tokens of a document that are read; None: as the settings say.
    """

    query: str
    documents: Sequence[Document]
    top_n: int | None = None
    retrieval_scores: RetrievalScores | None = None
    max_tokens_per_doc: int | None = None
