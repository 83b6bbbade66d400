"""What LangChain's documents give to a ranking, and what a ranking makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.documents import Document

from icr_rag.errors import InputError
from icr_rag.integrations._told import cut_metadata, passage_metadata
from icr_rag.types import DocumentLike, Ranking

#: Metadata key of the score.
RELEVANCE_SCORE = "relevance_score"
#: Metadata key of what went wrong, where ``on_error="passthrough"`` let the input order through.
RERANK_ERROR = "rerank_error"


def texts(documents: Sequence[Document | DocumentLike]) -> Sequence[DocumentLike]:
    """LangChain documents as their text; whatever else as it is, for `Reranker` to judge."""
    if isinstance(documents, (str, bytes)) or not isinstance(documents, Sequence):
        return documents
    return [
        document.page_content if hasattr(document, "page_content") else document
        for document in documents
    ]


def retrieval_scores(
    documents: Sequence[Document | DocumentLike], key: str | None
) -> list[float | None] | None:
    """The first stage's scores in the documents' metadata; None if there are none."""
    if key is None:
        return None
    scores = [_metadata(document, index).get(key) for index, document in enumerate(documents)]
    return None if all(score is None for score in scores) else scores


def ranked(
    documents: Sequence[Document],
    ranking: Ranking,
    report_truncation: bool,
    report_passage: bool = False,
) -> list[Document]:
    """Copies of the documents that were hit, best first, each with its score."""
    copies = []
    for result in results(ranking, report_truncation, report_passage):
        document = documents[result.pop("index")]
        copies.append(document.model_copy(update={"metadata": {**document.metadata, **result}}))
    return copies


def results(
    ranking: Ranking, report_truncation: bool, report_passage: bool = False
) -> list[dict[str, Any]]:
    """Positions and scores, best first, and what else is to be told."""
    told = {} if ranking.error is None else {RERANK_ERROR: ranking.error}
    return [
        {
            "index": hit.index,
            RELEVANCE_SCORE: hit.score,
            **told,
            **(cut_metadata(ranking, hit.index) if report_truncation else {}),
            **(passage_metadata(hit, hit.document.text) if report_passage else {}),
        }
        for hit in ranking
    ]


def _metadata(document: object, index: int) -> Mapping[str, Any]:
    metadata: object = {}
    if isinstance(document, Document):
        metadata = document.metadata
    elif isinstance(document, Mapping):
        metadata = document.get("metadata") or {}
    if not isinstance(metadata, Mapping):
        raise InputError(
            f"document {index} has metadata of type {type(metadata).__name__}; it must be a mapping"
        )
    return metadata
