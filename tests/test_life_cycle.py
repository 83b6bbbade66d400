"""Loading, sharing, closing, pickling a reranker."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import subprocess
import sys
import weakref

import pytest
import torch
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker, RerankerConfig
from icr_rag.errors import (
    ClosedError,
    ConfigError,
    DeviceMemoryError,
    InputError,
    ModelLoadError,
    UnsupportedModelError,
)
from icr_rag.scoring import joint_attention as scoring_attention

TEXTS = ["Tin melts at 232 degrees.", "Lead is soft.", "Copper conducts heat well.", "Zinc."]
QUERY = "Which metal melts first?"


def tiny(**fields):
    fields = {"layers": (1, 2), **fields}
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **fields)


# --- life cycle -------------------------------------------------------------------------------


@pytest.fixture
def saved_model(tmp_path, tokenizer):
    tiny_model("llama").save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return str(tmp_path)


def test_loading_leaves_upper_layers_out_and_gives_the_same_scores(saved_model):
    reranker = Reranker(model=saved_model, layers=(1, 2), dtype="float32", device="cpu")
    assert reranker.rank(QUERY, TEXTS).scores == pytest.approx(
        tiny().rank(QUERY, TEXTS).scores, abs=1e-6
    )
    decoder = reranker.engine.decoder
    assert len(decoder.layers) == 3
    assert not any("lm_head" in name for name, _ in decoder.named_parameters())


def test_same_settings_share_weights_and_close_frees_them(saved_model):
    settings_ = {"model": saved_model, "layers": (1, 2), "dtype": "float32", "device": "cpu"}
    one, two = Reranker(**settings_), Reranker(**settings_, top_n=1, order="given")
    assert one.engine is two.engine
    assert Reranker(**{**settings_, "layers": (0, 1)}).engine is not one.engine
    weights = weakref.ref(one.engine.decoder)
    one.close()
    gc.collect()
    assert weights() is not None
    two.close()
    gc.collect()
    assert weights() is None
    with pytest.raises(ClosedError):
        one.rank(QUERY, TEXTS)


def test_context_manager_closes():
    with tiny() as reranker:
        assert reranker.warm_up() is reranker
    with pytest.raises(ClosedError):
        asyncio.run(reranker.arank(QUERY, TEXTS))


def test_pickle_and_deepcopy(saved_model):
    reranker = Reranker(model=saved_model, layers=(1, 2), dtype="float32")
    scores = reranker.rank(QUERY, TEXTS).scores
    assert pickle.loads(pickle.dumps(reranker)).rank(QUERY, TEXTS).scores == scores
    assert copy.deepcopy(reranker) is reranker
    with pytest.raises(InputError, match="cannot be pickled"):
        pickle.dumps(tiny())


def test_missing_weights_are_an_error(saved_model, tmp_path):
    from safetensors.torch import load_file, save_file

    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"lacks weights.*layers\.1\.mlp"):
        Reranker(model=saved_model, layers=(1, 2)).warm_up()


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"layers": (1, 9)}, ConfigError, "has layers 0 to 4"),
        ({"heads": [(1, 7)]}, ConfigError, "heads 0 to 3"),
        ({"quantization": "4bit"}, ImportError, "bitsandbytes"),
        ({"attn_implementation": "flash_attention_2"}, ImportError, "flash-attn"),
        ({"device": "cuda:7"}, ConfigError, "CUDA device"),
    ],
)
def test_settings_that_do_not_fit_are_named(saved_model, fields, error, message):
    with pytest.raises(error, match=message):
        Reranker(model=saved_model, **fields).warm_up()


def test_a_model_that_is_not_there():
    with pytest.raises(ModelLoadError, match="'no/such-model' could not be loaded"):
        Reranker(model="no/such-model", local_files_only=True).warm_up()
    with pytest.raises(UnsupportedModelError, match="no list of decoder layers"):
        Reranker.from_model(torch.nn.Linear(2, 2), byte_tokenizer())


def test_out_of_memory_halves_the_chunk_then_says_so(monkeypatch):
    reranker = tiny(layers=(1, 2))
    expected = reranker.rank(QUERY, TEXTS).scores
    engine = reranker.engine
    engine.chunk = 4096
    tried = []
    original = scoring_attention.read_tails

    def short_of_memory(*args, chunk, **kwargs):
        tried.append(chunk)
        if chunk > limit:
            raise torch.OutOfMemoryError("no room")
        return original(*args, chunk=chunk, **kwargs)

    monkeypatch.setattr(scoring_attention, "read_tails", short_of_memory)
    limit = 60
    assert reranker.rank(QUERY, TEXTS).scores == pytest.approx(expected, abs=1e-6)
    assert tried[0] == 4096
    assert tried[1:] == sorted(tried[1:], reverse=True)
    assert tried[-1] <= limit
    assert engine.chunk == tried[-1]  # what did not fit once is not tried again
    limit = 0
    with pytest.raises(DeviceMemoryError, match="prefill chunk of"):
        reranker.rank(QUERY, TEXTS)


def test_importing_is_cheap():
    code = "import sys, icr_rag; icr_rag.Reranker(model='x'); print('torch' in sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "False"


def test_repr_shows_what_differs_from_the_defaults():
    assert repr(Reranker(layers=(1, 2))) == "Reranker(layers=(1, 2))"
    assert RerankerConfig().model == "smollm2-135m"


@pytest.mark.real_weights
def test_loading_holds_only_the_lower_layers(embedded_folder):
    from transformers import AutoModelForCausalLM

    def layer_weights(decoder):
        return sum(p.numel() for name, p in decoder.named_parameters() if "layers." in name)

    whole = AutoModelForCausalLM.from_pretrained(embedded_folder, dtype=torch.float32)
    held = layer_weights(Reranker(layers=(10, 13), dtype="float32").engine.decoder)
    assert held / layer_weights(whole) < 0.6


def test_weights_handed_in_have_their_own_name(tokenizer):
    """Not the default's, which traces would show and saved settings would load."""
    model = tiny_model("llama")
    assert tiny().config.model == "LlamaForCausalLM"
    named = Reranker.from_model(model, tokenizer, RerankerConfig(model="mine"))
    assert named.config.model == "mine"
    with pytest.raises(ModelLoadError):
        Reranker(RerankerConfig.from_dict(tiny().config.to_dict()), local_files_only=True).warm_up()


def test_changed_settings_share_the_weights():
    reranker = tiny()
    other = reranker.with_config(layers=(0, 0))
    assert other.config.layers == (0, 0)
    assert reranker.config.layers == (1, 2)
    first, second = (next(r.engine.decoder.parameters()) for r in (reranker, other))
    assert first.data_ptr() == second.data_ptr()
    assert reranker.with_config(model="org/other").config.model == "org/other"


def test_warming_up_hides_no_failure():
    tiny(fusion="weighted").warm_up()
    with pytest.raises(ModelLoadError):
        Reranker(model="no/such-model", local_files_only=True, on_error="passthrough").warm_up()
