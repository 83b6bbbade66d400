"""The LLM that is loaded already: no weight twice, and it generates as if we were not there."""

from __future__ import annotations

import threading
import types

import pytest
import torch
from tiny import byte_tokenizer, tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from icr_rag import Reranker
from icr_rag.errors import UnsupportedModelError
from icr_rag.integrations._llm import unwrap_llm

DOCUMENTS = ["the tide rises", "the moon wanes", "sand and salt", "a rope on the pier"]
PROMPT = "the moon and"


@pytest.fixture
def loaded(model_folder):
    """A model and tokenizer of the caller's own, freshly loaded."""
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(model_folder)


def text_pipeline(loaded):
    model, tokenizer = loaded
    return pipeline("text-generation", model=model, tokenizer=tokenizer)


def hugging_face_llm(loaded):
    module = pytest.importorskip("llama_index.llms.huggingface")
    model, tokenizer = loaded
    return module.HuggingFaceLLM(model=model, tokenizer=tokenizer, context_window=2048)


def hugging_face_pipeline(loaded):
    module = pytest.importorskip("langchain_huggingface")
    return module.HuggingFacePipeline(pipeline=text_pipeline(loaded))


def chat_hugging_face(loaded):
    module = pytest.importorskip("langchain_huggingface")
    return module.ChatHuggingFace(llm=hugging_face_pipeline(loaded), tokenizer=loaded[1])


WRAPPERS = [text_pipeline, hugging_face_llm, hugging_face_pipeline, chat_hugging_face]


def state_of(model):
    """What a change to the model would show in, weights apart."""
    return (
        model.config.to_dict(),
        model.config._attn_implementation,
        model.training,
        [name for name, _ in model.named_modules()],
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        [parameter.data_ptr() for parameter in model.parameters()],
    )


def outputs(model, tokenizer):
    """Greedy tokens, seeded samples, and logits of a fixed prompt."""
    ids = tokenizer(PROMPT, return_tensors="pt")
    with torch.no_grad():
        logits = model(**ids).logits
    greedy = model.generate(**ids, max_new_tokens=12, do_sample=False)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        sampled = model.generate(**ids, max_new_tokens=12, do_sample=True)
    return logits, greedy, sampled


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_the_model_inside_is_found_and_shared(wrap, loaded):
    model, tokenizer = unwrap_llm(wrap(loaded))
    assert model is loaded[0]
    with Reranker.from_model(model, tokenizer, layers=(1, 2)) as reranker:
        assert len(reranker.rank("the moon?", DOCUMENTS)) == 4
        theirs = {parameter.data_ptr() for parameter in loaded[0].parameters()}
        ours = {parameter.data_ptr() for parameter in reranker.engine.decoder.parameters()}
    assert ours <= theirs


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_generation_is_bit_identical_before_during_and_after(wrap, loaded):
    model, tokenizer = loaded
    alone = outputs(model, tokenizer)
    before = state_of(model)
    llm = wrap(loaded)
    with Reranker.from_model(*unwrap_llm(llm), layers=(1, 2)) as reranker:
        assert equal(outputs(model, tokenizer), alone)
        ranked, stop = [], threading.Event()

        def keep_ranking():
            while not stop.is_set():
                ranked.append(reranker.rank("the moon?", DOCUMENTS).scores)

        thread = threading.Thread(target=keep_ranking)
        thread.start()
        try:
            during = [outputs(model, tokenizer) for _ in range(4)]
        finally:
            stop.set()
            thread.join()
        assert all(equal(result, alone) for result in during)
        assert len(set(ranked)) == 1
    assert equal(outputs(model, tokenizer), alone)
    assert state_of(model) == before


def test_adapters_take_the_llm(loaded):
    llama_index = pytest.importorskip("icr_rag.integrations.llama_index")
    langchain = pytest.importorskip("icr_rag.integrations.langchain")
    for adapter, llm in (
        (llama_index.ICRRerank, hugging_face_llm(loaded)),
        (langchain.ICRRerank, hugging_face_pipeline(loaded)),
    ):
        rerank = adapter.from_llm(llm, top_n=2, layers=(1, 2))
        assert rerank.top_n == 2
        assert rerank.config.layers == (1, 2)
        decoder = rerank.reranker.engine.decoder
        assert (
            next(decoder.parameters()).data_ptr()
            == loaded[0].get_input_embeddings().weight.data_ptr()
        )


def test_a_bare_model_needs_its_tokenizer():
    model, tokenizer = tiny_model("llama"), byte_tokenizer()
    assert unwrap_llm(model, tokenizer) == (model, tokenizer)
    with pytest.raises(
        UnsupportedModelError, match=r"LlamaForCausalLM has no tokenizer .*tokenizer="
    ):
        unwrap_llm(model)


class Remote:
    """An LLM behind an API: its "model" is a name."""

    model = "gpt-99"

    @property
    def tokenizer(self):
        raise ValueError("no network")


@pytest.mark.parametrize("llm", [Remote(), types.SimpleNamespace(llm=Remote()), "model", None])
def test_what_is_not_local_is_refused_by_name(llm):
    with pytest.raises(UnsupportedModelError, match="holds no local transformers model"):
        unwrap_llm(llm)


def test_wrappers_without_end_are_refused():
    endless = types.SimpleNamespace()
    endless.llm = endless
    with pytest.raises(UnsupportedModelError, match="holds no local"):
        unwrap_llm(endless)
