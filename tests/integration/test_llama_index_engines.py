"""The LlamaIndex adapter: images, failures, fusion, and inside LlamaIndex's engines."""

from __future__ import annotations

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.evaluation import RetrieverEvaluator
from llama_index.core.llms import MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.query_engine import CitationQueryEngine
from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore, TextNode
from llama_index_parts import QUERY, make_nodes, results, snapshot

from icr_rag.errors import InputError
from icr_rag.integrations.llama_index import ICRRerank

# --- images, failures, fusion --------------------------------------------------------------------


def test_images_stand_behind_the_text_whatever_the_threshold(tiny_reranker):
    nodes = make_nodes()
    image = NodeWithScore(node=ImageNode(image_url="http://x/y.png", metadata={"a": "b"}), score=9)
    nodes.insert(1, image)
    texts = ICRRerank(tiny_reranker.with_config(score_mode="rank", score_threshold=0.4))
    result = texts.postprocess_nodes(nodes, query_str=QUERY)
    assert [type(node.node) for node in result] == [TextNode, TextNode, ImageNode]
    assert result[-1].node is image.node
    texts.top_n = 2
    assert len(texts.postprocess_nodes(nodes, query_str=QUERY)) == 2


def test_passthrough_keeps_order_and_scores_and_says_why(tiny_reranker, monkeypatch, caplog):
    engine = tiny_reranker.with_config(on_error="passthrough")

    def fail(*arguments):
        raise RuntimeError("no memory")

    monkeypatch.setattr(engine, "_score", fail)
    nodes = make_nodes()
    nodes[1] = NodeWithScore(node=nodes[1].node)
    before = snapshot(nodes)
    result = ICRRerank(engine, top_n=3).postprocess_nodes(nodes, query_str=QUERY)
    assert [node.node.node_id for node in result] == ["n0", "n1", "n2"]
    assert [node.score for node in result] == [1.0, 0.0, 0.8]
    for node in result:
        assert node.metadata["rerank_error"] == "RuntimeError: no memory"
        assert "no memory" not in node.get_content(MetadataMode.LLM)
        assert "no memory" not in node.get_content(MetadataMode.EMBED)
    assert snapshot(nodes) == before
    assert "no memory" in caplog.text
    # An agent that asks nothing gets what was retrieved, too.
    assert len(ICRRerank(engine).postprocess_nodes(nodes)) == 4


def test_weighted_fusion_reads_the_nodes_scores(tiny_reranker):
    first_stage = ICRRerank(tiny_reranker.with_config(fusion="weighted", fusion_weight=0.0))
    nodes = make_nodes()[::-1]
    result = first_stage.postprocess_nodes(nodes, query_str=QUERY)
    assert [node.node.node_id for node in result] == ["n0", "n1", "n2", "n3"]
    image = NodeWithScore(node=ImageNode(image_url="http://x/y.png", id_="image"))
    result = first_stage.postprocess_nodes([image, *nodes], query_str=QUERY)
    assert [node.node.node_id for node in result] == ["n0", "n1", "n2", "n3", "image"]
    nodes[2] = NodeWithScore(node=nodes[2].node)
    with pytest.raises(InputError, match=r"retrieval_scores\[2\] is None"):
        first_stage.postprocess_nodes(nodes, query_str=QUERY)


def test_settings_from_a_file_and_the_environment(tmp_path, monkeypatch):
    (tmp_path / "r.yaml").write_text("model: org/name\nlayers: 10-13\ntop_n: 7\n")
    made = ICRRerank.from_config(tmp_path / "r.yaml", metadata_mode=MetadataMode.NONE)
    assert (made.config.layers, made.top_n, made.metadata_mode) == ((10, 13), 7, MetadataMode.NONE)
    assert ICRRerank.from_config(tmp_path / "r.yaml", layers="all").config.layers == "all"
    monkeypatch.setenv("ICR_RAG_MODEL", "org/other")
    assert ICRRerank.from_env(top_n=2).config.model == "org/other"


# --- what LlamaIndex builds around postprocessors ------------------------------------------------


@pytest.fixture
def index():
    nodes = [node.node for node in make_nodes()]
    return VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=3))


def test_citation_and_chat_engines(tiny_reranker, index):
    """Their passages are those of the plain query engine."""
    rerank = [ICRRerank(tiny_reranker, top_n=2, metadata_mode=MetadataMode.NONE)]
    plain = index.as_query_engine(llm=MockLLM(), similarity_top_k=4, node_postprocessors=rerank)
    wanted = [name for name, _ in results(plain.query(QUERY).source_nodes)]
    citation = CitationQueryEngine.from_args(
        index, llm=MockLLM(), similarity_top_k=4, node_postprocessors=rerank
    )
    assert len(results(citation.query(QUERY).source_nodes)) == 2
    for mode in ("context", "condense_plus_context"):
        chat = index.as_chat_engine(
            chat_mode=mode,
            llm=MockLLM(),
            # Not the default memory, which leaves a database connection open.
            memory=ChatMemoryBuffer.from_defaults(token_limit=1000),
            similarity_top_k=4,
            node_postprocessors=rerank,
        )
        assert [name for name, _ in results(chat.chat(QUERY).source_nodes)] == wanted


def test_retriever_evaluator(tiny_reranker, index):
    evaluator = RetrieverEvaluator.from_metric_names(
        ["hit_rate", "mrr"],
        retriever=index.as_retriever(similarity_top_k=4),
        node_postprocessors=[ICRRerank(tiny_reranker)],
    )
    result = evaluator.evaluate(QUERY, expected_ids=["n0"])
    assert result.metric_vals_dict["hit_rate"] == 1.0
    assert sorted(result.retrieved_ids) == ["n0", "n1", "n2", "n3"]
