"""What LangChain's documents give to a ranking, and what a ranking makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.documents import Document

from icr_rag.types import Ranking

#: Metadata key of the score.
RELEVANCE_SCORE = "relevance_score"
#: Metadata key of what went wrong, where ``on_error="passthrough"`` let the input order through.
RERANK_ERROR = "rerank_error"


def texts(documents: Sequence[Any]) -> Sequence[Any]:
    """LangChain documents as their text; whatever else as it is, for `Reranker` to judge."""
    if isinstance(documents, str):
        return documents
    return [getattr(document, "page_content", document) for document in documents]


def retrieval_scores(documents: Sequence[Any], key: str | None) -> list[Any] | None:
    """The first stage's scores in the documents' metadata; None if there are none."""
    if key is None:
        return None
    scores = [_metadata(document).get(key) for document in documents]
    return None if all(score is None for score in scores) else scores


def ranked(documents: Sequence[Document], ranking: Ranking) -> list[Document]:
    """Copies of the documents that were hit, best first, each with its score."""
    told = _told(ranking)
    return [
        documents[hit.index].model_copy(
            update={
                "metadata": {**documents[hit.index].metadata, RELEVANCE_SCORE: hit.score, **told}
            }
        )
        for hit in ranking
    ]


def results(ranking: Ranking) -> list[dict[str, Any]]:
    """Positions and scores, best first."""
    return [{"index": hit.index, RELEVANCE_SCORE: hit.score, **_told(ranking)} for hit in ranking]


def _told(ranking: Ranking) -> dict[str, str]:
    return {} if ranking.error is None else {RERANK_ERROR: ranking.error}


def _metadata(document: Any) -> Mapping[str, Any]:
    if isinstance(document, Mapping):
        return document.get("metadata") or {}
    metadata: Mapping[str, Any] = getattr(document, "metadata", {})
    return metadata
