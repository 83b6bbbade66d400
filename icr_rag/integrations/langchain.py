"""LangChain: a document compressor, and a cross-encoder for LangChain's own re-ranker.

``ContextualCompressionRetriever(base_compressor=ICRRerank(top_n=5), base_retriever=...)``

Needs langchain-core only. `ICRCrossEncoder` is imported on first use, because langchain-core had
no interface for cross-encoders in its early versions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from icr_rag.arguments import check_documents
from icr_rag.config import RerankerConfig
from icr_rag.errors import ConfigError, require
from icr_rag.integrations._call import RankArguments
from icr_rag.integrations._config import Makers, named_errors, resolve_reranker
from icr_rag.reranker import Reranker
from icr_rag.types import DocumentLike, Ranking

require("langchain_core", "langchain", "icr_rag.integrations.langchain")

from langchain_core.documents import Document  # noqa: E402
from langchain_core.documents.compressor import BaseDocumentCompressor  # noqa: E402
from pydantic import ConfigDict, Field, PrivateAttr  # noqa: E402

from icr_rag.integrations._langchain_documents import (  # noqa: E402
    AUTO,
    RELEVANCE_SCORE,
    RERANK_ERROR,
    ranked,
    results,
    retrieval_scores,
    texts,
)
from icr_rag.integrations._langchain_encode import ICREncode  # noqa: E402
from icr_rag.integrations._langchain_run import as_run  # noqa: E402
from icr_rag.integrations._told import (  # noqa: E402
    ANSWERABLE,
    PASSAGE_END,
    PASSAGE_START,
    QUERY_TRUNCATED,
    TRUNCATED,
    OnRanking,
    Told,
)

if TYPE_CHECKING:
    from langchain_core.callbacks import Callbacks
    from langchain_core.runnables import Runnable

    from icr_rag.integrations.langchain_cross_encoder import ICRCrossEncoder

__all__ = [
    "ANSWERABLE",
    "PASSAGE_END",
    "PASSAGE_START",
    "QUERY_TRUNCATED",
    "RELEVANCE_SCORE",
    "RERANK_ERROR",
    "TRUNCATED",
    "ICRCrossEncoder",
    "ICREncode",
    "ICRRerank",
]


class ICRRerank(Makers, BaseDocumentCompressor):
    """Re-ranks documents by the attention that the query's tokens pay to them.

    Making one is cheap; the model is loaded on first use. Documents come back as copies, best
    first, with their score as a float in ``metadata["relevance_score"]`` (higher is better,
    relative to the query and the list); the documents given are not changed. Each call is a run
    named "ICRRerank" in traces. If ``on_error="passthrough"`` let a failure through, documents
    come in input order, with score 0.0 and the reason in ``metadata["rerank_error"]``.

    Args:
        reranker: a ready `Reranker`; else one is made from the settings.
        config: settings as an object or mapping.
        top_n: how many documents to return; None: all.
        retrieval_score_key: metadata key under which documents carry the first stage's score
            (higher is better); several: keys of several scores, which are weighed by these names.
            "auto": "score", "_score", "similarity_score" or "similarity", if all documents have
            the key and are in the order of its numbers. None: no score is read. May be
            "relevance_score", which other re-rankers write, and this one.
        report_truncation: write ``"truncated": True`` into the metadata of documents of which the
            model read the beginning only, and ``"query_truncated": True`` into that of all if the
            query was cut, or ``"rerank_degraded"`` with what a ``deadline_ms`` left out.
        report_answerable: write the probability that a document of the list answers the query,
            where it is known, into the metadata of all as "answerable".
        report_passage: with the setting ``passages``, write where the best passage of a document
            is in its text into its metadata, as "passage_start" and "passage_end".
        on_ranking: called with each `icr_rag.Ranking` before documents are made of it: what it
            cost, and, where none is left, whether that is because nothing answers (``abstained``).
        **fields: any field of `RerankerConfig` (model, layers, device, ...); ``embedder`` may also
            be an ``Embeddings`` object, which is no part of the saved settings.

    Raises:
        ConfigError: if a setting is unknown or has a value that is not allowed.
        InputError: on use with a blank query, or with anything but documents.
    """

    model_config = ConfigDict(extra="forbid")

    config: RerankerConfig = Field(description="Settings of the reranker.")
    top_n: int | None = Field(default=None, ge=0, description="Documents to return; None: all.")
    retrieval_score_key: str | tuple[str, ...] | None = Field(
        default=AUTO, description="Metadata keys of the first stage's scores; None: none are read."
    )
    report_truncation: bool = Field(
        default=False, description="Tell in the metadata that a document, or the query, was cut."
    )
    report_answerable: bool = Field(
        default=False, description="Tell in the metadata whether the list has an answer."
    )
    report_passage: bool = Field(
        default=False, description="Tell in the metadata where a document's best passage is."
    )
    _reranker: Reranker = PrivateAttr()
    _on_ranking: OnRanking | None = PrivateAttr()

    def __init__(
        self,
        reranker: Reranker | None = None,
        *,
        config: RerankerConfig | Mapping[str, object] | None = None,
        top_n: int | None = None,
        retrieval_score_key: str | Sequence[str] | None = AUTO,
        report_truncation: bool = False,
        report_answerable: bool = False,
        report_passage: bool = False,
        on_ranking: OnRanking | None = None,
        **fields: object,
    ) -> None:
        ready = resolve_reranker(reranker, config, fields)
        if ready.config.fusion == "weighted" and retrieval_score_key in (None, AUTO):
            raise ConfigError(
                "fusion='weighted' needs the first stage's scores; set retrieval_score_key= to "
                "the metadata key that holds them, or fusion='rrf', which goes by input order"
            )
        with named_errors():
            super().__init__(
                config=ready.config,
                # An adapter's own top_n decides; without it, its reranker's does.
                top_n=ready.config.top_n if top_n is None else top_n,
                retrieval_score_key=retrieval_score_key,
                report_truncation=report_truncation,
                report_answerable=report_answerable,
                report_passage=report_passage,
            )
        self._reranker = ready
        self._on_ranking = on_ranking

    @property
    def reranker(self) -> Reranker:
        """The engine behind this adapter."""
        return self._reranker

    # --- use -----------------------------------------------------------------------------------

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The best ``top_n`` documents, best first."""
        result: list[Document] = self.as_runnable().invoke(
            {"query": query, "documents": documents}, {"callbacks": callbacks}
        )
        return result

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The same without blocking the event loop."""
        result: list[Document] = await self.as_runnable().ainvoke(
            {"query": query, "documents": documents}, {"callbacks": callbacks}
        )
        return result

    def as_runnable(
        self,
        *,
        query_key: str = "query",
        documents_key: str = "documents",
        output_key: str | None = None,
    ) -> Runnable[Any, Any]:
        """This re-ranker as a step of a chain or graph, its run named "ICRRerank".

        Args:
            query_key: where the input, a mapping or a state object, has the query.
            documents_key: where it has the documents.
            output_key: None: the step returns the list of documents; else a mapping with it under
                this key, which is what a LangGraph node returns.
        """
        return as_run(
            type(self).__name__,
            self._compress,
            self._acompress,
            query_key=query_key,
            documents_key=documents_key,
            output_key=output_key,
        )

    def rerank(
        self,
        documents: Sequence[Document | DocumentLike],
        query: str,
        *,
        top_n: int | None = -1,
        instruction: str | None = None,
        max_tokens_per_doc: int | None = None,
    ) -> list[dict[str, Any]]:
        """Positions and scores, best first: ``[{"index": 2, "relevance_score": 0.7}, ...]``.

        Args:
            documents: LangChain documents, strings, or mappings with "text" (and "title"); with
                ``rank_fields`` any mappings.
            query: not blank.
            top_n: how many results; None: all; -1: this adapter's ``top_n``.
            instruction: for this call, as the setting; None: the setting.
            max_tokens_per_doc: longer documents are cut in this call; None: as configured.

        A failure that was let through is in each result as "rerank_error", what
        ``report_truncation``, ``report_answerable`` and ``report_passage`` tell as in metadata.
        """
        arguments = self._arguments(documents, query, top_n, max_tokens_per_doc)
        ranking = self._reranker.rank(**arguments, instruction=instruction)
        return results(documents, ranking, self._told(ranking))

    async def arerank(
        self,
        documents: Sequence[Document | DocumentLike],
        query: str,
        *,
        top_n: int | None = -1,
        instruction: str | None = None,
        max_tokens_per_doc: int | None = None,
    ) -> list[dict[str, Any]]:
        """`rerank` without blocking the event loop."""
        arguments = self._arguments(documents, query, top_n, max_tokens_per_doc)
        ranking = await self._reranker.arank(**arguments, instruction=instruction)
        return results(documents, ranking, self._told(ranking))

    def _compress(self, documents: list[Document], query: str) -> list[Document]:
        ranking = self._reranker.rank(**self._arguments(documents, query))
        return ranked(documents, ranking, self._told(ranking))

    async def _acompress(self, documents: list[Document], query: str) -> list[Document]:
        ranking = await self._reranker.arank(**self._arguments(documents, query))
        return ranked(documents, ranking, self._told(ranking))

    def _told(self, ranking: Ranking) -> Told:
        """What metadata are to tell, once who asked for it knows the ranking."""
        if self._on_ranking is not None:
            self._on_ranking(ranking)
        return Told(self.report_truncation, self.report_answerable, self.report_passage)

    def _arguments(
        self,
        documents: Sequence[Document | DocumentLike],
        query: str,
        top_n: int | None = -1,
        max_tokens_per_doc: int | None = None,
    ) -> RankArguments:
        """What `Reranker.rank` is to be called with."""
        if isinstance(top_n, int) and top_n == -1:
            top_n = self.top_n
        given = texts(documents, self.config)
        if self.config.rank_fields is None or not isinstance(given, Sequence):
            given = check_documents(given)
        arguments: RankArguments = {
            "query": query,
            "documents": given,
            # The reranker takes None for its configuration's top_n.
            "top_n": len(given) if top_n is None else top_n,
            "retrieval_scores": retrieval_scores(documents, self.retrieval_score_key, self.config),
        }
        if max_tokens_per_doc is not None:
            arguments["max_tokens_per_doc"] = max_tokens_per_doc
        return arguments


def __getattr__(name: str) -> object:
    if name == "ICRCrossEncoder":
        from icr_rag.integrations.langchain_cross_encoder import ICRCrossEncoder

        return ICRCrossEncoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
