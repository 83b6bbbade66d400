"""LlamaIndex's own re-rankers beside the replacements: same keywords, same shapes."""

from __future__ import annotations

import inspect
import json

import pytest
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.postprocessor import LLMRerank as OwnersLLMRerank
from llama_index.core.postprocessor import SentenceTransformerRerank as OwnersSentenceTransformer
from llama_index.core.postprocessor.rankGPT_rerank import RankGPTRerank as OwnersRankGPT
from llama_index.core.schema import NodeWithScore, TextNode
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker
from icr_rag.errors import ConfigError, UnsupportedModelError
from icr_rag.integrations.compat.llama_index import (
    LLMRerank,
    RankGPTRerank,
    SentenceTransformerRerank,
)
from icr_rag.integrations.llama_index import ICRRerank

QUERY = "Which metal melts first?"
TEXTS = ["Tin melts at 232 degrees.", "Lead is soft.", "Copper conducts heat well.", "Zinc."]
PAIRS = [
    (OwnersSentenceTransformer, SentenceTransformerRerank),
    (OwnersLLMRerank, LLMRerank),
    (OwnersRankGPT, RankGPTRerank),
]


def make_nodes():
    return [
        NodeWithScore(node=TextNode(text=text, id_=f"n{i}", metadata={"i": i}), score=1.0 - i / 10)
        for i, text in enumerate(TEXTS)
    ]


@pytest.fixture(scope="module")
def reranker():
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), layers=(1, 2))


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


def test_what_comes_back_has_the_owners_shape(reranker, cross_encoder_folder):
    owners = [
        OwnersSentenceTransformer(
            model=cross_encoder_folder, top_n=2, device="cpu", trust_remote_code=False
        ),
        OwnersLLMRerank(llm=Scripted(answer="Doc: 2, Relevance: 7\nDoc: 1, Relevance: 3"), top_n=2),
        OwnersRankGPT(llm=Scripted(answer="[2] > [1] > [3] > [4]"), top_n=2),
    ]
    replacements = [ours(top_n=2, reranker=reranker) for _, ours in PAIRS]
    for component in owners + replacements:
        nodes = component.postprocess_nodes(make_nodes(), query_str=QUERY)
        assert [type(node) for node in nodes] == [NodeWithScore] * 2
        assert {node.node_id for node in nodes} <= {"n0", "n1", "n2", "n3"}
        assert [node.metadata["i"] for node in nodes] == [int(node.node_id[1]) for node in nodes]


@pytest.mark.parametrize("ours", [ours for _, ours in PAIRS])
def test_they_rank_as_the_adapter_does(ours, reranker):
    expected = ICRRerank(reranker, top_n=3).postprocess_nodes(make_nodes(), query_str=QUERY)
    found = ours(top_n=3, reranker=reranker).postprocess_nodes(make_nodes(), query_str=QUERY)
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
