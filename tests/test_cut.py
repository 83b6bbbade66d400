"""Only the lower layers are loaded where that changes nothing, and all of them where it would."""

from __future__ import annotations

import pytest
import torch
import transformers
from tiny import _COMMON, byte_tokenizer
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from icr_rag import Reranker
from icr_rag.model import cut
from icr_rag.model.cut import cut_changes_nothing
from icr_rag.model.view import decoder_layers

QUERY = "which metal?"
DOCUMENTS = ["tin melts", "oaks carry acorns", "lead is soft"]
LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}


def folder(tmp_path, kind, **changes):
    config = getattr(transformers, kind)(**{**_COMMON, **changes})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    model.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    return model


def test_layers_that_know_how_many_there_are_are_not_cut(tmp_path):
    if not hasattr(transformers, "MiniCPM3Config"):
        pytest.skip("this version of transformers has no model that scales by its layers")
    model = folder(tmp_path, "MiniCPM3Config", **LATENT)
    config = AutoConfig.from_pretrained(tmp_path)
    assert not cut_changes_nothing(config, config, 3, AutoModel)
    settings = {"layers": (1, 2), "framework": "pointwise", "fusion": "none"}
    loaded = Reranker(model=str(tmp_path), dtype="float32", **settings)
    whole = Reranker.from_model(model, byte_tokenizer(), **settings)
    expected = whole.rank(QUERY, DOCUMENTS).scores
    assert loaded.rank(QUERY, DOCUMENTS).scores == pytest.approx(expected, abs=1e-4)
    # What is not used is not held for all that.
    assert len(decoder_layers(loaded.engine.decoder)) == 3


def test_a_cut_that_would_change_numbers_is_noticed(tmp_path, monkeypatch):
    """The fault that the comparison finds, if nothing looked for it."""
    if not hasattr(transformers, "MiniCPM3Config"):
        pytest.skip("this version of transformers has no model that scales by its layers")
    model = folder(tmp_path, "MiniCPM3Config", **LATENT)
    monkeypatch.setattr(cut, "_numbers", lambda module: {})
    settings = {"layers": (1, 2), "framework": "pointwise", "fusion": "none"}
    loaded = Reranker(model=str(tmp_path), dtype="float32", **settings)
    whole = Reranker.from_model(model, byte_tokenizer(), **settings)
    assert loaded.rank(QUERY, DOCUMENTS).scores != pytest.approx(
        whole.rank(QUERY, DOCUMENTS).scores, abs=1e-4
    )


def test_ordinary_models_are_cut(tmp_path):
    folder(tmp_path, "Qwen3Config", head_dim=16)
    config = AutoConfig.from_pretrained(tmp_path)
    assert cut_changes_nothing(config, config, 3, AutoModel)
    loaded = Reranker(model=str(tmp_path), dtype="float32", layers=(1, 2))
    decoder = loaded.engine.decoder
    assert len(decoder_layers(decoder)) == 3
    # Whatever a forward pass computes from the number of layers is what it was.
    assert decoder.config.num_hidden_layers == 5
    assert len(decoder.config.layer_types) == 5


@pytest.mark.parametrize("kind", ["Qwen3MoeConfig", "Qwen3Config", "Gemma3TextConfig"])
def test_a_model_loaded_cut_has_the_configuration_of_one_loaded_whole(tmp_path, kind):
    """What loading itself writes into it too: how experts are run, the number format."""
    changes = {"head_dim": 16}
    if "Moe" in kind:
        changes |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    folder(tmp_path, kind, **changes)
    loaded = Reranker(model=str(tmp_path), dtype="float32", layers=(1, 2))
    whole = AutoModel.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager")
    found, wanted = vars(loaded.engine.decoder.config), vars(whole.config)
    assert {name: found.get(name) for name in wanted} == wanted
    assert len(loaded.rank(QUERY, DOCUMENTS)) == 3
