"""What LangChain's documents give to a ranking, and what a ranking makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from numbers import Real
from typing import Any

from langchain_core.documents import Document

from icr_rag.arguments import RetrievalScores
from icr_rag.config import RerankerConfig
from icr_rag.config_scores import counts_first_stage
from icr_rag.errors import InputError
from icr_rag.integrations._told import Told
from icr_rag.types import Document as Given
from icr_rag.types import DocumentLike, Ranking

#: Where scores are looked for if nobody says it: where LangChain's guide to retrievers with scores
#: writes them, and what stores and retrievers of its packages use. Not "relevance_score", which
#: re-rankers write, this one among them: whose and for which query it was, nobody could tell.
SCORE_KEYS = ("score", "_score", "similarity_score", "similarity")
#: That they are looked for there.
AUTO = "auto"
#: Metadata key of the score.
RELEVANCE_SCORE = "relevance_score"
#: Metadata key of what went wrong, where ``on_error="passthrough"`` let the input order through.
RERANK_ERROR = "rerank_error"


def texts(
    documents: Sequence[Document | DocumentLike], config: RerankerConfig
) -> Sequence[DocumentLike]:
    """LangChain documents as their text, with their metadata where the settings name fields;
    whatever else as it is, for `Reranker` to judge."""
    if isinstance(documents, (str, bytes)) or not isinstance(documents, Sequence):
        return documents
    if config.rank_fields is not None:
        return [_with_fields(document) for document in documents]
    return [
        document.page_content if hasattr(document, "page_content") else document
        for document in documents
    ]


def _with_fields(document: Document | DocumentLike) -> DocumentLike:
    if not isinstance(document, Document):
        return document
    return Given(document.page_content, id=document.id, metadata=document.metadata)


def retrieval_scores(
    documents: Sequence[Document | DocumentLike],
    key: str | Sequence[str] | None,
    config: RerankerConfig,
) -> RetrievalScores | None:
    """The first stage's scores in the documents' metadata; None if there are none, or they do not
    count, so that nobody looks at them.

    Args:
        key: where they are; several: a list of scores each, by these names; `AUTO`: under the first
            of `SCORE_KEYS` by which the documents are in order; None: nowhere.
        config: says whether they count.
    """
    if key is None or not counts_first_stage(config):
        return None
    if key == AUTO:
        found = (_ordered_by(documents, name) for name in SCORE_KEYS)
        return next((scores for scores in found if scores is not None), None)
    if isinstance(key, str):
        return _scores(documents, key)
    columns = {name: _scores(documents, name) for name in key}
    # Weights by name find all of them; where none has any, there are none.
    known = {name: [None] * len(documents) if c is None else c for name, c in columns.items()}
    return known if any(column is not None for column in columns.values()) else None


def _scores(documents: Sequence[Document | DocumentLike], key: str) -> list[float | None] | None:
    scores = [_metadata(document, index).get(key) for index, document in enumerate(documents)]
    return None if all(score is None for score in scores) else scores


def _ordered_by(documents: Sequence[Document | DocumentLike], key: str) -> list[float] | None:
    """Scores by which the documents are in order, best first, and not all equal; else None.

    Only these are surely the first stage's: a number of another meaning, a distance, or a score
    for another query gives another order.
    """
    metadata = [
        document.metadata if isinstance(document, Document) else {} for document in documents
    ]
    numbers = [
        float(value)
        for value in (own.get(key) for own in metadata)
        if isinstance(value, Real) and not isinstance(value, bool)
    ]
    falls = all(first >= second for first, second in pairwise(numbers))
    whole = len(numbers) == len(documents) > 1
    return numbers if whole and falls and numbers[0] > numbers[-1] else None


def ranked(documents: Sequence[Document], ranking: Ranking, told: Told) -> list[Document]:
    """Copies of the documents that were hit, best first, each with its score."""
    copies = []
    for result in results(documents, ranking, told):
        document = documents[result.pop("index")]
        copies.append(document.model_copy(update={"metadata": {**document.metadata, **result}}))
    return copies


def results(
    documents: Sequence[Document | DocumentLike], ranking: Ranking, told: Told
) -> list[dict[str, Any]]:
    """Positions and scores, best first, and what else is to be told.

    Args:
        documents: as they were given, whose own text passages are of.
    """
    failed = {} if ranking.error is None else {RERANK_ERROR: ranking.error}
    return [
        {
            "index": hit.index,
            RELEVANCE_SCORE: hit.score,
            **failed,
            **told.of(ranking, hit.index),
            **told.passage_of(hit, _own_text(documents[hit.index])),
        }
        for hit in ranking
    ]


def _own_text(document: Document | DocumentLike) -> str:
    """The text of what was given; "" where it has none of its own."""
    if isinstance(document, Document):
        return document.page_content
    if isinstance(document, Given):
        return document.text
    text = document if isinstance(document, str) else document.get("text")
    return text if isinstance(text, str) else ""


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
