"""LangChain's ``CrossEncoderReranker``, on an `ICRCrossEncoder`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document
from langchain_core.documents.compressor import BaseDocumentCompressor
from pydantic import ConfigDict, Field, field_validator

from icr_rag.errors import ConfigError
from icr_rag.integrations._langchain_documents import RERANK_ERROR
from icr_rag.integrations._langchain_run import as_run
from icr_rag.integrations.langchain import ICRRerank
from icr_rag.integrations.langchain_cross_encoder import ICRCrossEncoder
from icr_rag.reranker import Reranker

if TYPE_CHECKING:
    from langchain_core.callbacks import Callbacks


class CrossEncoderReranker(BaseDocumentCompressor):
    """In place of ``langchain_classic.retrievers.document_compressors.CrossEncoderReranker``.

    Like its namesake it returns the documents as they are, best first, without scores; use
    `ICRRerank` for scores.

    Args:
        model: an `ICRCrossEncoder`, a `Reranker`, or a model's name.
        top_n: how many documents to return.

    Raises:
        pydantic.ValidationError: for another model, or an unknown or wrong argument.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    model: ICRCrossEncoder
    top_n: int = Field(default=3, ge=0)

    @field_validator("model", mode="before")
    @classmethod
    def _accept_names_and_rerankers(cls, value: object) -> object:
        if isinstance(value, str):
            return ICRCrossEncoder(model=value)
        if isinstance(value, Reranker):
            return ICRCrossEncoder(value)
        if not isinstance(value, ICRCrossEncoder):
            raise ConfigError(
                f"model={value!r}: allowed are an ICRCrossEncoder, an icr_rag.Reranker and the "
                "name of a decoder-only model. Other cross-encoders work in LangChain's own "
                "CrossEncoderReranker, and an ICRCrossEncoder does there, too"
            )
        return value

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The best ``top_n`` documents, best first."""
        run = as_run(type(self).__name__, self._compress, self._acompress)
        result: list[Document] = run.invoke(
            {"query": query, "documents": documents}, {"callbacks": callbacks}
        )
        return result

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The same without blocking the event loop."""
        run = as_run(type(self).__name__, self._compress, self._acompress)
        result: list[Document] = await run.ainvoke(
            {"query": query, "documents": documents}, {"callbacks": callbacks}
        )
        return result

    def _compress(self, documents: list[Document], query: str) -> list[Document]:
        own = ICRRerank(self.model.reranker, top_n=self.top_n)
        return _picked(documents, own.rerank(documents, query))

    async def _acompress(self, documents: list[Document], query: str) -> list[Document]:
        own = ICRRerank(self.model.reranker, top_n=self.top_n)
        return _picked(documents, await own.arerank(documents, query))


def _picked(documents: list[Document], results: list[dict[str, Any]]) -> list[Document]:
    picked = []
    for result in results:
        document = documents[result["index"]]
        if RERANK_ERROR in result:
            metadata = {**document.metadata, RERANK_ERROR: result[RERANK_ERROR]}
            document = document.model_copy(update={"metadata": metadata})
        picked.append(document)
    return picked
