"""A real agent of LangChain's, whose retriever tool re-ranks; its chat model is scripted."""

from __future__ import annotations

import pytest
from langchain_core.documents import Document
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import create_retriever_tool
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langchain_parts import QUERY, FixedRetriever, make_documents
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker
from icr_rag.integrations.langchain import ICRRerank

agents = pytest.importorskip("langchain.agents")
retrievers = pytest.importorskip("langchain_classic.retrievers")
memory = pytest.importorskip("langgraph.checkpoint.memory")


class ScriptedChat(GenericFakeChatModel):
    """Says its lines, whatever it is asked and whatever tools it has."""

    def bind_tools(self, tools, **kwargs):
        return self


@pytest.fixture(scope="module")
def rerank():
    reranker = Reranker.from_model(tiny_model("llama"), byte_tokenizer(), layers=(1, 2))
    return ICRRerank(reranker, top_n=2)


@pytest.fixture
def agent(rerank):
    tool = create_retriever_tool(
        retrievers.ContextualCompressionRetriever(
            base_compressor=rerank, base_retriever=FixedRetriever(documents=make_documents())
        ),
        "search_metals",
        "Facts about metals.",
        response_format="content_and_artifact",
    )
    wish = {"name": "search_metals", "args": {"query": QUERY}, "id": "call1"}
    lines = [AIMessage("", tool_calls=[wish]), AIMessage("Tin.")]
    return agents.create_agent(
        ScriptedChat(messages=iter(lines)), [tool], checkpointer=memory.InMemorySaver()
    )


def check(state, expected):
    asked, wished, told, answered = state["messages"]
    assert (asked.content, answered.content) == (QUERY, "Tin.")
    assert wished.tool_calls[0]["name"] == "search_metals"
    assert isinstance(told, ToolMessage)
    assert told.content == "\n\n".join(document.page_content for document in expected)
    # A message's artifact comes back from a checkpoint as plain data.
    assert [Document.model_validate(document) for document in told.artifact] == expected


def test_an_agent_reads_the_best_documents(agent, rerank):
    expected = rerank.compress_documents(make_documents(), QUERY)
    collector = RunCollectorCallbackHandler()
    config = {"configurable": {"thread_id": "1"}, "callbacks": [collector]}
    check(agent.invoke({"messages": [HumanMessage(QUERY)]}, config), expected)
    # Scores and ids come back from the checkpoint as they went in.
    check(agent.get_state(config).values, expected)
    assert path_to("ICRRerank", collector.traced_runs)[-3:] == [
        "search_metals",
        "ContextualCompressionRetriever",
        "ICRRerank",
    ]


def path_to(name, runs):
    """Names of the runs from a root down to the one of that name; empty if there is none."""
    for run in runs:
        if run.name == name:
            return [name]
        below = path_to(name, run.child_runs)
        if below:
            return [run.name, *below]
    return []


async def test_asynchronously(agent, rerank):
    expected = rerank.compress_documents(make_documents(), QUERY)
    config = {"configurable": {"thread_id": "2"}}
    check(await agent.ainvoke({"messages": [HumanMessage(QUERY)]}, config), expected)
