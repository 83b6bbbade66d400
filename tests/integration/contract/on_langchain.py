"""LangChain document compressors under the contract."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from components import PLENTY, Component, Hit, Item, NotDefinedError
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from icr_rag.integrations import langchain as icr_langchain


class _Recorder(BaseCallbackHandler):
    """Notes the ids of the runs that start and of those that end, however they end."""

    def __init__(self) -> None:
        self.starts: list[str] = []
        self.ends: list[str] = []

    def on_chain_start(self, *_: Any, run_id: Any, **__: Any) -> None:
        self.starts.append(str(run_id))

    def on_chain_end(self, *_: Any, run_id: Any, **__: Any) -> None:
        self.ends.append(str(run_id))

    on_retriever_start = on_tool_start = on_llm_start = on_chat_model_start = on_chain_start
    on_retriever_end = on_tool_end = on_llm_end = on_chain_end
    on_chain_error = on_retriever_error = on_tool_error = on_llm_error = on_chain_end


class Compressor(Component):
    """What all document compressors have in common."""

    distributions: tuple[str, ...] = ("langchain-classic", "langchain-core")
    has_scores = False
    start_event = "start of a run to the callbacks given"

    def documents(self, items: Sequence[Item]) -> list[Document]:
        return [
            # Past the validation, as a document that some loader made might be.
            Document.model_construct(
                id=item.id, page_content=item.text, metadata=dict(item.metadata), type="Document"
            )
            for item in items
        ]

    def run(self, subject: Any, documents: list[Any], query: Any, callbacks: Any = None) -> Any:
        return subject.compress_documents(documents, query, callbacks=callbacks)

    async def arun(
        self, subject: Any, documents: list[Any], query: Any, callbacks: Any = None
    ) -> Any:
        return await subject.acompress_documents(documents, query, callbacks=callbacks)

    def read(self, result: Any, items: Sequence[Item]) -> list[Hit]:
        return [
            Hit(
                document.id,
                document.page_content,
                document.metadata.get("relevance_score"),
                document.metadata,
            )
            for document in result
        ]

    def plain(self, result: Any) -> Any:
        return [document.model_dump() for document in result]

    def restore(self, plain: Any) -> Any:
        return [Document(**data) for data in plain]

    def through_msgpack(self, result: Any) -> Any:
        serializer = JsonPlusSerializer()
        return serializer.loads_typed(serializer.dumps_typed(list(result)))

    def reconfigured(self, subject: Any) -> Any:
        raise NotDefinedError("LangChain defines no serialised form of a compressor")

    def events(
        self, subject: Any, call: Callable[[Any, dict[str, Any]], None]
    ) -> tuple[list[str], list[str]]:
        recorder = _Recorder()
        call(subject, {"callbacks": [recorder]})
        return recorder.starts, recorder.ends


class ICRRerank(Compressor):
    """Ours."""

    title = "icr_rag `ICRRerank` for LangChain"
    distributions = ("langchain-core",)
    has_scores = True

    def make(self, top_n: int | None = PLENTY) -> Any:
        # Keeps the weights that all of ours share.
        _ = self.folders.reranker
        return icr_langchain.ICRRerank(top_n=top_n, **self.folders.settings)

    def reconfigured(self, subject: Any) -> Any:
        return type(subject)(**json.loads(subject.model_dump_json()))
