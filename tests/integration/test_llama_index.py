"""The LlamaIndex adapter: alone, and in a real query engine."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core import VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.llms import MockLLM
from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore
from llama_index_parts import QUERY, TEXTS, make_nodes, snapshot

from icr_rag import RerankerConfig
from icr_rag.errors import ConfigError
from icr_rag.integrations.llama_index import ICRRerank


def test_order_and_scores_are_the_rerankers(tiny_reranker):
    nodes = make_nodes()
    result = ICRRerank(tiny_reranker).postprocess_nodes(nodes, query_str=QUERY)
    # What the model reads includes metadata, as it is embedded.
    texts = [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
    scores = [node.score for node in nodes]
    expected = tiny_reranker.rank(QUERY, texts, retrieval_scores=scores)
    assert [node.node.node_id for node in result] == [f"n{hit.index}" for hit in expected]
    assert [node.score for node in result] == [hit.score for hit in expected]
    assert all(type(node.score) is float for node in result)


def test_metadata_mode_decides_what_is_read(tiny_reranker):
    adapter = ICRRerank(tiny_reranker, metadata_mode=MetadataMode.NONE)
    nodes = make_nodes()
    result = adapter.postprocess_nodes(nodes, query_str=QUERY)
    scores = [node.score for node in nodes]
    assert [node.score for node in result] == [
        hit.score for hit in tiny_reranker.rank(QUERY, TEXTS, retrieval_scores=scores)
    ]


def test_nodes_scores_count_by_default_and_one_that_lacks_favours_nobody(tiny_reranker):
    told = []
    nodes = [*make_nodes(), NodeWithScore(node=ImageNode(image_url="http://x/y.png"))]
    nodes[1] = NodeWithScore(node=nodes[1].node)
    adapter = ICRRerank(tiny_reranker, metadata_mode=MetadataMode.NONE, on_ranking=told.append)
    result = adapter.postprocess_nodes(nodes, query_str=QUERY)
    scores = [node.score for node in nodes[:4]]
    wanted = tiny_reranker.rank(QUERY, TEXTS, retrieval_scores=scores)
    assert [node.score for node in result[:4]] == [hit.score for hit in wanted]
    assert told[0].usage.fused == {"model": 1.0, "scores": 1.0}
    plain = ICRRerank(tiny_reranker.with_config(fusion="none"), on_ranking=told.append)
    plain.postprocess_nodes(nodes, query_str=QUERY)
    assert told[1].usage.fused == {}


def test_an_embedding_model_scores_nodes_without_scores(tiny_reranker):
    told = []
    nodes = [NodeWithScore(node=scored.node) for scored in make_nodes()]

    class Lengths(MockEmbedding):
        def _get_text_embedding(self, text):
            return [float(len(text)), 50.0]

        _get_query_embedding = _get_text_embedding

    engine = tiny_reranker.with_config(embedder=Lengths(embed_dim=2))
    adapter = ICRRerank(engine, on_ranking=told.append)
    adapter.postprocess_nodes(nodes, query_str=QUERY)
    assert told[0].usage.fused == {"model": 1.0, "embedder": 1.0}
    made = ICRRerank(embedder=MockEmbedding(embed_dim=2), layers=(1, 2))
    again = pickle.loads(pickle.dumps(made))
    assert isinstance(again.reranker._embedder.given, MockEmbedding)
    assert made.to_dict()["config"]["embedder"] is None


@settings(max_examples=25)
@given(texts=st.lists(st.text(max_size=20), max_size=6), top_n=st.none() | st.integers(0, 8))
def test_result_is_a_sub_permutation_and_nothing_is_changed(tiny_reranker, texts, top_n):
    nodes = make_nodes(texts)
    before = snapshot(nodes)
    adapter = ICRRerank(tiny_reranker, top_n=top_n, keep_retrieval_score=True)
    result = adapter.postprocess_nodes(nodes, query_str=QUERY)
    assert snapshot(nodes) == before
    assert len(result) == (len(nodes) if top_n is None else min(top_n, len(nodes)))
    ids = [node.node.node_id for node in result]
    assert len(set(ids)) == len(ids)
    assert set(ids) <= {node.node.node_id for node in nodes}
    for node in result:
        json.dumps(node.node.metadata)
        assert node.node.metadata["i"] == int(node.node.node_id[1:])


def test_retrieval_score_is_kept_out_of_sight(tiny_reranker):
    nodes = make_nodes()
    result = ICRRerank(tiny_reranker, keep_retrieval_score=True).postprocess_nodes(
        nodes, query_str=QUERY
    )
    scores = {node.node.node_id: node.score for node in nodes}
    for node in result:
        assert node.node.metadata["retrieval_score"] == scores[node.node.node_id]
        for mode in (MetadataMode.EMBED, MetadataMode.LLM):
            assert "retrieval_score" not in node.node.get_content(metadata_mode=mode)
    assert all("retrieval_score" not in node.node.metadata for node in nodes)


def test_nodes_without_text_come_last(tiny_reranker):
    image = NodeWithScore(node=ImageNode(image="aGk=", id_="image"), score=9.0)
    result = ICRRerank(tiny_reranker).postprocess_nodes([image, *make_nodes()], query_str=QUERY)
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


def test_a_copy_shares_the_weights(tiny_reranker):
    assert copy.deepcopy(ICRRerank(tiny_reranker)).reranker is tiny_reranker


def test_in_a_query_engine(tiny_reranker):
    index = VectorStoreIndex(
        [node.node for node in make_nodes()], embed_model=MockEmbedding(embed_dim=8)
    )
    engine = index.as_query_engine(
        llm=MockLLM(), similarity_top_k=4, node_postprocessors=[ICRRerank(tiny_reranker, top_n=2)]
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
    # The scores of these nodes say nothing.
    adapter = ICRRerank(model="smollm2-135m", dtype="float32", top_n=1, fusion="none")
    result = adapter.postprocess_nodes(make_nodes(texts), query_str="What is France's capital?")
    assert [node.node.node_id for node in result] == ["n1"]
