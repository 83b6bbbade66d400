"""Re-rankers that are no part of a framework, under the contract."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from components import PLENTY, Component, Hit, Item

_NO_EVENTS = "has no events of its own"


class RerankersRanker(Component):
    """What rankers of the rerankers library have in common. The subject is (ranker, top k)."""

    distributions: tuple[str, ...] = ("rerankers",)

    @functools.cached_property
    def ranker(self) -> Any:
        """The ranker itself."""
        raise NotImplementedError

    def make(self, top_n: int | None = PLENTY) -> Any:
        return self.ranker, top_n

    def documents(self, items: Sequence[Item]) -> list[Any]:
        from rerankers import Document

        return [
            Document(text=item.text, doc_id=item.id, metadata=dict(item.metadata)) for item in items
        ]

    def run(self, subject: Any, documents: list[Any], query: Any) -> Any:
        ranker, top_k = subject
        ranked = ranker.rank(query, documents)
        return ranked.results if top_k is None else ranked.top_k(top_k)

    async def arun(self, subject: Any, documents: list[Any], query: Any) -> Any:
        ranker, top_k = subject
        ranked = await ranker.rank_async(query, documents)
        return ranked.results if top_k is None else ranked.top_k(top_k)

    def read(self, result: Any, items: Sequence[Item]) -> list[Hit]:
        return [
            Hit(hit.document.doc_id, hit.document.text, hit.score, hit.document.metadata)
            for hit in result
        ]

    def snapshot(self, documents: list[Any]) -> Any:
        return [vars(document) for document in super().snapshot(documents)]


class TransformerRanker(RerankersRanker):
    """The library's cross-encoder."""

    title = "rerankers `TransformerRanker`"
    distributions = ("rerankers", "transformers")

    @functools.cached_property
    def ranker(self) -> Any:
        from rerankers import Reranker

        return Reranker(
            self.folders.cross_encoder, model_type="cross-encoder", device="cpu", verbose=0
        )


class CrossEncoderLike(Component):
    """``rank`` of a sentence-transformers CrossEncoder. The subject is (encoder, top k)."""

    distributions: tuple[str, ...] = ("sentence-transformers",)
    not_defined = {
        "duplicate_ids": "documents are strings, known by their position",
        "metadata_kept": "documents are strings",
    }

    @functools.cached_property
    def encoder(self) -> Any:
        """The encoder itself."""
        raise NotImplementedError

    def make(self, top_n: int | None = PLENTY) -> Any:
        return self.encoder, top_n

    def documents(self, items: Sequence[Item]) -> list[Any]:
        return [item.text for item in items]

    def run(self, subject: Any, documents: list[Any], query: Any) -> Any:
        encoder, top_k = subject
        return encoder.rank(query, documents, top_k=top_k, return_documents=True)

    def read(self, result: Any, items: Sequence[Item]) -> list[Hit]:
        return [Hit(items[hit["corpus_id"]].id, hit["text"], hit["score"], {}) for hit in result]

    def plain(self, result: Any) -> Any:
        # A list of dictionaries is its own serialised form.
        return result

    def restore(self, plain: Any) -> Any:
        return plain


class CrossEncoderRank(CrossEncoderLike):
    """The real one."""

    title = "sentence-transformers `CrossEncoder.rank`"

    @functools.cached_property
    def encoder(self) -> Any:
        from sentence_transformers import CrossEncoder

        return CrossEncoder(self.folders.cross_encoder, device="cpu")


class ICRRerankers(RerankersRanker):
    """Our ranker for the rerankers library."""

    title = "icr_rag `ICRRanker` for rerankers"

    @functools.cached_property
    def ranker(self) -> Any:
        from icr_rag.integrations.rerankers import ICRRanker

        # Keeps the weights that all of ours share.
        _ = self.folders.reranker
        return ICRRanker(**self.folders.settings)


class ICRCrossEncoder(CrossEncoderLike):
    """Our ``CrossEncoder``."""

    title = "icr_rag `CrossEncoder` for sentence-transformers"
    distributions = ("icr-rag",)

    @functools.cached_property
    def encoder(self) -> Any:
        from icr_rag.integrations.sentence_transformers import CrossEncoder

        # Keeps the weights that all of ours share.
        _ = self.folders.reranker
        return CrossEncoder(**self.folders.settings)
