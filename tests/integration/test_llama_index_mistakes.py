"""LlamaIndex: wrong queries and nodes are found before any event is sent, and named."""

from __future__ import annotations

import asyncio

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index_parts import PAIR, QUERY, make_nodes, names, recorded_events, snapshot

from icr_rag.errors import InputError
from icr_rag.integrations.llama_index import ICREncode, ICRRerank


def call_sync(adapter, nodes, bundle):
    return adapter.postprocess_nodes(nodes, bundle)


def call_async(adapter, nodes, bundle):
    return asyncio.run(adapter.apostprocess_nodes(nodes, bundle))


BOTH = pytest.mark.parametrize("call", [call_sync, call_async])

BUNDLES = {
    "none": (None, "called without a query; pass query_bundle= or query_str="),
    "of none": (QueryBundle(None), "the query is a NoneType; it must be a str"),
    "of a list": (QueryBundle([QUERY]), "the query is a list; it must be a str"),
    "of a number": (QueryBundle(7), "the query is a int; it must be a str"),
    "blank": (QueryBundle(" \n"), "called without a query: it is blank"),
    "a str": (QUERY, "query_bundle is a str; give QueryBundle"),
    "a list": ([QUERY], "query_bundle is a list; give QueryBundle"),
}


def spoilt(**changes):
    """A scored node as some reader might make it, past the validation."""
    node = make_nodes()[0]
    for name, value in changes.items():
        node.__dict__[name] = value
    return node


def bytes_inside():
    node = make_nodes()[0]
    node.node.__dict__["text"] = b"bytes"
    return node


NODES = {
    "none": (lambda: None, "nodes is a NoneType; give a list of NodeWithScore"),
    "a node alone": (lambda: make_nodes()[0], "nodes is a NodeWithScore; give a list"),
    "a generator": (lambda: iter(make_nodes()), "give a list of NodeWithScore"),
    "bare": (lambda: [TextNode(text="a")], "node 0 is a bare TextNode; give NodeWithScore"),
    "one is none": (lambda: [*make_nodes(), None], "node 4 is a NoneType; allowed are NodeWith"),
    "one is a str": (lambda: [*make_nodes(), "text"], "node 4 is a str; allowed are NodeWith"),
    "around nothing": (lambda: [spoilt(node=None)], "node 0 is a NoneType; allowed are Llama"),
    "around a str": (lambda: [spoilt(node="text")], "node 0 is a str; allowed are LlamaIndex's"),
    "of bytes": (lambda: [bytes_inside()], r"node 0 \('n0'\) has a text of type bytes"),
}


def make(reranker):
    debug = LlamaDebugHandler(print_trace_on_end=False)
    return ICRRerank(reranker, callback_manager=CallbackManager([debug]), top_n=2), debug


@BOTH
@pytest.mark.parametrize("name", BUNDLES)
def test_a_wrong_query_raises_before_any_event(tiny_reranker, call, name):
    bundle, message = BUNDLES[name]
    adapter, debug = make(tiny_reranker)
    with recorded_events() as events, pytest.raises(InputError, match=f"^ICRRerank: {message}"):
        call(adapter, make_nodes(), bundle)
    assert events == []
    assert debug.get_event_pairs(CBEventType.RERANKING) == []


@BOTH
@pytest.mark.parametrize("name", BUNDLES)
def test_a_wrong_query_that_is_let_through_leaves_the_nodes_in_order(
    tiny_reranker, call, name, own_records
):
    bundle, message = BUNDLES[name]
    adapter, debug = make(tiny_reranker.with_config(on_error="passthrough"))
    nodes = make_nodes()
    before = snapshot(nodes)
    with recorded_events() as events:
        found = call(adapter, nodes, bundle)
    assert [(n.node.node_id, n.score) for n in found] == [("n0", 1.0), ("n1", 0.9)]
    for node in found:
        assert node.node.metadata["rerank_error"].startswith(f"InputError: {message}")
        assert "rerank_error" in node.node.excluded_llm_metadata_keys
        assert "rerank_error" in node.node.excluded_embed_metadata_keys
    assert snapshot(nodes) == before
    assert names(events) == PAIR
    assert len(debug.get_event_pairs(CBEventType.RERANKING)) == 1
    assert [record.levelname for record in own_records()] == ["WARNING"]


@BOTH
@pytest.mark.parametrize("name", NODES)
@pytest.mark.parametrize("on_error", ["raise", "passthrough"])
@pytest.mark.parametrize("bundle", [QueryBundle(QUERY), None], ids=["query", "no query"])
def test_wrong_nodes_raise_always(tiny_reranker, call, name, on_error, bundle):
    nodes, message = NODES[name]
    adapter, debug = make(tiny_reranker.with_config(on_error=on_error))
    with recorded_events() as events, pytest.raises(InputError, match=message):
        call(adapter, nodes(), bundle)
    assert events == []
    assert debug.get_event_pairs(CBEventType.RERANKING) == []


def test_a_tuple_of_nodes_is_a_list(tiny_reranker):
    adapter, _ = make(tiny_reranker)
    found = adapter.postprocess_nodes(tuple(make_nodes()), QueryBundle(QUERY))
    assert snapshot(found) == snapshot(adapter.postprocess_nodes(make_nodes(), QueryBundle(QUERY)))


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (None, "nodes is a NoneType"),
        ("text", "nodes is a str"),
        ([TextNode(text="a"), None], "node 1 is a NoneType"),
        ([NodeWithScore(node=TextNode(text="a"))], "node 0 is a NodeWithScore; allowed are Llama"),
    ],
)
def test_encoding_names_what_is_no_node(nodes, message):
    with pytest.raises(InputError, match=message):
        ICREncode(model="no/such-model")(nodes)
