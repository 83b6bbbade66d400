"""LlamaIndex: a node postprocessor. ``query_engine(node_postprocessors=[ICRRerank(top_n=5)])``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from icr_rag.config import RerankerConfig
from icr_rag.errors import InputError, require
from icr_rag.integrations._call import RankArguments
from icr_rag.integrations._config import Makers, named_errors, resolve_reranker
from icr_rag.reranker import Reranker

require("llama_index.core", "llama-index", "icr_rag.integrations.llama_index")

from llama_index.core import instrumentation  # noqa: E402
from llama_index.core.bridge.pydantic import (  # noqa: E402
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
)
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload  # noqa: E402
from llama_index.core.instrumentation.events.rerank import (  # noqa: E402
    ReRankEndEvent,
    ReRankStartEvent,
)
from llama_index.core.postprocessor.types import BaseNodePostprocessor  # noqa: E402
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle  # noqa: E402

from icr_rag.integrations._llama_index_encode import ICREncode  # noqa: E402
from icr_rag.integrations._llama_index_nodes import (  # noqa: E402
    RERANK_ERROR,
    RETRIEVAL_SCORE,
    check_bundle,
    check_mode,
    check_nodes,
    clean_tool_query,
    documents_of,
    ranked_nodes,
    unranked_nodes,
)
from icr_rag.integrations._told import (  # noqa: E402
    ANSWERABLE,
    PASSAGE_END,
    PASSAGE_START,
    QUERY_TRUNCATED,
    TRUNCATED,
    OnRanking,
    Told,
)
from icr_rag.types import Ranking  # noqa: E402

__all__ = [
    "ANSWERABLE",
    "PASSAGE_END",
    "PASSAGE_START",
    "QUERY_TRUNCATED",
    "RERANK_ERROR",
    "RETRIEVAL_SCORE",
    "TRUNCATED",
    "ICREncode",
    "ICRRerank",
    "clean_tool_query",
]

logger = logging.getLogger(__name__)

dispatcher = instrumentation.get_dispatcher(__name__)  # type: ignore[attr-defined]


class ICRRerank(Makers, BaseNodePostprocessor):
    """Re-ranks nodes by the attention that the query's tokens pay to them.

    Making one is cheap; the model is loaded on first use. Nodes come back as new
    ``NodeWithScore`` objects, best first, with a float score (higher is better, relative to the
    query and the list); the nodes given are not changed. Images and other nodes without text of
    their own come after all that were read, in input order. The scores that nodes come with count
    beside the model's; ``fusion="none"`` leaves them out. If ``on_error="passthrough"`` let a
    failure through, nodes keep their order and retrieval score, with the reason in
    ``metadata["rerank_error"]``.

    Copies share the engine. Pickles carry the settings, and the model is loaded where it is used;
    callbacks stay behind, and an engine on weights of an LLM cannot be pickled.

    Args:
        reranker: a ready `Reranker`; else one is made from the settings.
        config: settings as an object or mapping.
        top_n: how many nodes to return; None: all.
        metadata_mode: which metadata the model reads with a node's text. The default is what is
            embedded, as in LlamaIndex's own rerankers. With ``rank_fields`` these say it.
        keep_retrieval_score: keep the score that a node came with in its metadata as
            "retrieval_score", hidden from embedders and LLMs. The node is then a copy.
        report_truncation: write ``"truncated": True`` into the metadata of nodes of which the
            model read the beginning only, and ``"query_truncated": True`` into that of all if the
            query was cut, or ``"rerank_degraded"`` with what a ``deadline_ms`` left out; hidden
            likewise, on copies.
        report_answerable: write the probability that a node of the list answers the query, where it
            is known, into the metadata of all as "answerable"; hidden likewise, on copies.
        report_passage: with the setting ``passages``, write where the best passage of a node is in
            its text into its metadata, as "passage_start" and "passage_end"; hidden likewise.
        on_ranking: called with each `icr_rag.Ranking` before nodes are made of it: what it cost,
            and, where no node is left, whether that is because nothing answers (``abstained``). A
            function, and so no part of ``to_dict``.
        query_transform: applied to the query before it is read; the default takes the question
            out of what LlamaIndex's tools make of an agent's request, None leaves queries alone.
            A function, and so no part of ``to_dict``.
        **fields: any field of `RerankerConfig` (model, layers, device, ...); ``embedder`` may also
            be a ``BaseEmbedding``, such as ``Settings.embed_model``, which is no part of
            ``to_dict``.

    Raises:
        ConfigError: if a setting is unknown or has a value that is not allowed.
        InputError: on use without a query, or with anything but scored nodes; before any event is
            sent. With ``on_error="passthrough"`` a wrong query lets the nodes through.
    """

    # A wrong value is refused also when it is assigned later, where it would cut or keep nonsense.
    model_config = ConfigDict(validate_assignment=True)

    config: RerankerConfig = Field(frozen=True, description="Settings of the reranker.")
    top_n: int | None = Field(default=None, ge=0, description="Nodes to return; None: all.")
    metadata_mode: MetadataMode = Field(
        default=MetadataMode.EMBED, description="Metadata that the model reads with the text."
    )
    keep_retrieval_score: bool = Field(
        default=False, description="Keep the first stage's score in the node's metadata."
    )
    report_truncation: bool = Field(
        default=False, description="Tell in the node's metadata that it, or the query, was cut."
    )
    report_answerable: bool = Field(
        default=False, description="Tell in the node's metadata whether the list has an answer."
    )
    report_passage: bool = Field(
        default=False, description="Tell in the node's metadata where its best passage is."
    )
    _reranker: Reranker = PrivateAttr()
    _on_ranking: OnRanking | None = PrivateAttr()
    _query_transform: Callable[[str], str] | None = PrivateAttr()

    def __init__(
        self,
        reranker: Reranker | None = None,
        *,
        config: RerankerConfig | Mapping[str, object] | None = None,
        top_n: int | None = None,
        metadata_mode: MetadataMode = MetadataMode.EMBED,
        keep_retrieval_score: bool = False,
        report_truncation: bool = False,
        report_answerable: bool = False,
        report_passage: bool = False,
        on_ranking: OnRanking | None = None,
        query_transform: Callable[[str], str] | None = clean_tool_query,
        callback_manager: CallbackManager | None = None,
        **fields: object,
    ) -> None:
        ready = resolve_reranker(reranker, config, fields)
        check_mode(ready.config, metadata_mode)
        own = {} if callback_manager is None else {"callback_manager": callback_manager}
        with named_errors():
            super().__init__(
                config=ready.config,
                # An adapter's own top_n decides; without it, its reranker's does.
                top_n=ready.config.top_n if top_n is None else top_n,
                metadata_mode=metadata_mode,
                keep_retrieval_score=keep_retrieval_score,
                report_truncation=report_truncation,
                report_answerable=report_answerable,
                report_passage=report_passage,
                **own,
            )
        self._reranker = ready
        self._on_ranking = on_ranking
        self._query_transform = query_transform

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex serialises this class."""
        return "ICRRerank"

    @property
    def reranker(self) -> Reranker:
        """The engine behind this adapter."""
        return self._reranker

    def to_dict(self, **kwargs: object) -> dict[str, Any]:
        """All fields as JSON types; `from_dict` makes an adapter with equal settings."""
        return super().to_dict(**{"mode": "json", **kwargs})

    # LlamaIndex's own way deletes from the living object what cannot be pickled, and makes the copy
    # from the fields alone, which would lose the query's transform without a word.
    def __getstate__(self) -> dict[str, object]:
        state = BaseModel.__getstate__(self)
        values = {**state["__dict__"]}
        values.pop("callback_manager", None)
        return {**state, "__dict__": values}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        values = {"callback_manager": CallbackManager(), **state["__dict__"]}
        BaseModel.__setstate__(self, {**state, "__dict__": values})

    async def apostprocess_nodes(
        self,
        nodes: list[NodeWithScore],
        query_bundle: QueryBundle | None = None,
        query_str: str | None = None,
    ) -> list[NodeWithScore]:
        """``postprocess_nodes`` without blocking the event loop; old LlamaIndex has it not."""
        if query_str is not None:
            if query_bundle is not None:
                raise InputError("query_bundle= and query_str= exclude each other; pass one")
            query_bundle = QueryBundle(query_str)
        return await self._apostprocess_nodes(nodes, query_bundle)

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query, wrong = self._checked(nodes, query_bundle)
        with self._reported(nodes, query) as result:
            if wrong is None:
                ranking = self._reranker.rank(**self._arguments(nodes, query))
                result += self._ranked(nodes, ranking)
            else:
                result += unranked_nodes(nodes, wrong, self.top_n)
        return result

    # The synchronous method gets its span from LlamaIndex, because it is abstract there.
    @dispatcher.span
    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query, wrong = self._checked(nodes, query_bundle)
        with self._reported(nodes, query) as result:
            if wrong is None:
                ranking = await self._reranker.arank(**self._arguments(nodes, query))
                result += self._ranked(nodes, ranking)
            else:
                result += unranked_nodes(nodes, wrong, self.top_n)
        return result

    def _checked(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None
    ) -> tuple[QueryBundle, str | None]:
        """The query, and what is wrong with it if that is to be let through.

        Before events, whose own checks would name fields that the caller has never heard of.
        """
        check_nodes(nodes)
        try:
            check_bundle(query_bundle)
        except InputError as error:
            if self.config.on_error == "raise":
                raise InputError(f"{type(self).__name__}: {error}") from error
            logger.warning("ranking failed; the nodes keep their given order: %s", error)
            return QueryBundle(""), f"{type(error).__name__}: {error}"
        return query_bundle or QueryBundle(""), None

    def _ranked(self, nodes: list[NodeWithScore], ranking: Ranking) -> list[NodeWithScore]:
        if self._on_ranking is not None:
            self._on_ranking(ranking)
        return ranked_nodes(
            nodes,
            ranking,
            self.top_n,
            keep_retrieval_score=self.keep_retrieval_score,
            told=Told(self.report_truncation, self.report_answerable, self.report_passage),
        )

    def _arguments(self, nodes: list[NodeWithScore], query_bundle: QueryBundle) -> RankArguments:
        """What `Reranker.rank` is to be called with."""
        query = query_bundle.query_str
        if self._query_transform is not None:
            query = self._query_transform(query)
        return {
            "query": query,
            "documents": documents_of(nodes, self.metadata_mode, self.config),
            "top_n": len(nodes) if self.top_n is None else self.top_n,
            "retrieval_scores": [scored.score for scored in nodes],
        }

    @contextmanager
    def _reported(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle
    ) -> Iterator[list[NodeWithScore]]:
        """Start and end events around the work, also when it fails or there is nothing to do."""
        result: list[NodeWithScore] = []
        top_n = len(nodes) if self.top_n is None else self.top_n
        dispatcher.event(
            ReRankStartEvent(
                query=query_bundle,
                nodes=nodes,
                top_n=top_n,
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
                    EventPayload.TOP_K: top_n,
                },
            ) as event:
                yield result
                event.on_end(payload={EventPayload.NODES: result})
        finally:
            dispatcher.event(ReRankEndEvent(nodes=result))
