"""A LlamaIndex agent that calls a retriever tool whose results are re-ranked.

    python examples/llama_index_agent.py

The embedded LLM is too small to decide on tool calls, so a scripted LLM makes the call that yours
would make; the tool, the retrieval and the re-ranking are real. The agent words its request as
"input is ..."; the re-ranker reads the question alone. Its settings are in `reranker.yaml`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from first_stage import QUESTION, llama_index_embedding, llama_index_nodes
from llama_index.core import VectorStoreIndex
from llama_index.core.agent.workflow import AgentOutput, ReActAgent, ToolCallResult
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.tools import RetrieverTool, ToolMetadata

from icr_rag.integrations.llama_index import ICRRerank

CONFIG = Path(__file__).with_name("reranker.yaml")
CALL = (
    "Thought: I need the cook book.\nAction: cook_book\n"
    f"Action Input: {json.dumps({'input': QUESTION})}"
)
ANSWER = "Thought: I can answer now.\nAnswer: Chill it first."


class ScriptedLLM(CustomLLM):
    """In place of an LLM that calls tools."""

    replies: list[str]

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(context_window=4096)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=self.replies.pop(0))

    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> Iterator[CompletionResponse]:
        yield self.complete(prompt)


async def run() -> None:
    # LlamaIndex's own store: Qdrant's local mode has no asynchronous client for the same data.
    index = VectorStoreIndex(llama_index_nodes(), embed_model=llama_index_embedding())
    tool = RetrieverTool(
        retriever=index.as_retriever(similarity_top_k=4),
        metadata=ToolMetadata(name="cook_book", description="Search a cook book."),
        node_postprocessors=[ICRRerank.from_config(CONFIG)],
    )
    agent = ReActAgent(tools=[tool], llm=ScriptedLLM(replies=[CALL, ANSWER]), streaming=False)
    handler = agent.run(QUESTION)
    async for event in handler.stream_events():
        if isinstance(event, ToolCallResult):
            print(f"tool: {event.tool_output.content}")
    output: AgentOutput = await handler
    print(f"agent: {output.response.content}")


if __name__ == "__main__":
    asyncio.run(run())
