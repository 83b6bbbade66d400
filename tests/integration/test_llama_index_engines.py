"""The LlamaIndex adapter: agents, images, failures, fusion, and inside LlamaIndex's engines."""

from __future__ import annotations

import asyncio

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.evaluation import RetrieverEvaluator
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.llms import MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.objects import ObjectIndex
from llama_index.core.query_engine import CitationQueryEngine
from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore, TextNode
from llama_index.core.tools import FunctionTool, RetrieverTool
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker
from icr_rag.errors import InputError
from icr_rag.integrations.llama_index import ICRRerank, clean_tool_query

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


# --- agents, images, failures, fusion ------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "read"),
    [
        ("\ninput is Which metal melts first?\n", "Which metal melts first?"),
        ("\ninput is a\nb\n", "a\nb"),
        ("input is Which metal?", "input is Which metal?"),
        ("What is an input?\n", "What is an input?\n"),
        ("\ninput is  \n", "\ninput is  \n"),
    ],
)
def test_the_question_is_taken_out_of_an_agents_request(request_, read):
    assert clean_tool_query(request_) == read


def test_an_agents_tool_ranks_as_the_question_alone(reranker):
    nodes = make_nodes()

    class Fixed(BaseRetriever):
        def _retrieve(self, query_bundle):
            return nodes

    def through_tool(**fields):
        tool = RetrieverTool.from_defaults(
            Fixed(), node_postprocessors=[ICRRerank(reranker, **fields)], description="d"
        )
        return [node.score for node in tool.call(input=QUERY).raw_output]

    alone = ICRRerank(reranker).postprocess_nodes(nodes, query_str=QUERY)
    assert through_tool() == [node.score for node in alone]
    assert through_tool(query_transform=None) != [node.score for node in alone]
    assert through_tool(query_transform=lambda query: QUERY) == [node.score for node in alone]


def test_images_stand_behind_the_text_whatever_the_threshold(reranker):
    nodes = make_nodes()
    image = NodeWithScore(node=ImageNode(image_url="http://x/y.png", metadata={"a": "b"}), score=9)
    nodes.insert(1, image)
    texts = ICRRerank(reranker.with_config(score_mode="rank", score_threshold=0.4))
    result = texts.postprocess_nodes(nodes, query_str=QUERY)
    assert [type(node.node) for node in result] == [TextNode, TextNode, ImageNode]
    assert result[-1].node is image.node
    texts.top_n = 2
    assert len(texts.postprocess_nodes(nodes, query_str=QUERY)) == 2


def test_passthrough_keeps_order_and_scores_and_says_why(reranker, monkeypatch, caplog):
    engine = reranker.with_config(on_error="passthrough")

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


def test_weighted_fusion_reads_the_nodes_scores(reranker):
    first_stage = ICRRerank(reranker.with_config(fusion="weighted", fusion_weight=0.0))
    nodes = make_nodes()[::-1]
    result = first_stage.postprocess_nodes(nodes, query_str=QUERY)
    assert [node.node.node_id for node in result] == ["n0", "n1", "n2", "n3"]
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


def sources(response):
    return [(node.node.node_id, node.score) for node in response.source_nodes]


def test_citation_and_chat_engines(reranker, index):
    """Their passages are those of the plain query engine."""
    rerank = [ICRRerank(reranker, top_n=2, metadata_mode=MetadataMode.NONE)]
    plain = index.as_query_engine(llm=MockLLM(), similarity_top_k=4, node_postprocessors=rerank)
    wanted = [name for name, _ in sources(plain.query(QUERY))]
    citation = CitationQueryEngine.from_args(
        index, llm=MockLLM(), similarity_top_k=4, node_postprocessors=rerank
    )
    assert len(sources(citation.query(QUERY))) == 2
    for mode in ("context", "condense_plus_context"):
        chat = index.as_chat_engine(
            chat_mode=mode,
            llm=MockLLM(),
            # Not the default memory, which leaves a database connection open.
            memory=ChatMemoryBuffer.from_defaults(token_limit=1000),
            similarity_top_k=4,
            node_postprocessors=rerank,
        )
        assert [name for name, _ in sources(chat.chat(QUERY))] == wanted


def test_retriever_evaluator(reranker, index):
    evaluator = RetrieverEvaluator.from_metric_names(
        ["hit_rate", "mrr"],
        retriever=index.as_retriever(similarity_top_k=4),
        node_postprocessors=[ICRRerank(reranker)],
    )
    result = evaluator.evaluate(QUERY, expected_ids=["n0"])
    assert result.metric_vals_dict["hit_rate"] == 1.0
    assert sorted(result.retrieved_ids) == ["n0", "n1", "n2", "n3"]


def test_tools_are_ranked_like_nodes(reranker):
    tools = [
        FunctionTool.from_defaults(lambda: "", name=f"t{i}", description=text)
        for i, text in enumerate(TEXTS)
    ]
    objects = ObjectIndex.from_objects(
        tools, index_cls=VectorStoreIndex, embed_model=MockEmbedding(embed_dim=3)
    )
    retriever = objects.as_retriever(
        similarity_top_k=4, node_postprocessors=[ICRRerank(reranker, top_n=2)]
    )
    assert len(retriever.retrieve(QUERY)) == 2


def test_spans_on_both_paths(reranker):
    opened, closed = [], []

    class Spans(SimpleSpanHandler):
        def new_span(self, id_, *args, **kwargs):
            opened.append(id_)
            return super().new_span(id_, *args, **kwargs)

        def prepare_to_exit_span(self, id_, *args, **kwargs):
            closed.append(id_)
            return super().prepare_to_exit_span(id_, *args, **kwargs)

    root = get_dispatcher()
    handler = Spans()
    root.add_span_handler(handler)
    try:
        adapter = ICRRerank(reranker)
        adapter.postprocess_nodes(make_nodes(), query_str=QUERY)
        asyncio.run(adapter.apostprocess_nodes(make_nodes(), query_str=QUERY))
    finally:
        root.span_handlers.remove(handler)
    names = {id_.split("-")[0] for id_ in opened}
    assert {"ICRRerank._postprocess_nodes", "ICRRerank._apostprocess_nodes"} <= names
    assert sorted(opened) == sorted(closed)


def test_cancelled_calls_leave_the_engine_sane(reranker):
    adapter = ICRRerank(reranker)
    expected = [n.score for n in adapter.postprocess_nodes(make_nodes(), query_str=QUERY)]

    async def run():
        calls = [
            asyncio.ensure_future(adapter.apostprocess_nodes(make_nodes(), query_str=QUERY))
            for _ in range(8)
        ]
        await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        return await asyncio.gather(*calls, return_exceptions=True)

    outcomes = asyncio.run(run())
    for place, outcome in enumerate(outcomes):
        if place % 2:
            assert [node.score for node in outcome] == expected
        else:
            assert isinstance(outcome, asyncio.CancelledError)
