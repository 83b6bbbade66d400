"""What adapters call the re-ranker with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from icr_rag.arguments import RetrievalScores
from icr_rag.types import DocumentLike


class RankArguments(TypedDict):
    """Arguments of `Reranker.rank` and `Reranker.arank`, which check them."""

    query: str
    documents: Sequence[DocumentLike]
    top_n: int
    retrieval_scores: RetrievalScores | None
