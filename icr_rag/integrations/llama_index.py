"""LlamaIndex: a node postprocessor. ``query_engine(node_postprocessors=[ICRRerank(top_n=5)])``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from icr_rag.config import RerankerConfig
from icr_rag.errors import InputError, require
from icr_rag.integrations._config import resolve_reranker
from icr_rag.reranker import Reranker
from icr_rag.types import Ranking

require("llama_index.core", "llama-index", "icr_rag.integrations.llama_index")

from llama_index.core import instrumentation  # noqa: E402
from llama_index.core.bridge.pydantic import Field, PrivateAttr  # noqa: E402
from llama_index.core.callbacks import CBEventType, EventPayload  # noqa: E402
from llama_index.core.instrumentation.events.rerank import (  # noqa: E402
    ReRankEndEvent,
    ReRankStartEvent,
)
from llama_index.core.postprocessor.types import BaseNodePostprocessor  # noqa: E402
from llama_index.core.schema import (  # noqa: E402
    BaseNode,
    MetadataMode,
    NodeWithScore,
    QueryBundle,
)

dispatcher = instrumentation.get_dispatcher(__name__)  # type: ignore[attr-defined]

#: Metadata key of the first stage's score, with ``keep_retrieval_score``.
RETRIEVAL_SCORE = "retrieval_score"


class ICRRerank(BaseNodePostprocessor):
    """Re-ranks nodes by the attention that the query's tokens pay to them.

    Making one is cheap; the model is loaded on first use. Nodes come back as new
    ``NodeWithScore`` objects, best first, with a float score (higher is better, relative to the
    query and the list); the nodes given are not changed. Nodes without text come last.

    Args:
        reranker: a ready `Reranker`; else one is made from the settings.
        config: settings as an object or mapping.
        top_n: how many nodes to return; None: all.
        metadata_mode: which metadata the model reads with a node's text. The default is what is
            embedded, as in LlamaIndex's own rerankers.
        keep_retrieval_score: keep the score that a node came with in its metadata as
            "retrieval_score", hidden from embedders and LLMs. The node is then a copy.
        **fields: any field of `RerankerConfig` (model, layers, device, ...).

    Raises:
        ConfigError: if a setting is unknown or has a value that is not allowed.
        InputError: on use without a query.
    """

    config: RerankerConfig = Field(description="Settings of the reranker.")
    top_n: int | None = Field(default=None, ge=0, description="Nodes to return; None: all.")
    metadata_mode: MetadataMode = Field(
        default=MetadataMode.EMBED, description="Metadata that the model reads with the text."
    )
    keep_retrieval_score: bool = Field(
        default=False, description="Keep the first stage's score in the node's metadata."
    )
    _reranker: Reranker = PrivateAttr()

    def __init__(
        self,
        reranker: Reranker | None = None,
        *,
        config: RerankerConfig | Mapping[str, Any] | None = None,
        top_n: int | None = None,
        metadata_mode: MetadataMode = MetadataMode.EMBED,
        keep_retrieval_score: bool = False,
        callback_manager: Any = None,
        **fields: Any,
    ) -> None:
        ready = resolve_reranker(reranker, config, fields)
        own: dict[str, Any] = (
            {} if callback_manager is None else {"callback_manager": callback_manager}
        )
        super().__init__(
            config=ready.config,
            # An adapter's own top_n decides; without it, its reranker's does.
            top_n=ready.config.top_n if top_n is None else top_n,
            metadata_mode=metadata_mode,
            keep_retrieval_score=keep_retrieval_score,
            **own,
        )
        self._reranker = ready

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex serialises this class."""
        return "ICRRerank"

    @property
    def reranker(self) -> Reranker:
        """The engine behind this adapter."""
        return self._reranker

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        with self._reported(nodes, query_bundle) as (query, result):
            if nodes:
                ranking = self._reranker.rank(query, self._texts(nodes), self._count(nodes))
                result += self._ranked(nodes, ranking)
        return result

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        with self._reported(nodes, query_bundle) as (query, result):
            if nodes:
                texts = self._texts(nodes)
                ranking = await self._reranker.arank(query, texts, self._count(nodes))
                result += self._ranked(nodes, ranking)
        return result

    @contextmanager
    def _reported(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None
    ) -> Iterator[tuple[str, list[NodeWithScore]]]:
        """Start and end events around the work, also when it fails or there is nothing to do."""
        if query_bundle is None or not query_bundle.query_str.strip():
            raise InputError(
                "ICRRerank was called without a query; pass query_bundle= or query_str="
            )
        result: list[NodeWithScore] = []
        dispatcher.event(
            ReRankStartEvent(
                query=query_bundle,
                nodes=nodes,
                top_n=self._count(nodes),
                model_name=self.config.model,
            )
        )
        try:
            with self.callback_manager.event(
                CBEventType.RERANKING,
                payload={
                    EventPayload.NODES: nodes,
                    EventPayload.MODEL_NAME: self.config.model,
                    EventPayload.QUERY_STR: query_bundle.query_str,
                    EventPayload.TOP_K: self._count(nodes),
                },
            ) as event:
                yield query_bundle.query_str, result
                event.on_end(payload={EventPayload.NODES: result})
        finally:
            dispatcher.event(ReRankEndEvent(nodes=result))

    def _texts(self, nodes: list[NodeWithScore]) -> list[str]:
        return [node.node.get_content(metadata_mode=self.metadata_mode) for node in nodes]

    def _count(self, nodes: list[NodeWithScore]) -> int:
        return len(nodes) if self.top_n is None else self.top_n

    def _ranked(self, nodes: list[NodeWithScore], ranking: Ranking) -> list[NodeWithScore]:
        return [
            NodeWithScore(node=self._node(nodes[hit.index]), score=hit.score) for hit in ranking
        ]

    def _node(self, scored: NodeWithScore) -> BaseNode:
        node = scored.node
        if not self.keep_retrieval_score:
            return node
        hidden = [RETRIEVAL_SCORE]
        return node.model_copy(
            update={
                "metadata": {**node.metadata, RETRIEVAL_SCORE: scored.score},
                "excluded_embed_metadata_keys": node.excluded_embed_metadata_keys + hidden,
                "excluded_llm_metadata_keys": node.excluded_llm_metadata_keys + hidden,
            }
        )
