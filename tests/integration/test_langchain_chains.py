"""`ICRRerank` in retrievers, in chains (LCEL), and as a node of a LangGraph graph."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TypedDict

import pytest
from langchain_core.documents import Document
from langchain_core.load import dumps, loads
from langchain_core.runnables import RunnableParallel, RunnablePassthrough
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langchain_parts import QUERY, BrokenReranker, FixedRetriever, make_documents
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker
from icr_rag.errors import InputError
from icr_rag.integrations.langchain import ICRRerank


@pytest.fixture(scope="module")
def rerank():
    reranker = Reranker.from_model(tiny_model("llama"), byte_tokenizer(), layers=(1, 2))
    return ICRRerank(reranker, top_n=2)


@pytest.fixture(scope="module")
def expected(rerank):
    return rerank.compress_documents(make_documents(), QUERY)


def test_in_a_contextual_compression_retriever(rerank, expected):
    retrievers = pytest.importorskip("langchain_classic.retrievers")
    retriever = retrievers.ContextualCompressionRetriever(
        base_compressor=rerank, base_retriever=FixedRetriever(documents=make_documents())
    )
    assert retriever.invoke(QUERY) == expected
    assert asyncio.run(retriever.ainvoke(QUERY)) == expected
    empty = retrievers.ContextualCompressionRetriever(
        base_compressor=rerank, base_retriever=FixedRetriever(documents=[])
    )
    assert empty.invoke(QUERY) == []


def test_in_a_pipeline_of_compressors(rerank, expected):
    """LangChain asks a compressor whether it takes callbacks, by its signature."""
    compressors = pytest.importorskip("langchain_classic.retrievers.document_compressors")
    pipeline = compressors.DocumentCompressorPipeline(transformers=[rerank])
    collector = RunCollectorCallbackHandler()
    assert pipeline.compress_documents(make_documents(), QUERY, callbacks=[collector]) == expected
    assert [run.name for run in collector.traced_runs] == ["ICRRerank"]
    assert asyncio.run(pipeline.acompress_documents(make_documents(), QUERY)) == expected


def test_as_a_step_of_a_chain(rerank, expected):
    chain = (
        RunnableParallel(
            query=RunnablePassthrough(), documents=FixedRetriever(documents=make_documents())
        )
        | rerank.as_runnable()
    )
    collector = RunCollectorCallbackHandler()
    assert chain.invoke(QUERY, {"callbacks": [collector]}) == expected
    (run,) = collector.traced_runs
    assert [child.name for child in run.child_runs][-1] == "ICRRerank"
    assert asyncio.run(chain.ainvoke(QUERY)) == expected
    assert chain.batch([QUERY, QUERY]) == [expected, expected]
    assert asyncio.run(chain.abatch([QUERY])) == [expected]
    assert list(chain.stream(QUERY)) == [expected]


def test_as_a_step_with_other_keys(rerank, expected):
    step = rerank.as_runnable(query_key="question", documents_key="found", output_key="best")
    state = {"question": QUERY, "found": make_documents(), "other": 1}
    assert step.invoke(state) == {"best": expected}
    assert state["found"] == make_documents()

    @dataclass
    class State:
        question: str
        found: list[Document]

    assert step.invoke(State(QUERY, make_documents())) == {"best": expected}
    with pytest.raises(InputError, match=r"without 'found' \(\['question'\]\)"):
        step.invoke({"question": QUERY})
    with pytest.raises(InputError, match=r"without 'found' \(str\)"):
        step.invoke(QUERY)


def test_a_run_name_and_tags_given_by_the_caller_hold(rerank):
    collector = RunCollectorCallbackHandler()
    config = {"callbacks": [collector], "run_name": "second stage", "tags": ["t"]}
    rerank.as_runnable().invoke({"query": QUERY, "documents": make_documents()}, config)
    (run,) = collector.traced_runs
    assert (run.name, run.tags) == ("second stage", ["t"])


@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")
@pytest.mark.filterwarnings("ignore:The default value of `allowed_objects`")
def test_results_survive_json_and_langchains_own_serialisation(expected):
    assert [Document(**json.loads(d.model_dump_json())) for d in expected] == expected
    assert loads(dumps(expected)) == expected


class State(TypedDict, total=False):
    query: str
    documents: list[Document]


def graph_with(node, checkpointer=None):
    graphs = pytest.importorskip("langgraph.graph")
    graph = graphs.StateGraph(State)
    graph.add_node("retrieve", lambda state: {"documents": make_documents()})
    graph.add_node("rerank", node)
    graph.add_edge(graphs.START, "retrieve")
    graph.add_edge("retrieve", "rerank")
    graph.add_edge("rerank", graphs.END)
    return graph.compile(checkpointer=checkpointer)


def test_as_a_node_of_a_graph_with_a_checkpoint(rerank, expected):
    memory = pytest.importorskip("langgraph.checkpoint.memory")
    serializers = pytest.importorskip("langgraph.checkpoint.serde.jsonplus")
    serializer = serializers.JsonPlusSerializer(pickle_fallback=False)
    graph = graph_with(
        rerank.as_runnable(output_key="documents"), memory.InMemorySaver(serde=serializer)
    )
    collector = RunCollectorCallbackHandler()
    config = {"configurable": {"thread_id": "1"}, "callbacks": [collector]}
    assert graph.invoke({"query": QUERY}, config)["documents"] == expected
    # What a later process would read from the checkpoint.
    assert graph.get_state(config).values["documents"] == expected
    kind, data = serializer.dumps_typed(expected)
    assert kind == "msgpack"
    assert serializer.loads_typed((kind, data)) == expected
    node = collector.traced_runs[-1].child_runs[-1]
    assert "ICRRerank" in {node.name, *(child.name for child in node.child_runs)}


async def test_as_a_node_of_a_graph_asynchronously(rerank, expected):
    graph = graph_with(rerank.as_runnable(output_key="documents"))
    assert (await graph.ainvoke({"query": QUERY}))["documents"] == expected


def test_a_failure_let_through_survives_a_checkpoint():
    serializers = pytest.importorskip("langgraph.checkpoint.serde.jsonplus")
    serializer = serializers.JsonPlusSerializer(pickle_fallback=False)
    adapter = ICRRerank(BrokenReranker(on_error="passthrough"))
    result = adapter.compress_documents(make_documents(), QUERY)
    assert serializer.loads_typed(serializer.dumps_typed(result)) == result
