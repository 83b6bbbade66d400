"""What adapters call the re-ranker with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from icr_rag.arguments import RetrievalScores
from icr_rag.types import DocumentLike


class _Always(TypedDict):
    query: str
    documents: Sequence[DocumentLike]
    top_n: int
    retrieval_scores: RetrievalScores | None


class RankArguments(_Always, total=False):
    """Arguments of `Reranker.rank` and `Reranker.arank`, which check them."""

    max_tokens_per_doc: int
