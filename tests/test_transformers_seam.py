"""Every name of transformers that is private or has changed exists here, and behaves."""

from __future__ import annotations

import ast
import logging
import threading
from pathlib import Path

import pytest
import torch
import transformers
from tiny import _COMMON, FAMILIES, tiny_model
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.cache_utils import Cache, DynamicLayer

from icr_rag.errors import UnsupportedModelError
from icr_rag.model import _transformers as seam
from icr_rag.model.limits import sliding_windows, stretched_beyond
from icr_rag.model.view import find_decoder

PACKAGE = Path(seam.__file__).parents[1]


def llama_config(**changes):
    return transformers.LlamaConfig(**{**_COMMON, **changes})


# --- states of earlier tokens -----------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_model_continues_what_it_is_given(name, recwarn):
    model = tiny_model(name)
    for module in (model, find_decoder(model)):
        cache = seam.empty_cache(find_decoder(model).config, DynamicLayer)
        ids = torch.tensor([[5, 6, 7]])
        with torch.no_grad():
            module(input_ids=ids, **seam.with_cache(module, cache))
        assert cache.get_seq_length() == 3
        assert seam.takes_positions(module)
    assert not recwarn.list


def test_a_model_that_keeps_nothing_is_refused():
    class Plain(nn.Module):
        def forward(self, input_ids):
            return input_ids

    with pytest.raises(UnsupportedModelError, match="Plain keeps no keys and values"):
        seam.cache_argument(Plain())
    assert not seam.takes_positions(Plain())


def test_a_wrapper_takes_what_it_wraps_takes():
    class Wrapper(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, *arguments, **keywords):
            return self.inner(*arguments, **keywords)

    model = tiny_model("llama")
    wrapped = Wrapper(Wrapper(model))
    assert seam.cache_argument(wrapped) == seam.cache_argument(model)
    assert seam.logits_to_keep(wrapped, torch.tensor([0]))[0]
    assert not seam.logits_to_keep(find_decoder(model), torch.tensor([0]))[0]


def test_layers_by_what_they_keep():
    config = llama_config()
    assert seam.attention_layers(config) == list(range(5))
    assert seam.keeps_only_keys_and_values(config)
    assert isinstance(seam.empty_cache(config, DynamicLayer), Cache)
    if not hasattr(transformers, "Qwen3NextConfig"):
        pytest.skip("no hybrid model in this version")
    kinds = ["linear_attention", "full_attention", "linear_attention", "full_attention"]
    hybrid = transformers.Qwen3NextConfig(num_hidden_layers=4, layer_types=kinds)
    if seam.keeps_only_keys_and_values(hybrid):
        pytest.skip("this version keeps recurrent states elsewhere")
    assert seam.attention_layers(hybrid) == [1, 3]
    layers = seam.empty_cache(hybrid, DynamicLayer).layers
    assert [type(layer) is DynamicLayer for layer in layers] == [False, True, False, True]


# --- attention ----------------------------------------------------------------------------------


def test_an_attention_function_of_ones_own_is_called_with_a_mask_of_ones_own():
    calls, masks = [], []

    def attention(module, query, key, value, attention_mask, **settings):
        calls.append((module.layer_idx, attention_mask is not None))
        return seam.attention_function("sdpa")(
            module, query, key, value, attention_mask, **settings
        )

    def mask(*arguments, **settings):
        masks.append(1)
        return seam.mask_function("sdpa")(*arguments, **{**settings, "allow_is_causal_skip": False})

    seam.register_attention("icr_rag_seam_test", attention, mask)
    torch.manual_seed(0)
    config = seam.with_implementation(llama_config(), "icr_rag_seam_test")
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    model.config._attn_implementation_internal = "icr_rag_seam_test"
    with torch.no_grad():
        model(torch.tensor([[5, 6, 7]]))
    assert calls == [(layer, True) for layer in range(5)]
    assert masks


def test_the_eager_attention_is_the_architectures_own():
    attention = tiny_model("gemma2").model.layers[0].self_attn
    function = seam.eager_attention(attention)
    assert function.__module__.endswith("modeling_gemma2")
    assert seam.eager_attention(nn.Linear(1, 1)) is None


def test_another_implementation_leaves_the_original_and_its_parts_alone():
    inner = llama_config()
    outer = transformers.LlavaConfig(text_config=inner)
    before = seam.implementation(outer), seam.implementation(outer.text_config)
    changed = seam.with_implementation(outer, "icr_rag")
    assert seam.implementation(changed) == "icr_rag"
    assert changed.text_config is outer.text_config
    assert (seam.implementation(outer), seam.implementation(outer.text_config)) == before
    assert (changed.output_attentions, changed.output_hidden_states) == (False, False)


# --- its words ----------------------------------------------------------------------------------


def test_leftovers_are_not_reported_in_this_thread_only():
    logger = logging.getLogger("transformers.modeling_utils")
    level, handlers = logger.level, list(logger.handlers)
    told = []

    class Listener(logging.Handler):
        def emit(self, record):
            told.append(record.getMessage())

    listener = Listener()
    with seam.without_leftovers():
        logger.addHandler(listener)
        try:
            logger.warning("left over")
            logger.error("wrong")
            other = threading.Thread(target=logger.warning, args=("another's",))
            other.start()
            other.join()
        finally:
            logger.removeHandler(listener)
        assert logger.level == level
    assert told == ["wrong", "another's"]
    assert list(logger.handlers) == handlers
    assert not logger.filters


# --- what a configuration says --------------------------------------------------------------------


def test_windows_per_layer():
    assert sliding_windows(llama_config()) == [None] * 5
    mistral = transformers.MistralConfig(**{**_COMMON, "sliding_window": 24})
    assert sliding_windows(mistral) == [24] * 5
    mixed = transformers.Qwen2Config(
        **{**_COMMON, "use_sliding_window": True, "sliding_window": 24, "max_window_layers": 2}
    )
    assert sliding_windows(mixed) == [None, None, 24, 24, 24]


@pytest.mark.parametrize(
    ("parameters", "limit"),
    [
        ({"rope_type": "default", "rope_theta": 1e4}, None),
        ({"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}, 4096),
        ({"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}, None),
    ],
)
def test_where_positions_are_stretched(parameters, limit):
    assert stretched_beyond(llama_config(rope_parameters=parameters)) == limit


# --- and nowhere else -----------------------------------------------------------------------------

#: What is private, or has changed its name or place.
PRIVATE = {
    "_attn_implementation", "_attn_implementation_internal", "_hf_hook", "past_key_values",
    "ALL_ATTENTION_FUNCTIONS", "ALL_MASK_ATTENTION_FUNCTIONS", "AttentionInterface",
    "AttentionMaskInterface", "DynamicCache", "layer_types", "rope_parameters",
}  # fmt: skip


def test_private_names_are_used_in_the_seam_alone():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        if path.name == "_transformers.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
        names |= {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        if names & PRIVATE:
            found[path.name] = names & PRIVATE
    assert not found
