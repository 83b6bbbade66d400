"""Kept states answer for the weights as they are, whatever their owner does to them meanwhile."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker
from icr_rag.errors import UnsupportedModelError
from icr_rag.model.fingerprint import weights_fingerprint, weights_identity
from icr_rag.model.view import find_decoder

QUERY = "which metal melts first?"
DOCUMENTS = ["oaks carry acorns", "tin melts at 232 degrees", "lead is soft"]
TOKENIZER = byte_tokenizer()
SETTINGS = {
    "pointwise": {"framework": "pointwise"},
    "listwise": {"framework": "listwise"},
    "likelihood": {"scoring": "likelihood"},
    "mixed": {"scoring": "mixed"},
}


def in_place(model):
    with torch.no_grad():
        model.model.layers[1].self_attn.k_proj.weight.mul_(1.5)


def through_data(model):
    model.model.layers[1].self_attn.v_proj.weight.data.mul_(1.5)


def one_value(model):
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[3, 5] += 40.0


def another_tensor(model):
    layer = model.model.layers[1].self_attn
    layer.k_proj.weight = torch.nn.Parameter(layer.k_proj.weight.detach() * 1.5)


def embeddings(model):
    with torch.no_grad():
        model.model.embed_tokens.weight.roll(1, 0)
        model.model.embed_tokens.weight.mul_(1.3)


def number(model):
    model.model.layers[0].self_attn.scaling *= 1.5


CHANGES = [in_place, through_data, one_value, another_tensor, embeddings, number]


@pytest.mark.parametrize("way", SETTINGS)
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_changed_weights_are_noticed(change, way, tmp_path):
    model = copy.deepcopy(tiny_model("llama"))
    settings = {**SETTINGS[way], "fusion": "none"}
    if settings.get("scoring") != "likelihood":
        settings["layers"] = (1, 2)
    kept = Reranker.from_model(
        model, TOKENIZER, document_states="independent", states_dir=str(tmp_path), **settings
    )
    before = kept.rank(QUERY, DOCUMENTS)
    assert kept.rank(QUERY, DOCUMENTS).usage.tokens < before.usage.tokens
    change(model)
    after = kept.rank(QUERY, DOCUMENTS)
    # As a reranker that has never seen the old weights, bit for bit.
    other = Reranker.from_model(
        copy.deepcopy(model), TOKENIZER, document_states="independent", **settings
    )
    assert after.scores == other.rank(QUERY, DOCUMENTS).scores
    assert after.usage.tokens == before.usage.tokens
    assert after.scores != before.scores


def test_what_is_only_used_does_not_change():
    model = copy.deepcopy(tiny_model("llama"))
    decoder = find_decoder(model)
    before = weights_identity(decoder)
    kept = Reranker.from_model(model, TOKENIZER, document_states="independent", layers=(1, 2))
    kept.rank(QUERY, DOCUMENTS)
    model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=3, do_sample=False)
    model.train()
    model.eval()
    assert weights_identity(decoder) == before


def test_weights_made_in_inference_mode_are_looked_at_whole():
    model = copy.deepcopy(tiny_model("llama"))
    decoder = find_decoder(model)
    with torch.inference_mode():
        weight = decoder.layers[0].mlp.up_proj.weight.clone()
    decoder.layers[0].mlp.up_proj.weight = torch.nn.Parameter(weight, requires_grad=False)
    before = weights_identity(decoder)
    with torch.inference_mode():
        decoder.layers[0].mlp.up_proj.weight[7, 11] += 1
    assert weights_identity(decoder) != before


def test_tensors_outside_of_parameters_count():
    decoder = find_decoder(copy.deepcopy(tiny_model("llama")))
    attention = decoder.layers[0].self_attn
    attention.register_buffer("bias", torch.zeros(3))
    attention.scales = {"extra": torch.ones(2)}
    attention.plain = torch.ones(2)
    for change in (
        lambda: attention.bias.add_(1),
        lambda: attention.scales["extra"].add_(1),
        lambda: attention.plain.add_(1),
        lambda: setattr(attention, "strength", {"a": [1, 2.5]}),
    ):
        known = weights_identity(decoder), weights_fingerprint(decoder, 5)
        change()
        assert weights_identity(decoder) != known[0]
        assert weights_fingerprint(decoder, 5) != known[1]


def test_upper_layers_do_not_count_in_the_digest():
    decoder = find_decoder(copy.deepcopy(tiny_model("llama")))
    before = weights_fingerprint(decoder, 3)
    decoder.layers[3].mlp.up_proj.weight.data.mul_(2)
    assert weights_fingerprint(decoder, 3) == before
    decoder.layers[2].mlp.up_proj.weight.data.mul_(2)
    assert weights_fingerprint(decoder, 3) != before


# --- adapters ---------------------------------------------------------------------------------


def with_adapters():
    peft = pytest.importorskip("peft")

    def lora():
        return peft.LoraConfig(target_modules=["q_proj", "k_proj"], r=4, init_lora_weights=False)

    torch.manual_seed(1)
    model = peft.get_peft_model(copy.deepcopy(tiny_model("llama")), lora(), adapter_name="law")
    model.add_adapter("medicine", lora())
    return model.eval()


def lora_layers(model):
    return [m for m in model.modules() if hasattr(m, "set_scale") and hasattr(m, "scaling")]


ADAPTER_CHANGES = {
    "set": lambda model: model.set_adapter("medicine"),
    "scale": lambda model: [layer.set_scale("law", 3.0) for layer in lora_layers(model)],
    "disable": lambda model: model.base_model.disable_adapter_layers(),
    "merge": lambda model: model.merge_adapter(),
    "train": lambda model: [p.data.add_(0.1) for n, p in model.named_parameters() if "lora" in n],
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", ADAPTER_CHANGES)
def test_adapters_are_noticed(name):
    model = with_adapters()
    settings = {"layers": (1, 2), "framework": "pointwise", "fusion": "none"}
    kept = Reranker.from_model(model, TOKENIZER, document_states="independent", **settings)
    first = kept.rank(QUERY, DOCUMENTS).scores
    ADAPTER_CHANGES[name](model)
    after = kept.rank(QUERY, DOCUMENTS).scores
    plain = Reranker.from_model(model, TOKENIZER, **settings).rank(QUERY, DOCUMENTS).scores
    assert after == pytest.approx(plain, abs=1e-4)
    if name != "merge":
        assert after != pytest.approx(first, abs=1e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["PromptTuning", "PrefixTuning", "PromptEncoder"])
def test_virtual_tokens_are_refused(kind):
    peft = pytest.importorskip("peft")
    config = getattr(peft, f"{kind}Config")(task_type="CAUSAL_LM", num_virtual_tokens=4)
    model = peft.get_peft_model(copy.deepcopy(tiny_model("llama")), config)
    with pytest.raises(UnsupportedModelError, match="virtual tokens"):
        Reranker.from_model(model, TOKENIZER).rank(QUERY, DOCUMENTS)
    base = Reranker.from_model(model.get_base_model(), TOKENIZER)
    assert len(base.rank(QUERY, DOCUMENTS)) == 3


def test_rerankers_on_the_same_weights_share_what_is_kept():
    model = copy.deepcopy(tiny_model("llama"))
    kept = Reranker.from_model(model, TOKENIZER, document_states="independent", layers=(1, 2))
    first = kept.rank(QUERY, DOCUMENTS)
    fewer = kept.with_config(top_n=1).rank(QUERY, DOCUMENTS)
    assert fewer.usage.tokens < first.usage.tokens
    assert fewer.scores == first.scores


def test_what_found_no_room_is_counted_and_told(caplog):
    model = copy.deepcopy(tiny_model("llama"))
    documents = [f"document {number} " * 30 for number in range(300)]
    kept = Reranker.from_model(
        model, TOKENIZER, document_states="independent", layers=(1, 2), states_memory=1
    )
    done = kept.encode(documents)
    assert done.new == 300
    assert done.documents + done.evicted == 300
    assert 0 < done.documents < 300
    assert [r.message for r in caplog.records if "states_memory=1 MiB" in r.message]
    again = kept.rank(QUERY, documents)
    assert again.usage.states_evicted > 0
