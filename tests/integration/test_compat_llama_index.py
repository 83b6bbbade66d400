"""LlamaIndex's own re-rankers beside the replacements: same keywords, same shapes."""

from __future__ import annotations

import inspect
import json

import pytest
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.postprocessor import LLMRerank as OwnersLLMRerank
from llama_index.core.postprocessor import SentenceTransformerRerank as OwnersSentenceTransformer
from llama_index.core.postprocessor.rankGPT_rerank import RankGPTRerank as OwnersRankGPT
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index_parts import QUERY, make_nodes, results, snapshot
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker
from icr_rag.errors import ConfigError, UnsupportedModelError
from icr_rag.integrations.compat.llama_index import (
    LLMRerank,
    RankGPTRerank,
    SentenceTransformerRerank,
)
from icr_rag.integrations.llama_index import ICRRerank

PAIRS = [
    (OwnersSentenceTransformer, SentenceTransformerRerank),
    (OwnersLLMRerank, LLMRerank),
    (OwnersRankGPT, RankGPTRerank),
]


class Scripted(CustomLLM):
    """Answers as each owner's prompt asks."""

    answer: str

    @property
    def metadata(self):
        return LLMMetadata(context_window=4096)

    def complete(self, prompt, formatted=False, **kwargs):
        return CompletionResponse(text=self.answer)

    def stream_complete(self, prompt, formatted=False, **kwargs):
        yield self.complete(prompt)


@pytest.mark.parametrize(("owners", "ours"), PAIRS)
def test_every_keyword_of_the_owner_is_taken(owners, ours):
    theirs = inspect.signature(owners.__init__).parameters
    mine = inspect.signature(ours.__init__).parameters
    assert set(theirs) <= set(mine)
    # By position, too.
    assert list(mine)[: len(theirs)] == list(theirs)


ANSWERS = {
    OwnersLLMRerank: "Doc: 2, Relevance: 7\nDoc: 1, Relevance: 3",
    OwnersRankGPT: "[2] > [1] > [3] > [4]",
}
CASES = [
    (OwnersSentenceTransformer, {"model": "folder", "device": "cpu", "trust_remote_code": False}),
    (OwnersSentenceTransformer, {"model": "folder", "device": "cpu", "keep_retrieval_score": True}),
    (OwnersLLMRerank, {"choice_batch_size": 2}),
    (OwnersRankGPT, {"verbose": False}),
]


@pytest.mark.parametrize("top_n", [1, 2, 10])
@pytest.mark.parametrize(("owners", "keywords"), CASES)
def test_the_same_code_gives_the_same_shape(
    owners, keywords, top_n, cross_encoder_folder, model_folder
):
    """Constructor, calls and what comes back, with the owner's class and with the replacement."""
    ours = dict(PAIRS)[owners]
    found = []
    for component, folder in ((owners, cross_encoder_folder), (ours, model_folder)):
        given = {**keywords, "top_n": top_n}
        if "model" in given:
            given["model"] = folder
        elif component is ours:
            given |= {"model": folder, "layers": (1, 2)}
        else:
            given["llm"] = Scripted(answer=ANSWERS[owners])
        made = component(**given)
        assert made.top_n == top_n
        assert made.class_name() == owners.class_name()
        for nodes in (
            made.postprocess_nodes(make_nodes(), QueryBundle(QUERY)),
            made.postprocess_nodes(make_nodes(), query_str=QUERY),
        ):
            assert [type(node) for node in nodes] == [NodeWithScore] * len(nodes)
            for node in nodes:
                place = int(node.node_id[1:])
                assert node.metadata["i"] == place
                assert node.text == make_nodes()[place].text
                if given.get("keep_retrieval_score"):
                    assert node.metadata["retrieval_score"] == make_nodes()[place].score
        assert made.postprocess_nodes([], query_str=QUERY) == []
        found.append(nodes)
    assert [len(nodes) for nodes in found] == [min(top_n, 4)] * 2


@pytest.mark.parametrize("ours", [ours for _, ours in PAIRS])
async def test_nothing_given_is_changed_and_the_asynchronous_call_gives_the_same(
    ours, tiny_reranker
):
    nodes = make_nodes()
    before = snapshot(nodes)
    component = ours(top_n=3, reranker=tiny_reranker)
    found = component.postprocess_nodes(nodes, query_str=QUERY)
    assert results(await component.apostprocess_nodes(nodes, query_str=QUERY)) == results(found)
    assert snapshot(nodes) == before


@pytest.mark.parametrize("ours", [ours for _, ours in PAIRS])
def test_they_rank_as_the_adapter_does(ours, tiny_reranker):
    expected = ICRRerank(tiny_reranker, top_n=3).postprocess_nodes(make_nodes(), query_str=QUERY)
    found = ours(top_n=3, reranker=tiny_reranker).postprocess_nodes(make_nodes(), query_str=QUERY)
    assert [(n.node_id, n.score) for n in found] == [(n.node_id, n.score) for n in expected]


@pytest.mark.parametrize(("owners", "ours"), PAIRS)
def test_defaults_of_top_n_are_the_owners(owners, ours):
    assert ours().top_n == inspect.signature(owners.__init__).parameters["top_n"].default


@pytest.mark.parametrize("ours", [ours for _, ours in PAIRS])
def test_settings_survive_to_dict(ours):
    component = ours(top_n=4, layers=(10, 13))
    values = json.loads(json.dumps(component.to_dict()))
    again = ours.from_dict(values)
    assert (again.top_n, again.config, type(again)) == (4, component.config, ours)


def test_an_llm_that_is_loaded_is_shared(model_folder):
    module = pytest.importorskip("llama_index.llms.huggingface")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(model_folder)
    llm = module.HuggingFaceLLM(
        model=model, tokenizer=AutoTokenizer.from_pretrained(model_folder), context_window=512
    )
    for ours in (LLMRerank, RankGPTRerank):
        component = ours(llm=llm, top_n=1, layers=(1, 2))
        assert component.config.layers == (1, 2)
        weights = next(component.reranker.engine.decoder.parameters())
        assert weights.data_ptr() == model.get_input_embeddings().weight.data_ptr()


def test_a_batch_is_a_window():
    assert LLMRerank(choice_batch_size=5).config.window == 5


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: LLMRerank(choice_select_prompt="?"), ConfigError, "choice_select_prompt cannot"),
        (lambda: RankGPTRerank(rankgpt_rerank_prompt="?"), ConfigError, "rankgpt_rerank_prompt"),
        (lambda: LLMRerank(choice_batch_size=1), ConfigError, "choice_batch_size=1: .*two"),
        (lambda: RankGPTRerank(top_n=-1), ConfigError, "top_n=-1"),
        (lambda: LLMRerank(llm=Scripted(answer="")), UnsupportedModelError, "Scripted holds no"),
        (lambda: SentenceTransformerRerank(layer=1), ConfigError, "did you mean 'layers'"),
        (
            lambda: SentenceTransformerRerank(
                model="x", reranker=Reranker.from_model(tiny_model("llama"), byte_tokenizer())
            ),
            ConfigError,
            "model cannot be set beside it",
        ),
    ],
)
def test_what_has_no_counterpart_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
