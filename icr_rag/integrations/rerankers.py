"""AnswerDotAI's rerankers: a ranker of theirs. ``ICRRanker("smollm2-135m").rank(query, docs)``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import TYPE_CHECKING

from icr_rag.config import RerankerConfig
from icr_rag.errors import InputError, require
from icr_rag.integrations._config import Makers, resolve_reranker, without_first_stage
from icr_rag.integrations._pairs import check_all_scored
from icr_rag.reranker import Reranker
from icr_rag.types import Document as Given
from icr_rag.types import Ranking

require("rerankers", "rerankers", "icr_rag.integrations.rerankers")

from rerankers.documents import Document  # noqa: E402
from rerankers.models.ranker import BaseRanker  # noqa: E402
from rerankers.results import RankedResults, Result  # noqa: E402

if TYPE_CHECKING:
    from icr_rag.integrations.langchain import ICRRerank as LangChainRerank

#: Metadata key of what went wrong, where ``on_error="passthrough"`` let the input order through.
RERANK_ERROR = "rerank_error"


class ICRRanker(Makers, BaseRanker):  # type: ignore[misc]
    """A ``rerankers`` ranker that reads attention. Documents given are not changed.

    Images and others without text are not read, and come last. If ``on_error="passthrough"`` let a
    failure through, documents keep their order, with the reason in ``metadata["rerank_error"]``,
    and the results have no scores (``has_scores``); nor have they with ``diversity``, so that
    ``top_k`` goes by rank.

    Args:
        model_name_or_path: a decoder-only model: hub name, folder, GGUF file or "smollm2-135m".
            None: the model of the settings.
        verbose: accepted for the signature; nothing is printed.
        reranker, config: a ready `Reranker`, or settings as an object or mapping.
        **fields: any field of `RerankerConfig`.

    Raises:
        ConfigError: for a setting that is unknown or has a value that is not allowed.
    """

    def __init__(
        self,
        model_name_or_path: str | None = None,
        verbose: int = 0,
        *,
        reranker: Reranker | None = None,
        config: RerankerConfig | Mapping[str, object] | None = None,
        **fields: object,
    ) -> None:
        if model_name_or_path is not None:
            fields["model"] = model_name_or_path
        self._reranker = without_first_stage(resolve_reranker(reranker, config, fields))
        self.verbose = verbose

    @property
    def reranker(self) -> Reranker:
        """The engine behind this shim."""
        return self._reranker

    def score(self, query: str, doc: str) -> float:
        """The score of one document. It compares with no other call's: use `rank` for a list."""
        check_all_scored(self._reranker)
        return self._reranker.rank(query, [doc]).scores[0]

    def rank(
        self,
        query: str,
        docs: str | Sequence[str] | Document | Sequence[Document],
        doc_ids: Sequence[str | int] | None = None,
        metadata: Sequence[Mapping[str, object]] | None = None,
    ) -> RankedResults:
        """Rank documents; ``rank`` 1 is the best, scores are higher for better.

        Args:
            query: not blank.
            docs: texts or ``rerankers`` documents, in first-stage order.
            doc_ids, metadata: one per document; they replace those of documents.

        Raises:
            InputError: for a blank query, what is no document, or ids or metadata of another
                number than documents.
        """
        documents = _documents(docs, doc_ids, metadata)
        config = self._reranker.config
        ranking = self._reranker.rank(query, _texts(documents, config))
        return _results(query, documents, ranking, config)

    async def rank_async(
        self,
        query: str,
        docs: str | Sequence[str] | Document | Sequence[Document],
        doc_ids: Sequence[str | int] | None = None,
        metadata: Sequence[Mapping[str, object]] | None = None,
    ) -> RankedResults:
        """`rank` without blocking the event loop."""
        documents = _documents(docs, doc_ids, metadata)
        config = self._reranker.config
        ranking = await self._reranker.arank(query, _texts(documents, config))
        return _results(query, documents, ranking, config)

    def as_langchain_compressor(self, k: int = 10) -> LangChainRerank:
        """A LangChain document compressor on this ranker's model; returns ``k`` documents.

        Raises:
            MissingDependencyError: if langchain-core is not installed.
        """
        from icr_rag.integrations.langchain import ICRRerank

        return ICRRerank(self._reranker, top_n=k)


def _documents(
    docs: object,
    doc_ids: Sequence[str | int] | None,
    metadata: Sequence[Mapping[str, object]] | None,
) -> list[Document]:
    """New documents, each with an id."""
    if isinstance(docs, bytes | Mapping | Set) or not isinstance(docs, Iterable | Document):
        raise InputError(
            f"docs is a {type(docs).__name__}; allowed are a str, a rerankers.Document, and a list "
            "of either"
        )
    given = [docs] if isinstance(docs, str | Document) else list(docs)
    for name, values in (("doc_ids", doc_ids), ("metadata", metadata)):
        if values is not None and len(values) != len(given):
            raise InputError(f"{name} has {len(values)} entries for {len(given)} documents")
    return [
        _document(
            doc,
            index,
            None if doc_ids is None else doc_ids[index],
            None if metadata is None else metadata[index],
        )
        for index, doc in enumerate(given)
    ]


def _texts(documents: Sequence[Document], config: RerankerConfig) -> list[str | Given]:
    """Texts; where the settings name fields, with the metadata."""
    texts = ["" if document.text is None else document.text for document in documents]
    if config.rank_fields is None:
        return [*texts]
    return [
        Given(text, id=str(document.doc_id), metadata=document.metadata)
        for text, document in zip(texts, documents, strict=True)
    ]


def _results(
    query: object, documents: Sequence[Document], ranking: Ranking, config: RerankerConfig
) -> RankedResults:
    results = []
    for place, hit in enumerate(ranking):
        document = documents[hit.index]
        if ranking.error is not None:
            document.metadata = {**document.metadata, RERANK_ERROR: ranking.error}
        results.append(Result(document=document, score=hit.score, rank=place + 1))
    # A query that was let through may be no string, which theirs must be.
    asked = query if isinstance(query, str) else ""
    # Where there are scores, theirs sorts by them, which is not the order of diversity.
    scored = ranking.error is None and config.diversity is None
    return RankedResults(results=results, query=asked, has_scores=scored)


def _document(
    doc: object, index: int, doc_id: str | int | None, metadata: Mapping[str, object] | None
) -> Document:
    """A new document, with its position as id where it has none."""
    if not isinstance(doc, str | Document):
        raise InputError(
            f"document {index} is a {type(doc).__name__}; allowed are str and rerankers.Document"
        )
    if isinstance(doc, str):
        return Document(doc, doc_id=index if doc_id is None else doc_id, metadata=metadata)
    own = index if doc.doc_id is None else doc.doc_id
    return Document(
        doc.text,
        doc_id=own if doc_id is None else doc_id,
        metadata=dict(doc.metadata) if metadata is None else metadata,
        document_type=doc.document_type,
        image_path=doc.image_path,
        base64=doc.base64,
    )
