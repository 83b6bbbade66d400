"""LlamaIndex node postprocessors under the contract."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from components import PLENTY, Component, Hit, Item
from llama_index.core import postprocessor
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from scripted import answer_choice_select

from icr_rag.integrations import llama_index as icr_llama_index


class _Recorder(BaseEventHandler):
    """Notes the names of the re-ranking events."""

    starts: list[str] = []
    ends: list[str] = []

    def handle(self, event: Any, **_: Any) -> None:
        if isinstance(event, ReRankStartEvent):
            self.starts.append("rerank")
        elif isinstance(event, ReRankEndEvent):
            self.ends.append("rerank")


class Postprocessor(Component):
    """What all node postprocessors have in common."""

    distributions: tuple[str, ...] = ("llama-index-core",)
    start_event = "ReRankStartEvent"

    def documents(self, items: Sequence[Item]) -> list[NodeWithScore]:
        return [
            NodeWithScore(node=_node(item), score=1.0 - number / 10)
            for number, item in enumerate(items)
        ]

    def run(self, subject: Any, documents: list[Any], query: Any) -> Any:
        return subject.postprocess_nodes(documents, query_bundle=_bundle(query))

    async def arun(self, subject: Any, documents: list[Any], query: Any, **_: Any) -> Any:
        return await subject.apostprocess_nodes(documents, query_bundle=_bundle(query))

    def read(self, result: Any, items: Sequence[Item]) -> list[Hit]:
        return [
            Hit(scored.node.node_id, scored.node.text, scored.score, scored.node.metadata)
            for scored in result
        ]

    def plain(self, result: Any) -> Any:
        return [scored.to_dict() for scored in result]

    def restore(self, plain: Any) -> Any:
        # The class of a node is named in its own data; NodeWithScore.from_dict does not look there.
        return [
            NodeWithScore(node=TextNode.from_dict(data["node"]), score=data["score"])
            for data in plain
        ]

    def reconfigured(self, subject: Any) -> Any:
        return type(subject).from_dict(json.loads(json.dumps(subject.to_dict())))

    def events(
        self, subject: Any, call: Callable[[Any, dict[str, Any]], None]
    ) -> tuple[list[str], list[str]]:
        recorder = _Recorder()
        root = get_dispatcher()
        root.add_event_handler(recorder)
        try:
            call(subject, {})
        finally:
            root.event_handlers.remove(recorder)
        return recorder.starts, recorder.ends


def _node(item: Item) -> TextNode:
    node = TextNode(id_=item.id, text="", metadata=dict(item.metadata))
    # Past the validation, as a node that some reader made might be.
    node.__dict__["text"] = item.text
    return node


def _bundle(query: Any) -> QueryBundle | None:
    return None if query is None else QueryBundle(query)


class ICRRerank(Postprocessor):
    """Ours."""

    title = "icr_rag `ICRRerank` for LlamaIndex"

    def make(self, top_n: int | None = PLENTY) -> Any:
        # Keeps the weights that all of ours share.
        _ = self.folders.reranker
        return icr_llama_index.ICRRerank(top_n=top_n, **self.folders.settings)


class SentenceTransformerRerank(Postprocessor):
    """LlamaIndex's cross-encoder postprocessor."""

    title = "LlamaIndex `SentenceTransformerRerank`"
    distributions = ("llama-index-core", "sentence-transformers")

    def make(self, top_n: int | None = PLENTY) -> Any:
        return postprocessor.SentenceTransformerRerank(
            model=self.folders.cross_encoder, top_n=top_n, device="cpu"
        )


class ScriptedLLM(CustomLLM):
    """Answers the choice-select prompt."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata()

    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        return CompletionResponse(text=answer_choice_select(prompt))

    def stream_complete(self, prompt: str, formatted: bool = False, **_: Any) -> Any:
        raise NotImplementedError


class LLMRerank(Postprocessor):
    """LlamaIndex's re-ranker that asks a language model."""

    title = "LlamaIndex `LLMRerank`"

    def make(self, top_n: int | None = PLENTY) -> Any:
        return postprocessor.LLMRerank(llm=ScriptedLLM(), top_n=top_n)
