"""Embedding models of other libraries, known by their methods. None of these is imported, but
sentence-transformers where a model of it is named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from icr_rag.config import RerankerConfig
from icr_rag.errors import ConfigError, ModelLoadError, brief, require, shown


@runtime_checkable
class LangChainEmbeddings(Protocol):
    """LangChain's ``Embeddings``."""

    def embed_documents(self, texts: list[str], /) -> object:
        """One vector per text."""

    def embed_query(self, text: str, /) -> object:
        """One vector."""


@runtime_checkable
class LlamaIndexEmbedding(Protocol):
    """LlamaIndex's ``BaseEmbedding``."""

    def get_text_embedding_batch(self, texts: list[str], /) -> object:
        """One vector per text."""

    def get_query_embedding(self, query: str, /) -> object:
        """One vector."""


@runtime_checkable
class QueryEncoder(Protocol):
    """A sentence-transformers model, from 5.0 on: it has prompts for both sides."""

    def encode_document(self, sentences: list[str], /) -> object:
        """One vector per text."""

    def encode_query(self, sentences: list[str], /) -> object:
        """One vector per query."""


@runtime_checkable
class Encoder(Protocol):
    """Whatever encodes texts as sentence-transformers does."""

    def encode(self, sentences: list[str], /) -> object:
        """One vector per text."""


#: An embedding model that is an object.
Embedding = LangChainEmbeddings | LlamaIndexEmbedding | QueryEncoder | Encoder
#: What `icr_rag.Reranker` takes as ``embedder=``: also the name or folder of a model.
EmbedderLike = Embedding | str | Path

#: Embeds a list of texts.
Batch = Callable[[list[str]], object]


@dataclass(frozen=True)
class Named:
    """A sentence-transformers model by name, and how it is loaded; fields of `RerankerConfig`."""

    embedder: str
    device: str
    cache_dir: str | None
    local_files_only: bool
    trust_remote_code: bool

    @classmethod
    def of(cls, config: RerankerConfig) -> Named:
        """As the settings say."""
        return cls(
            str(config.embedder),
            config.device,
            config.cache_dir,
            config.local_files_only,
            config.trust_remote_code,
        )

    def load(self) -> Embedding:
        """The model.

        Raises:
            MissingDependencyError: if sentence-transformers is not installed.
            ModelLoadError: if it cannot be loaded.
        """
        require("sentence_transformers", "embedder", f"embedder={self.embedder!r}")
        from sentence_transformers import SentenceTransformer

        try:
            model: Encoder = SentenceTransformer(
                self.embedder,
                device=None if self.device == "auto" else self.device,
                cache_folder=self.cache_dir,
                local_files_only=self.local_files_only,
                trust_remote_code=self.trust_remote_code,
            )
        except Exception as error:
            raise ModelLoadError(
                f"embedder={self.embedder!r} cannot be loaded: {brief(str(error))}; give the name "
                "or folder of a sentence-transformers model"
            ) from error
        return model


def methods_of(model: object) -> tuple[Batch, Batch]:
    """What embeds queries, and what embeds documents: each takes a list of texts, and gives one
    vector per text.

    Raises:
        ConfigError: if the object is no embedding model.
    """
    if isinstance(model, LangChainEmbeddings):
        langchain = model
        return lambda texts: [langchain.embed_query(text) for text in texts], (
            langchain.embed_documents
        )
    if isinstance(model, LlamaIndexEmbedding):
        llama_index = model
        return lambda texts: [llama_index.get_query_embedding(text) for text in texts], (
            llama_index.get_text_embedding_batch
        )
    if isinstance(model, QueryEncoder):
        return model.encode_query, model.encode_document
    if isinstance(model, Encoder):
        return model.encode, model.encode
    raise ConfigError(
        f"embedder={shown(model)} is no embedding model; allowed are LangChain's Embeddings "
        "(embed_documents, embed_query), LlamaIndex's BaseEmbedding (get_text_embedding_batch, "
        "get_query_embedding), a sentence-transformers model (encode), or the name of one"
    )
