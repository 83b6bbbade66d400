"""LangChain: encode documents when they are indexed, so that queries find their states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from langchain_core.documents import BaseDocumentTransformer, Document

from icr_rag.config import RerankerConfig
from icr_rag.integrations._config import resolve_reranker
from icr_rag.integrations._langchain_documents import texts
from icr_rag.reranker import Reranker


class ICREncode(BaseDocumentTransformer):
    """Keeps the document states of documents at indexing time.

    Put it behind the splitter: ``store.add_documents(encode.transform_documents(chunks))``.
    Documents pass unchanged. With the same settings and ``states_dir`` an `ICRRerank` in another
    process then pays for the query's tokens only.

    Args:
        reranker: a ready `Reranker`; else one is made from the settings.
        config: settings as an object or mapping.
        **fields: any field of `RerankerConfig`; ``document_states`` is "independent".

    Raises:
        ConfigError: if a setting is unknown or has a value that is not allowed.
    """

    def __init__(
        self,
        reranker: Reranker | None = None,
        *,
        config: RerankerConfig | Mapping[str, object] | None = None,
        **fields: object,
    ) -> None:
        if reranker is None and config is None:
            fields = {"document_states": "independent", **fields}
        self.reranker = resolve_reranker(reranker, config, fields)

    def transform_documents(
        self, documents: Sequence[Document], **kwargs: object
    ) -> Sequence[Document]:
        """Encode what is not stored yet; the documents as they are."""
        self.reranker.encode(texts(documents, self.reranker.config))
        return documents
