"""What a trace of the LlamaIndex adapter shows, and what asynchronous callers may rely on."""

from __future__ import annotations

import asyncio
import threading

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.llms import MockLLM
from llama_index.core.schema import QueryBundle
from llama_index_parts import (
    PAIR,
    QUERY,
    make_nodes,
    names,
    recorded_events,
    recorded_spans,
    results,
)

from icr_rag.errors import InputError
from icr_rag.integrations.compat.llama_index import RankGPTRerank
from icr_rag.integrations.llama_index import ICRRerank


def call_sync(adapter, nodes, bundle=None):
    return adapter.postprocess_nodes(nodes, bundle)


def call_async(adapter, nodes, bundle=None):
    return asyncio.run(adapter.apostprocess_nodes(nodes, bundle))


BOTH = pytest.mark.parametrize("call", [call_sync, call_async])


def fail(*arguments, **keywords):
    raise ZeroDivisionError


# --- events --------------------------------------------------------------------------------------


@BOTH
def test_events_say_what_was_asked_and_found(tiny_reranker, call):
    debug = LlamaDebugHandler(print_trace_on_end=False)
    adapter = ICRRerank(tiny_reranker, top_n=2, callback_manager=CallbackManager([debug]))
    nodes = make_nodes()
    with recorded_events() as events:
        found = call(adapter, nodes, QueryBundle(QUERY))
    start, end = events
    assert (start.query.query_str, start.top_n) == (QUERY, 2)
    assert start.model_name == adapter.config.model
    assert results(start.nodes) == results(nodes)
    assert results(end.nodes) == results(found)
    ((began, ended),) = debug.get_event_pairs(CBEventType.RERANKING)
    assert began.payload[EventPayload.QUERY_STR] == QUERY
    assert results(ended.payload[EventPayload.NODES]) == results(found)


@BOTH
def test_events_pair_without_nodes_and_when_the_engine_fails(tiny_reranker, call, monkeypatch):
    adapter = ICRRerank(tiny_reranker)
    with recorded_events() as events:
        assert call(adapter, [], QueryBundle(QUERY)) == []
        monkeypatch.setattr(tiny_reranker, "_score", fail)
        with pytest.raises(ZeroDivisionError):
            call(adapter, make_nodes(), QueryBundle(QUERY))
    assert names(events) == PAIR * 2
    assert [event.nodes for event in events[1::2]] == [[], []]


def test_a_transform_that_fails_or_returns_nothing_is_reported(tiny_reranker):
    for transform, error in ((fail, ZeroDivisionError), (lambda query: None, InputError)):
        adapter = ICRRerank(tiny_reranker, query_transform=transform)
        with recorded_events() as events, pytest.raises(error):
            adapter.postprocess_nodes(make_nodes(), query_str=QUERY)
        assert names(events) == PAIR


# --- spans ---------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("adapter", [ICRRerank, RankGPTRerank])
def test_one_span_a_call(tiny_reranker, call, adapter):
    with recorded_spans() as spans:
        call(adapter(reranker=tiny_reranker), make_nodes(), QueryBundle(QUERY))
    (own,) = spans.ours()
    assert spans.ends == {own: "exit"}


@BOTH
def test_a_failure_closes_the_span(tiny_reranker, call, monkeypatch):
    monkeypatch.setattr(tiny_reranker, "_score", fail)
    with recorded_spans() as spans, pytest.raises(ZeroDivisionError):
        call(ICRRerank(tiny_reranker), make_nodes(), QueryBundle(QUERY))
    (own,) = spans.ours()
    assert spans.ends == {own: "drop"}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_span_is_inside_the_query_engines(tiny_reranker, asynchronous):
    index = VectorStoreIndex(
        [node.node for node in make_nodes()], embed_model=MockEmbedding(embed_dim=3)
    )
    engine = index.as_query_engine(
        llm=MockLLM(), similarity_top_k=4, node_postprocessors=[ICRRerank(tiny_reranker)]
    )
    with recorded_spans() as spans, recorded_events() as events:
        if asynchronous:
            asyncio.run(engine.aquery(QUERY))
        else:
            engine.query(QUERY)
    (own,) = spans.ours()
    # LlamaIndex's old versions re-rank synchronously in their asynchronous engines.
    outer = "RetrieverQueryEngine._aquery" if asynchronous else "RetrieverQueryEngine._query"
    assert outer in spans.line(own)
    assert [event.span_id for event in events] == [own, own]
    assert spans.ends[own] == "exit"


# --- asynchronous callers ------------------------------------------------------------------------


def test_the_loop_turns_while_the_engine_works(tiny_reranker, monkeypatch):
    """The engine waits for the loop: were it run on the loop, neither would get on."""
    turned = threading.Event()
    score = tiny_reranker._score

    def wait_and_score(*arguments):
        assert turned.wait(30), "the event loop was blocked"
        return score(*arguments)

    monkeypatch.setattr(tiny_reranker, "_score", wait_and_score)

    async def main():
        call = asyncio.ensure_future(
            ICRRerank(tiny_reranker).apostprocess_nodes(make_nodes(), query_str=QUERY)
        )
        await asyncio.sleep(0)
        turned.set()
        return await call

    assert len(asyncio.run(main())) == 4


def test_many_calls_have_one_worker(tiny_reranker, monkeypatch):
    workers = set()
    score = tiny_reranker._score

    def note_and_score(*arguments):
        workers.add(threading.get_ident())
        return score(*arguments)

    monkeypatch.setattr(tiny_reranker, "_score", note_and_score)
    # Copies share the worker, as they share the engine.
    adapters = [ICRRerank(tiny_reranker, top_n=n).model_copy(deep=True) for n in range(1, 5)]

    async def main():
        calls = [
            adapters[i % 4].apostprocess_nodes(make_nodes(), query_str=QUERY) for i in range(24)
        ]
        return await asyncio.gather(*calls)

    found = asyncio.run(main())
    assert [len(nodes) for nodes in found] == [1, 2, 3, 4] * 6
    assert len(workers) == 1
    assert threading.get_ident() not in workers


def test_cancelled_calls_close_their_traces_and_leave_the_engine_sane(tiny_reranker, monkeypatch):
    adapter = ICRRerank(tiny_reranker)
    expected = results(adapter.postprocess_nodes(make_nodes(), query_str=QUERY))
    started, release = threading.Event(), threading.Event()
    ran = []
    score = tiny_reranker._score

    def wait_and_score(*arguments):
        ran.append(arguments)
        started.set()
        assert release.wait(30)
        return score(*arguments)

    monkeypatch.setattr(tiny_reranker, "_score", wait_and_score)

    async def main():
        calls = [
            asyncio.ensure_future(adapter.apostprocess_nodes(make_nodes(), query_str=QUERY))
            for _ in range(8)
        ]
        while not started.is_set():
            await asyncio.sleep(0.001)
        # The first is running, the others wait.
        for call in calls[::2]:
            call.cancel()
        await asyncio.sleep(0)
        release.set()
        return await asyncio.gather(*calls, return_exceptions=True)

    with recorded_spans() as spans, recorded_events() as events:
        outcomes = asyncio.run(main())
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[::2])
    assert [results(outcome) for outcome in outcomes[1::2]] == [expected] * 4
    assert sorted(names(events)) == sorted(PAIR * 8)
    assert sorted(spans.ends.values()) == ["drop"] * 4 + ["exit"] * 4
    # Cancelled while they waited: their work was never begun.
    assert len(ran) == 5
    assert results(adapter.postprocess_nodes(make_nodes(), query_str=QUERY)) == expected


def test_two_queries_are_refused(tiny_reranker):
    with pytest.raises(InputError, match="exclude each other"):
        asyncio.run(ICRRerank(tiny_reranker).apostprocess_nodes([], QueryBundle("a"), "b"))
