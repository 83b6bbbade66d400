"""Everything that may be wrong with a model and a tokenizer that are handed in."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers
from mishaps import mamba
from tiny import byte_tokenizer, tiny_model
from transformers import PreTrainedTokenizerFast

from icr_rag import Reranker
from icr_rag.errors import ICRError, InputError, ModelLoadError


def llama():
    return tiny_model("llama")


def pipeline():
    return transformers.TextGenerationPipeline(model=llama(), tokenizer=byte_tokenizer())


def bert():
    config = transformers.BertConfig(
        vocab_size=264, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4,
    )  # fmt: skip
    return transformers.BertModel(config)


def sentence_transformer():
    library = pytest.importorskip("sentence_transformers")
    return library.SentenceTransformer(modules=[torch.nn.Identity()])


def larger():
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([f"verylongword{number}" for number in range(5)])
    return tokenizer


#: what is given -> (model, tokenizer, words of the message)
PAIRS = {
    "swapped": (byte_tokenizer, llama, ["LlamaForCausalLM as tokenizer", "swapped"]),
    "two tokenizers": (byte_tokenizer, byte_tokenizer, ["call from_model(model, tokenizer)"]),
    "two models": (llama, llama, ["LlamaForCausalLM as tokenizer", "AutoTokenizer"]),
    "a name": (lambda: "org/name", byte_tokenizer, ["Reranker(model='org/name')"]),
    "a path": (lambda: Path("x"), byte_tokenizer, ["Reranker(model='x')"]),
    "none": (lambda: None, byte_tokenizer, ["None as model", "AutoModelForCausalLM"]),
    "a number": (lambda: 3, byte_tokenizer, ["a int as model", "AutoModelForCausalLM"]),
    "a class": (lambda: transformers.LlamaModel, byte_tokenizer, ["AutoModelForCausalLM"]),
    "a configuration": (lambda: llama().config, byte_tokenizer, ["holds no weights"]),
    "a pipeline": (pipeline, byte_tokenizer, ["pipeline.model, pipeline.tokenizer"]),
    "an encoder": (bert, byte_tokenizer, ["BertModel", "decoder-only"]),
    "a layer": (lambda: torch.nn.Linear(2, 2), byte_tokenizer, ["no list of decoder layers"]),
    "an embedder": (sentence_transformer, byte_tokenizer, ["SentenceTransformer", "auto_model"]),
    "no tokenizer": (llama, lambda: None, ["None as tokenizer", "AutoTokenizer"]),
    "a tokenizer's name": (llama, lambda: "org/name", ["a str as tokenizer", "AutoTokenizer"]),
    "a bare tokenizer": (
        llama, lambda: byte_tokenizer().backend_tokenizer, ["tokenizer_object=tokenizer"],
    ),
    "a function": (llama, lambda: str.split, ["AutoTokenizer"]),
    "a larger tokenizer": (llama, larger, ["up to 264", "0 to 263", "resize_token_embeddings"]),
}  # fmt: skip


@pytest.mark.parametrize("given", PAIRS)
def test_what_is_no_model_or_no_tokenizer_is_told(given):
    model, tokenizer, words = PAIRS[given]
    with pytest.raises(ICRError) as caught:
        Reranker.from_model(model(), tokenizer())
    assert isinstance(caught.value, (InputError, ModelLoadError))
    for word in words:
        assert word in str(caught.value)


def test_a_model_without_attention_is_told_when_attention_is_to_be_read():
    reranker = Reranker.from_model(mamba(), byte_tokenizer())
    with pytest.raises(ModelLoadError, match="mamba models have no softmax attention"):
        reranker.rank("which metal?", ["tin", "lead"])


def test_special_tokens_that_no_text_holds_may_lie_beyond_the_embeddings(llama):
    """As the token for images does in Gemma 3's text models."""
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([f"verylongword{number}" for number in range(4)])
    tokenizer.add_special_tokens({"extra_special_tokens": ["<image>"]})
    assert tokenizer.convert_tokens_to_ids("<image>") == 264
    reranker = Reranker.from_model(llama, tokenizer)
    assert len(reranker.rank("which metal?", ["an <image> of tin", "lead"])) == 2
    tokenizer.chat_template = "<image>" + tokenizer.chat_template
    with pytest.raises(ModelLoadError, match=r"up to 264 \('<image>'\)"):
        Reranker.from_model(llama, tokenizer)


def test_embeddings_that_are_padded_are_fine():
    model = copy.deepcopy(tiny_model("llama"))
    model.resize_token_embeddings(320, mean_resizing=False)
    assert len(Reranker.from_model(model, byte_tokenizer()).rank("a", ["b", "c"])) == 2


# --- chat templates -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "template",
    [
        "{% for %}",
        "{{ raise_exception('only for pictures') }}",
        "{{ messages[0].content.nothing.more }}",
        "{{ messages[7]['content'] }}",
        "{{ 1 // 0 }}",
        "{{ 'a' + 1 }}",
        "{{ messages | nofilter }}",
        "{% include 'other' %}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        {"tool_use": "{{ messages }}"},
    ],
)
def test_a_chat_template_that_fails_is_told(template):
    tokenizer: PreTrainedTokenizerFast = byte_tokenizer()
    tokenizer.chat_template = template
    tokenizer.name_or_path = "org/odd"
    reranker = Reranker.from_model(tiny_model("llama"), tokenizer)
    with pytest.raises(ModelLoadError, match=r"'org/odd' fails.*chat_template"):
        reranker.rank("which metal?", ["tin", "lead"])


def test_a_bare_tokenizer_wrapped_as_told_works():
    raw: tokenizers.Tokenizer = byte_tokenizer().backend_tokenizer
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=raw)
    assert len(Reranker.from_model(tiny_model("llama"), wrapped).rank("a", ["b", "c"])) == 2
