"""The LlamaIndex adapter behind agents: their tools, their requests, workflows and memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core import VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata, MockLLM
from llama_index.core.objects import ObjectIndex
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.tools import FunctionTool, QueryEngineTool, RetrieverTool, ToolMetadata
from llama_index.core.tools.calling import acall_tool, call_tool
from llama_index.core.workflow import StartEvent, StopEvent, Workflow, step
from llama_index_parts import QUERY, TEXTS, FixedRetriever, make_nodes, results

from icr_rag.integrations.llama_index import ICRRerank, clean_tool_query

# --- the wording of requests ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "read"),
    [
        ("\ninput is Which metal melts first?\n", "Which metal melts first?"),
        ("\nquery is Which metal?\n", "Which metal?"),
        ("\ninput is a\nb\n", "a\nb"),
        ("Which metal?\n\n", "Which metal?"),
        ("{'question': 'Which metal?'}", "Which metal?"),
        ("""{'q': "What is tin's \\\\ use?"}""", "What is tin's \\ use?"),
        # Nobody's tool wrote these.
        ("input is Which metal?", "input is Which metal?"),
        ("What is an input?\n", "What is an input?\n"),
        ("\nwhat is an input?\n", "\nwhat is an input?\n"),
        ("\ninput is  \n", "\ninput is  \n"),
        ("{'a': 'b', 'c': 'd'}", "{'a': 'b', 'c': 'd'}"),
        ("{'a': 1}", "{'a': 1}"),
        ("{'a': ''}", "{'a': ''}"),
        ("{'a': '\\d'}", "{'a': '\\d'}"),
        ("{'a': '\\x'}", "{'a': '\\x'}"),
        ("{", "{"),
        ("\n\n", "\n\n"),
        ("", ""),
    ],
)
def test_the_question_is_taken_out_of_an_agents_request(request_, read):
    assert clean_tool_query(request_) == read


@given(st.text(alphabet=st.characters(exclude_characters="\n"), min_size=1))
def test_a_line_that_a_user_typed_is_left_alone(line):
    if not line.startswith("{'"):
        assert clean_tool_query(line) == line


QUESTIONS = st.text().filter(lambda text: text.strip() and not text.endswith("\n"))


@given(QUESTIONS)
def test_whatever_the_agent_asks_comes_out_of_llama_indexs_wording(question):
    """The wording is that of the installed LlamaIndex."""
    retriever = FixedRetriever([])
    tool = RetrieverTool.from_defaults(retriever)
    tool.call(input=question)
    assert [clean_tool_query(asked) for asked in retriever.asked] == [question]
    assert clean_tool_query(str({"question": question})) == question


def retriever_tool(nodes, rerank):
    return RetrieverTool.from_defaults(
        FixedRetriever(nodes), node_postprocessors=[rerank], name="metals", description="d"
    )


def engine_tool(nodes, rerank):
    engine = RetrieverQueryEngine.from_args(
        FixedRetriever(nodes), llm=MockLLM(), node_postprocessors=[rerank]
    )
    return QueryEngineTool(engine, ToolMetadata(name="metals", description="d"))


def ranked(output):
    raw = output.raw_output
    return results(raw if isinstance(raw, list) else raw.source_nodes)


@pytest.mark.parametrize("make", [retriever_tool, engine_tool])
async def test_every_way_to_call_a_tool_ranks_as_the_question_alone(tiny_reranker, make):
    nodes = make_nodes()
    expected = results(ICRRerank(tiny_reranker).postprocess_nodes(nodes, query_str=QUERY))
    tool = make(nodes, ICRRerank(tiny_reranker))
    outputs = [
        tool.call(QUERY),
        tool.call(input=QUERY),
        await tool.acall(QUERY),
        await tool.acall(input=QUERY),
        call_tool(tool, {"input": QUERY}),
        await acall_tool(tool, {"input": QUERY}),
    ]
    if make is engine_tool:
        # Another schema than LlamaIndex's own.
        outputs.append(tool.call(question=QUERY))
    assert [ranked(output) for output in outputs] == [expected] * len(outputs)


def test_the_transform_is_the_users(tiny_reranker):
    nodes = make_nodes()
    alone = ICRRerank(tiny_reranker).postprocess_nodes(nodes, query_str=QUERY)

    def through_tool(transform):
        tool = retriever_tool(nodes, ICRRerank(tiny_reranker, query_transform=transform))
        return ranked(tool.call(input="Something else"))

    assert through_tool(lambda query: QUERY) == results(alone)
    read = []
    through_tool(lambda query: read.append(query) or query)
    assert read == ["\ninput is Something else\n"]
    untouched = ICRRerank(tiny_reranker, query_transform=None)
    worded = "\ninput is Something else\n"
    assert through_tool(None) == results(untouched.postprocess_nodes(nodes, query_str=worded))
    assert through_tool(None) != through_tool(clean_tool_query)


# --- tools as what is ranked ---------------------------------------------------------------------


async def test_an_agents_tools_are_ranked_by_their_descriptions(tiny_reranker):
    tools = [
        FunctionTool.from_defaults(lambda: "", name=f"t{i}", description=text)
        for i, text in enumerate(TEXTS)
    ]
    objects = ObjectIndex.from_objects(
        tools, index_cls=VectorStoreIndex, embed_model=MockEmbedding(embed_dim=3)
    )
    seen = []

    class Seeing(ICRRerank):
        def _postprocess_nodes(self, nodes, query_bundle=None):
            seen.append(nodes)
            return super()._postprocess_nodes(nodes, query_bundle)

        async def _apostprocess_nodes(self, nodes, query_bundle=None):
            seen.append(nodes)
            return await super()._apostprocess_nodes(nodes, query_bundle)

    retriever = objects.as_retriever(
        similarity_top_k=4, node_postprocessors=[Seeing(tiny_reranker, top_n=2)]
    )
    found = [tool.metadata.name for tool in retriever.retrieve(QUERY)]
    again = [tool.metadata.name for tool in await retriever.aretrieve(QUERY)]
    expected = ICRRerank(tiny_reranker, top_n=2).postprocess_nodes(seen[0], query_str=QUERY)
    assert len(seen[0]) == 4
    assert found == again == [node.metadata["name"] for node in expected]


# --- agents and workflows ------------------------------------------------------------------------


# The agents' own: a workflow looks at every attribute of its pydantic agent, old ones included.
agents_own_warnings = pytest.mark.filterwarnings(
    "ignore:.*attribute is deprecated:DeprecationWarning",
    "ignore:.*on the instance is deprecated:DeprecationWarning",
    "ignore:is_running called from within a step:DeprecationWarning",
)


class ScriptedLLM(CustomLLM):
    """Says one thing after the other, and remembers what it was shown."""

    replies: list[str]
    shown: list[str] = []

    @property
    def metadata(self):
        return LLMMetadata(context_window=4096)

    def complete(self, prompt, formatted=False, **kwargs):
        self.shown.append(prompt)
        return CompletionResponse(text=self.replies.pop(0))

    def stream_complete(self, prompt, formatted=False, **kwargs):
        yield self.complete(prompt)


@agents_own_warnings
async def test_a_react_agent_reads_the_best_first(tiny_reranker):
    workflow = pytest.importorskip("llama_index.core.agent.workflow")
    nodes = make_nodes()
    llm = ScriptedLLM(
        replies=[
            f'Thought: I look it up.\nAction: metals\nAction Input: {{"input": "{QUERY}"}}',
            "Thought: I can answer now.\nAnswer: Tin.",
        ]
    )
    tool = retriever_tool(nodes, ICRRerank(tiny_reranker, top_n=2))
    agent = workflow.ReActAgent(tools=[tool], llm=llm, streaming=False)
    output = await agent.run("Which one melts first, please?")
    assert "Tin." in output.response.content
    (call,) = output.tool_calls
    expected = ICRRerank(tiny_reranker, top_n=2).postprocess_nodes(nodes, query_str=QUERY)
    assert ranked(call.tool_output) == results(expected)
    first, second = (node.node.get_content() for node in expected)
    assert llm.shown[1].index(first) < llm.shown[1].index(second)


@agents_own_warnings
async def test_a_function_agent_calls_the_tool(tiny_reranker):
    workflow = pytest.importorskip("llama_index.core.agent.workflow")
    mock = pytest.importorskip("llama_index.core.llms.mock")
    if not hasattr(mock, "MockFunctionCallingLLM"):
        pytest.skip("this LlamaIndex has no scripted LLM that calls functions")
    from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock

    replies = [
        [ToolCallBlock(tool_call_id="1", tool_name="metals", tool_kwargs={"input": QUERY})],
        "Tin.",
    ]

    def reply(messages, **kwargs):
        content = replies.pop(0)
        if isinstance(content, str):
            return ChatMessage(role="assistant", content=content)
        return ChatMessage(role="assistant", blocks=content)

    nodes = make_nodes()
    agent = workflow.FunctionAgent(
        tools=[retriever_tool(nodes, ICRRerank(tiny_reranker, top_n=2))],
        llm=mock.MockFunctionCallingLLM(response_generator=reply),
        streaming=False,
    )
    output = await agent.run("Which one melts first, please?")
    (call,) = output.tool_calls
    expected = ICRRerank(tiny_reranker, top_n=2).postprocess_nodes(nodes, query_str=QUERY)
    assert ranked(call.tool_output) == results(expected)


async def test_a_step_of_a_workflow(tiny_reranker):
    class Pipeline(Workflow):
        async def rerank(self, ev):
            rerank = ICRRerank(tiny_reranker, top_n=2)
            return StopEvent(result=await rerank.apostprocess_nodes(ev.nodes, query_str=ev.query))

        # Old versions of LlamaIndex cannot read annotations that are strings.
        rerank.__annotations__ = {"ev": StartEvent, "return": StopEvent}
        rerank = step(rerank)

    nodes = make_nodes()
    found = await Pipeline().run(query=QUERY, nodes=nodes)
    expected = ICRRerank(tiny_reranker, top_n=2).postprocess_nodes(nodes, query_str=QUERY)
    assert results(found) == results(expected)


async def test_a_memory_block_recalls_the_best(tiny_reranker):
    blocks = pytest.importorskip("llama_index.core.memory.memory_blocks")
    from llama_index.core.llms import ChatMessage
    from llama_index.core.vector_stores import SimpleVectorStore, VectorStoreQueryResult

    stored = [TextNode(text=text, id_=f"n{i}") for i, text in enumerate(TEXTS)]

    class Store(SimpleVectorStore):
        stores_text: bool = True

        async def aquery(self, query, **kwargs):
            return VectorStoreQueryResult(
                nodes=stored, similarities=[0.9, 0.8, 0.7, 0.6], ids=[node.id_ for node in stored]
            )

    block = blocks.VectorMemoryBlock(
        vector_store=Store(),
        embed_model=MockEmbedding(embed_dim=3),
        node_postprocessors=[ICRRerank(tiny_reranker, top_n=1)],
    )
    recalled = await block.aget([ChatMessage(role="user", content=QUERY)])
    given_ = [NodeWithScore(node=node, score=0.5) for node in stored]
    expected = ICRRerank(tiny_reranker, top_n=1).postprocess_nodes(given_, query_str=QUERY)
    assert recalled == expected[0].node.get_content()
