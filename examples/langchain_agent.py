"""A LangChain agent that calls a retriever tool whose results are re-ranked.

    python examples/langchain_agent.py

The embedded LLM is too small to decide on tool calls, so a scripted chat model makes the call that
yours would make; the tool, the retrieval and the re-ranking are real. Its settings are in
`reranker.yaml`.
"""

from __future__ import annotations

from pathlib import Path

from first_stage import QUESTION, langchain_store
from langchain.agents import create_agent
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import create_retriever_tool

from icr_rag.integrations.langchain import ICRRerank

CONFIG = Path(__file__).with_name("reranker.yaml")


class ScriptedModel(GenericFakeChatModel):
    """In place of a chat model that calls tools."""

    def bind_tools(self, tools, **kwargs):
        return self


def main() -> None:
    retriever = ContextualCompressionRetriever(
        base_compressor=ICRRerank.from_config(CONFIG),
        base_retriever=langchain_store().as_retriever(search_kwargs={"k": 4}),
    )
    tool = create_retriever_tool(retriever, "cook_book", "Search a cook book.")
    call = {"name": "cook_book", "args": {"query": QUESTION}, "id": "1", "type": "tool_call"}
    model = ScriptedModel(
        messages=iter([AIMessage("", tool_calls=[call]), AIMessage("Chill it first.")])
    )
    agent = create_agent(model, [tool])
    for message in agent.invoke({"messages": [("user", QUESTION)]})["messages"]:
        print(f"{message.type}: {message.content or message.tool_calls[0]['name']}")


if __name__ == "__main__":
    main()
