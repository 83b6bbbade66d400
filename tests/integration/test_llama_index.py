"""The LlamaIndex adapter: alone, and in a real query engine."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core import VectorStoreIndex
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import MockLLM
from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore, QueryBundle, TextNode
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker, RerankerConfig
from icr_rag.errors import ConfigError, InputError
from icr_rag.integrations.llama_index import ICRRerank

TEXTS = ["Tin melts at 232 degrees.", "Lead is soft.", "Copper conducts heat well.", "Zinc."]
QUERY = "Which metal melts first?"


@pytest.fixture(scope="module")
def reranker():
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), layers=(1, 2))


def make_nodes(texts=TEXTS):
    return [
        NodeWithScore(node=TextNode(text=text, id_=f"n{i}", metadata={"i": i}), score=1.0 - i / 10)
        for i, text in enumerate(texts)
    ]


def snapshot(nodes):
    return [(node.score, node.node.to_dict()) for node in nodes]


def test_order_and_scores_are_the_rerankers(reranker):
    nodes = make_nodes()
    result = ICRRerank(reranker).postprocess_nodes(nodes, query_str=QUERY)
    # What the model reads includes metadata, as it is embedded.
    texts = [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
    expected = reranker.rank(QUERY, texts)
    assert [node.node.node_id for node in result] == [f"n{hit.index}" for hit in expected]
    assert [node.score for node in result] == [hit.score for hit in expected]
    assert all(type(node.score) is float for node in result)


def test_metadata_mode_decides_what_is_read(reranker):
    adapter = ICRRerank(reranker, metadata_mode=MetadataMode.NONE)
    result = adapter.postprocess_nodes(make_nodes(), query_str=QUERY)
    assert [node.score for node in result] == [hit.score for hit in reranker.rank(QUERY, TEXTS)]


@settings(max_examples=25, deadline=None)
@given(texts=st.lists(st.text(max_size=20), max_size=6), top_n=st.none() | st.integers(0, 8))
def test_result_is_a_sub_permutation_and_nothing_is_changed(texts, top_n):
    reranker = Reranker.from_model(tiny_model("llama"), byte_tokenizer(), layers=(1, 1))
    nodes = make_nodes(texts)
    before = snapshot(nodes)
    adapter = ICRRerank(reranker, top_n=top_n, keep_retrieval_score=True)
    result = adapter.postprocess_nodes(nodes, query_str=QUERY)
    assert snapshot(nodes) == before
    assert len(result) == (len(nodes) if top_n is None else min(top_n, len(nodes)))
    ids = [node.node.node_id for node in result]
    assert len(set(ids)) == len(ids)
    assert set(ids) <= {node.node.node_id for node in nodes}
    for node in result:
        json.dumps(node.node.metadata)
        assert node.node.metadata["i"] == int(node.node.node_id[1:])


def test_retrieval_score_is_kept_out_of_sight(reranker):
    nodes = make_nodes()
    result = ICRRerank(reranker, keep_retrieval_score=True).postprocess_nodes(
        nodes, query_str=QUERY
    )
    scores = {node.node.node_id: node.score for node in nodes}
    for node in result:
        assert node.node.metadata["retrieval_score"] == scores[node.node.node_id]
        for mode in (MetadataMode.EMBED, MetadataMode.LLM):
            assert "retrieval_score" not in node.node.get_content(metadata_mode=mode)
    assert all("retrieval_score" not in node.node.metadata for node in nodes)


def test_async_equals_sync_and_leaves_the_loop_free(reranker):
    adapter = ICRRerank(reranker)
    expected = adapter.postprocess_nodes(make_nodes(), query_str=QUERY)

    async def both():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        ticker = asyncio.create_task(tick())
        result = await adapter.apostprocess_nodes(make_nodes(), query_str=QUERY)
        ticker.cancel()
        return result, ticks

    result, ticks = asyncio.run(both())
    assert snapshot(result) == snapshot(expected)
    assert ticks > 1


def test_threads_share_one_adapter(reranker):
    adapter = ICRRerank(reranker)
    expected = snapshot(adapter.postprocess_nodes(make_nodes(), query_str=QUERY))
    with ThreadPoolExecutor(32) as pool:
        calls = [
            pool.submit(adapter.postprocess_nodes, make_nodes(), None, QUERY) for _ in range(32)
        ]
    assert all(snapshot(call.result()) == expected for call in calls)


class Recorder(BaseEventHandler):
    """Remembers the names of the events it sees."""

    seen: list[str] = []

    def handle(self, event, **kwargs):
        if "ReRank" in event.class_name():
            self.seen.append(event.class_name())


@pytest.fixture
def events():
    recorder = Recorder()
    dispatcher = get_dispatcher()
    dispatcher.add_event_handler(recorder)
    yield recorder.seen
    dispatcher.event_handlers.remove(recorder)


PAIR = ["ReRankStartEvent", "ReRankEndEvent"]


def test_events_are_paired(reranker, events):
    debug = LlamaDebugHandler(print_trace_on_end=False)
    adapter = ICRRerank(reranker, callback_manager=CallbackManager([debug]))
    adapter.postprocess_nodes(make_nodes(), query_str=QUERY)
    assert events == PAIR
    assert len(debug.get_event_pairs(CBEventType.RERANKING)) == 1


def test_events_are_paired_for_no_nodes_and_on_failure(reranker, events, monkeypatch):
    assert ICRRerank(reranker).postprocess_nodes([], query_str=QUERY) == []
    assert events == PAIR
    monkeypatch.setattr(reranker, "rank", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ICRRerank(reranker).postprocess_nodes(make_nodes(), query_str=QUERY)
    assert events == PAIR * 2


@pytest.mark.parametrize("query", [None, "  "])
def test_without_a_query_it_says_so(reranker, query):
    bundle = None if query is None else QueryBundle(query)
    with pytest.raises(InputError, match="without a query"):
        ICRRerank(reranker).postprocess_nodes(make_nodes(), bundle)


def test_nodes_without_text_come_last(reranker):
    image = NodeWithScore(node=ImageNode(image="aGk=", id_="image"), score=9.0)
    result = ICRRerank(reranker).postprocess_nodes([image, *make_nodes()], query_str=QUERY)
    assert len(result) == 5
    assert result[-1].node.node_id == "image"


def test_making_one_is_cheap_and_checked():
    adapter = ICRRerank(model="no/such-model", layers=(3, 5), top_n=2)
    assert adapter.config == RerankerConfig(model="no/such-model", layers=(3, 5))
    assert adapter.top_n == 2
    with pytest.raises(ConfigError, match="did you mean 'layers'"):
        ICRRerank(layer=3)
    with pytest.raises(ConfigError, match="device"):
        ICRRerank(adapter.reranker, device="cpu")


def test_serialises_and_copies():
    adapter = ICRRerank(model="no/such-model", layers=(3, 5), top_n=2, keep_retrieval_score=True)
    for twin in (
        ICRRerank.from_dict(adapter.to_dict()),
        ICRRerank.from_json(adapter.to_json()),
        pickle.loads(pickle.dumps(adapter)),
        copy.deepcopy(adapter),
    ):
        assert (twin.config, twin.top_n) == (adapter.config, 2)
        assert twin.keep_retrieval_score
        assert twin.reranker.config == adapter.config
    assert adapter.class_name() == "ICRRerank"


def test_a_copy_shares_the_weights(reranker):
    assert copy.deepcopy(ICRRerank(reranker)).reranker is reranker


def test_in_a_query_engine(reranker):
    index = VectorStoreIndex(
        [node.node for node in make_nodes()], embed_model=MockEmbedding(embed_dim=8)
    )
    engine = index.as_query_engine(
        llm=MockLLM(), similarity_top_k=4, node_postprocessors=[ICRRerank(reranker, top_n=2)]
    )
    sources = engine.query(QUERY).source_nodes
    assert len(sources) == 2
    assert sources[0].score >= sources[1].score


@pytest.mark.real_weights
def test_real_weights_put_the_answer_first():
    texts = [
        "The museum opens at nine and closes at five.",
        "Paris is the capital of France and lies on the Seine.",
        "Bread dough rises because yeast makes carbon dioxide.",
    ]
    adapter = ICRRerank(model="smollm2-135m", dtype="float32", top_n=1)
    result = adapter.postprocess_nodes(make_nodes(texts), query_str="What is France's capital?")
    assert [node.node.node_id for node in result] == ["n1"]
