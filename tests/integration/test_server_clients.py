"""Clients that are packages, unmodified but for the address they call, against a real server.

Ignored warnings are those of the clients' own code, by their texts, in the test that meets them.
"""

from __future__ import annotations

import gc
import math
import re
import socket
import warnings
from pathlib import Path

import pytest
from known_answers import KnownAnswers, best_first, served, share_of_a
from live_server import live

TEXTS = ["bbb", "aaa", "abb", "aab", "b a"]
SCORES = list(map(share_of_a, TEXTS))
ORDER = list(best_first(SCORES))
QUERY = "which has a?"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "clients.md"

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <(socket|transport):ResourceWarning")


@pytest.fixture(scope="module")
def answers():
    return KnownAnswers()


@pytest.fixture(scope="module")
def address(answers):
    with live(served(answers)) as address:
        yield address


@pytest.fixture(scope="module", autouse=True)
def left_open():
    """Clients that leave their connections open are not to be found out in another module."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch):
    """No client reaches another machine, whatever it means to fetch or to report."""
    connect = socket.socket.connect

    def only_here(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] != "127.0.0.1":
            raise AssertionError(f"a client called {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", only_here)


def check(results, top_n=None):
    """Pairs of index and score, best first."""
    assert [index for index, _ in results] == ORDER[:top_n]
    assert [score for _, score in results] == pytest.approx(
        [SCORES[at] for at in ORDER[:top_n]], abs=1e-9
    )


# --- cohere -------------------------------------------------------------------------------------


def pairs(response):
    return [(result.index, result.relevance_score) for result in response.results]


def test_cohere_v1(address, answers):
    cohere = pytest.importorskip("cohere")
    client = cohere.Client("key", base_url=address)
    response = client.rerank(model="rerank-v3.5", query=QUERY, documents=TEXTS)
    check(pairs(response))
    assert response.id
    assert response.meta.api_version.version == "1"
    assert response.meta.tokens.input_tokens == 7 * len(TEXTS)
    assert all(result.document is None for result in response.results)

    documents = [{"text": text, "source": f"page {n}"} for n, text in enumerate(TEXTS)]
    response = client.rerank(query=QUERY, documents=documents, top_n=2, return_documents=True)
    check(pairs(response), 2)
    assert [result.document.text for result in response.results] == ["aaa", "aab"]
    assert response.results[0].document.source == "page 1"
    assert answers.calls[-1].model is None

    client.rerank(query=QUERY, documents=documents, rank_fields=["source", "text"])
    assert answers.calls[-1].documents[0].content == "source: page 0\nbbb"


def test_cohere_v2(address, answers):
    cohere = pytest.importorskip("cohere")
    client = cohere.ClientV2("key", base_url=address)
    response = client.rerank(
        model="rerank-v3.5", query=QUERY, documents=TEXTS, top_n=3, max_tokens_per_doc=40
    )
    check(pairs(response), 3)
    assert response.meta.api_version.version == "2"
    assert answers.calls[-1].max_tokens_per_doc == 40


async def test_cohere_async(address):
    cohere = pytest.importorskip("cohere")
    for kind in (cohere.AsyncClient, cohere.AsyncClientV2):
        async with kind("key", base_url=address) as client:
            check(pairs(await client.rerank(model="m", query=QUERY, documents=TEXTS)))


def test_cohere_reads_the_errors(address):
    cohere = pytest.importorskip("cohere")
    client = cohere.ClientV2("key", base_url=address)
    with pytest.raises(cohere.UnprocessableEntityError) as caught:
        client.rerank(model="m", query=" ", documents=TEXTS)
    assert caught.value.body["message"] == "query: is blank; give the question to rank for"


# --- LangChain and LlamaIndex -------------------------------------------------------------------


def test_langchain_cohere(address):
    langchain_cohere = pytest.importorskip("langchain_cohere")
    from langchain_core.documents import Document

    component = langchain_cohere.CohereRerank(
        model="any", cohere_api_key="key", base_url=address, top_n=2
    )
    documents = [Document(text, metadata={"n": n}) for n, text in enumerate(TEXTS)]
    found = component.compress_documents(documents, QUERY)
    check([(hit.metadata["n"], hit.metadata["relevance_score"]) for hit in found], 2)
    check([(hit["index"], hit["relevance_score"]) for hit in component.rerank(TEXTS, QUERY)], 2)


def nodes():
    from llama_index.core.schema import NodeWithScore, TextNode

    return [NodeWithScore(node=TextNode(text=text, id_=f"{n}")) for n, text in enumerate(TEXTS)]


def check_nodes(found, top_n):
    check([(int(hit.node.node_id), hit.score) for hit in found], top_n)


def test_llama_index_cohere(address):
    module = pytest.importorskip("llama_index.postprocessor.cohere_rerank")
    component = module.CohereRerank(api_key="key", base_url=address, top_n=3, model="any")
    check_nodes(component.postprocess_nodes(nodes(), query_str=QUERY), 3)


def test_llama_index_jina(address):
    module = pytest.importorskip("llama_index.postprocessor.jinaai_rerank")
    component = module.JinaRerank(base_url=f"{address}/v1", api_key="key", top_n=3, model="any")
    check_nodes(component.postprocess_nodes(nodes(), query_str=QUERY), 3)
    # It reads "detail" of an error, and fails on one that has none.
    with pytest.raises(RuntimeError, match="query: is blank"):
        component.postprocess_nodes(nodes(), query_str=" ")


def test_llama_index_tei(address):
    module = pytest.importorskip("llama_index.postprocessor.tei_rerank")
    component = module.TextEmbeddingInference(base_url=address, top_n=3)
    check_nodes(component.postprocess_nodes(nodes(), query_str=QUERY), 3)


# --- LiteLLM ------------------------------------------------------------------------------------


#: Its type hints say what pydantic finds nothing to do about.
says_read_only = pytest.mark.filterwarnings("ignore:.*`ReadOnly` qualifier:UserWarning")


@pytest.fixture(scope="module")
def litellm():
    with pytest.MonkeyPatch.context() as patch:
        # Without it, importing fetches a list of prices.
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        patch.setenv("LITELLM_MODE", "PRODUCTION")
        return pytest.importorskip("litellm")


#: Model -> what is added to the address.
PROVIDERS = {
    "cohere/any": "/v1/rerank",
    "cohere/rerank-v3.5": "/v2/rerank",
    "jina_ai/any": "",
    "hosted_vllm/any": "",
    "huggingface/any": "",
    "infinity/any": "/infinity",
    "nvidia_nim/nvidia/any": "",
    "nvidia_nim/ranking/nvidia/any": "",
    "dashscope/any": "/v1",
}


@says_read_only
@pytest.mark.parametrize("model", PROVIDERS)
@pytest.mark.parametrize("top_n", [None, 2])
@pytest.mark.parametrize("documents", [True, False])
def test_litellm(address, litellm, model, top_n, documents):
    response = litellm.rerank(
        model=model,
        query=QUERY,
        documents=TEXTS,
        top_n=top_n,
        return_documents=documents,
        api_base=address + PROVIDERS[model],
        api_key="key",
    )
    results = [(result["index"], result["relevance_score"]) for result in response.results]
    if model.startswith("nvidia"):
        results = [(index, 1 / (1 + math.exp(-score))) for index, score in results]
    check(results, top_n)
    back = [result["document"]["text"] for result in response.results if "document" in result]
    if documents or model.startswith("nvidia"):
        assert back == [TEXTS[at] for at in ORDER[:top_n]]
    else:
        assert back == []


@says_read_only
def test_litellm_sends_vllms_settings(address, litellm, answers):
    litellm.rerank(
        model="hosted_vllm/any",
        query=QUERY,
        documents=TEXTS,
        api_base=address,
        instruction="Find passages that refute the claim.",
        max_tokens_per_doc=40,
        truncate_prompt_tokens=30,
    )
    assert answers.calls[-1].instruction == "Find passages that refute the claim."
    assert answers.calls[-1].max_tokens_per_doc == 30


@says_read_only
async def test_litellm_async(address, litellm):
    response = await litellm.arerank(
        model="hosted_vllm/any", query=QUERY, documents=TEXTS, api_base=address
    )
    check([(result["index"], result["relevance_score"]) for result in response.results])


# --- the page about them ------------------------------------------------------------------------


@says_read_only
def test_the_lines_of_the_page_about_clients_run(address, litellm, answers):
    cohere = pytest.importorskip("cohere")
    langchain_cohere = pytest.importorskip("langchain_cohere")
    modules = [
        pytest.importorskip(f"llama_index.postprocessor.{name}_rerank")
        for name in ("cohere", "jinaai", "tei")
    ]
    classes = {name: value for module in modules for name, value in vars(module).items()}
    given = {"cohere": cohere, "langchain_cohere": langchain_cohere, "litellm": litellm}
    page = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 3
    before = len(answers.calls)
    for block in blocks:
        code = block.replace("http://localhost:8787", address)
        exec(code, {**classes, **given, "query": QUERY, "texts": TEXTS})
    # One line of cohere's, five of LiteLLM's; the others only make a component.
    assert len(answers.calls) == before + 6
