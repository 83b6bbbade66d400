"""LangChain: a document compressor.

``ContextualCompressionRetriever(base_compressor=ICRRerank(top_n=5), base_retriever=...)``
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from icr_rag.config import RerankerConfig
from icr_rag.errors import require
from icr_rag.integrations._config import resolve_reranker
from icr_rag.reranker import Reranker
from icr_rag.types import Ranking

require("langchain_core", "langchain", "icr_rag.integrations.langchain")

from langchain_core.documents import Document  # noqa: E402
from langchain_core.documents.compressor import BaseDocumentCompressor  # noqa: E402
from pydantic import ConfigDict, Field, PrivateAttr  # noqa: E402

if TYPE_CHECKING:
    from langchain_core.callbacks import Callbacks

#: Metadata key of the score.
RELEVANCE_SCORE = "relevance_score"


class ICRRerank(BaseDocumentCompressor):
    """Re-ranks documents by the attention that the query's tokens pay to them.

    Making one is cheap; the model is loaded on first use. Documents come back as copies, best
    first, with their score as a float in ``metadata["relevance_score"]`` (higher is better,
    relative to the query and the list); the documents given are not changed.

    Args:
        reranker: a ready `Reranker`; else one is made from the settings.
        config: settings as an object or mapping.
        top_n: how many documents to return; None: all.
        **fields: any field of `RerankerConfig` (model, layers, device, ...).

    Raises:
        ConfigError: if a setting is unknown or has a value that is not allowed.
        InputError: on use with a blank query.
    """

    model_config = ConfigDict(extra="forbid")

    config: RerankerConfig = Field(description="Settings of the reranker.")
    top_n: int | None = Field(default=None, ge=0, description="Documents to return; None: all.")
    _reranker: Reranker = PrivateAttr()

    def __init__(
        self,
        reranker: Reranker | None = None,
        *,
        config: RerankerConfig | Mapping[str, Any] | None = None,
        top_n: int | None = None,
        **fields: Any,
    ) -> None:
        ready = resolve_reranker(reranker, config, fields)
        # An adapter's own top_n decides; without it, its reranker's does.
        super().__init__(config=ready.config, top_n=ready.config.top_n if top_n is None else top_n)
        self._reranker = ready

    @property
    def reranker(self) -> Reranker:
        """The engine behind this adapter."""
        return self._reranker

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The best ``top_n`` documents, best first."""
        texts = [document.page_content for document in documents]
        ranking = self._reranker.rank(query, texts, self._count(documents))
        return _ranked(documents, ranking)

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The same without blocking the event loop."""
        texts = [document.page_content for document in documents]
        ranking = await self._reranker.arank(query, texts, self._count(documents))
        return _ranked(documents, ranking)

    def _count(self, documents: Sequence[Document]) -> int:
        return len(documents) if self.top_n is None else self.top_n


def _ranked(documents: Sequence[Document], ranking: Ranking) -> list[Document]:
    return [
        documents[hit.index].model_copy(
            update={"metadata": {**documents[hit.index].metadata, RELEVANCE_SCORE: hit.score}}
        )
        for hit in ranking
    ]
