"""The LLM that is loaded already: no weight twice, and it generates as if we were not there."""

from __future__ import annotations

import threading
import types

import pytest
import torch
import transformers
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


def own_weights(reranker, model):
    """Weights of the reranker that are not, as objects and in memory, those of the model."""
    theirs = {id(parameter): parameter.data_ptr() for parameter in model.parameters()}
    return [
        name
        for name, parameter in reranker.engine.decoder.named_parameters()
        if theirs.get(id(parameter)) != parameter.data_ptr()
    ]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_the_model_inside_is_found_and_shared(wrap, loaded):
    model, tokenizer = unwrap_llm(wrap(loaded))
    assert model is loaded[0]
    with Reranker.from_model(model, tokenizer, layers=(1, 2)) as reranker:
        assert len(reranker.rank("the moon?", DOCUMENTS)) == 4
        assert own_weights(reranker, loaded[0]) == []


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
        assert own_weights(rerank.reranker, loaded[0]) == []


def with_accelerate_hooks(model):
    accelerate = pytest.importorskip("accelerate")
    return accelerate.dispatch_model(model, device_map={"": "cpu"}, force_hooks=True)


def with_idle_lora(model):
    peft = pytest.importorskip("peft")
    # Freshly made, B is zero: the model computes what it did, through other modules.
    config = peft.LoraConfig(target_modules=["q_proj", "k_proj", "v_proj"], task_type="CAUSAL_LM")
    return peft.get_peft_model(model, config).eval()


#: What peft itself sets off in transformers.
peft_warns = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is:FutureWarning")


@peft_warns
@pytest.mark.parametrize("wrap", [with_accelerate_hooks, with_idle_lora])
def test_a_model_that_others_wrapped_ranks_as_it_does_bare(wrap, loaded):
    model, tokenizer = loaded
    with Reranker.from_model(model, tokenizer, layers=(1, 2)) as bare:
        expected = bare.rank("the moon?", DOCUMENTS).scores
    wrapped = wrap(model)
    before = state_of(wrapped)
    with Reranker.from_model(*unwrap_llm(wrapped, tokenizer), layers=(1, 2)) as reranker:
        assert reranker.rank("the moon?", DOCUMENTS).scores == expected
        assert own_weights(reranker, wrapped) == []
    assert state_of(wrapped) == before


@peft_warns
def test_a_trained_lora_is_read_with_the_model(loaded):
    peft = pytest.importorskip("peft")
    model, tokenizer = loaded
    config = peft.LoraConfig(target_modules=["k_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, config).eval()
    with Reranker.from_model(*unwrap_llm(adapted, tokenizer), layers=(1, 2)) as reranker:
        beside = reranker.rank("the moon?", DOCUMENTS).scores
    with Reranker.from_model(adapted.merge_and_unload(), tokenizer, layers=(1, 2)) as reranker:
        assert reranker.rank("the moon?", DOCUMENTS).scores == pytest.approx(beside, abs=1e-5)


@pytest.mark.parametrize("name", ["T5", "Bart"])
def test_an_encoder_decoder_is_refused(name, tokenizer):
    """Its decoder alone has a list of layers too, and would run, on nothing."""
    sizes = {"d_model": 16, "vocab_size": 264, "num_layers": 2, "num_heads": 2}
    if name == "Bart":
        sizes = {"d_model": 16, "vocab_size": 264, "encoder_layers": 2, "decoder_layers": 2}
    config = getattr(transformers, f"{name}Config")(**sizes)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    with pytest.raises(UnsupportedModelError, match=f"{name}For.* is an encoder-decoder"):
        Reranker.from_model(*unwrap_llm(model, tokenizer))


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
