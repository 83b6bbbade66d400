"""What the tap reads equals eager attention maps, number for number.

The reference is the model's own forward pass with ``output_attentions=True`` on the token ids that
the reading reports: all layers, all rows, all columns, no cache, no chunks.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import FAMILIES, NARROW, tiny_model

from icr_rag import Reranker
from icr_rag.model import reading as reading_module
from icr_rag.model import tap
from icr_rag.model.forward import read_tails
from icr_rag.model.view import find_decoder
from icr_rag.prompts.layout import Tail

TOLERANCE = 1e-5
DOCUMENTS = ["Tin melts at 232 degrees.", "Lead is soft.", "Copper conducts heat well."]
QUERY = "Which metal melts first?"


@pytest.fixture(scope="module", params=sorted({**FAMILIES, **NARROW}))
def family(request):
    return request.param, tiny_model(request.param)


def eager_maps(model, token_ids):
    with torch.no_grad():
        output = model(torch.tensor([token_ids]), output_attentions=True, use_cache=False)
    return [layer[0] for layer in output.attentions]


def expected(model, token_ids, rows, layers):
    maps = eager_maps(model, token_ids)
    return torch.stack([maps[layer][:, rows].mean(dim=1) for layer in layers])


def assert_reading_is_eager(model, reading):
    query = expected(model, reading.token_ids, reading.query_rows, reading.layers)
    torch.testing.assert_close(reading.query, query, atol=TOLERANCE, rtol=0)
    null = expected(model, reading.null_token_ids, reading.null_query_rows, reading.layers)
    shared = max(span.end for span in reading.spans)
    torch.testing.assert_close(
        reading.null[..., :shared], null[..., :shared], atol=TOLERANCE, rtol=0
    )
    assert not reading.null[..., reading.query_rows.start :].any()


@pytest.mark.parametrize("layers", ["all", (1, 2), (0, 0), (4, 4)])
@pytest.mark.parametrize("chunk", [None, 17])
def test_reading_equals_eager_maps(family, tokenizer, layers, chunk):
    _, model = family
    reranker = Reranker.from_model(model, tokenizer, layers=layers, prefill_chunk=chunk)
    assert_reading_is_eager(model, reranker.read_attention(QUERY, DOCUMENTS))


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_kernels_underneath_agree(family, tokenizer, kernel):
    _, model = family
    reranker = Reranker.from_model(
        model, tokenizer, layers="all", attn_implementation=kernel, prefill_chunk=29
    )
    assert_reading_is_eager(model, reranker.read_attention(QUERY, DOCUMENTS))


def test_double_query_equals_eager_maps(family, tokenizer):
    _, model = family
    reranker = Reranker.from_model(model, tokenizer, layers=(1, 3), double_query=True)
    reading = reranker.read_attention(QUERY, DOCUMENTS)
    assert_reading_is_eager(model, reading)
    text = tokenizer.decode(reading.token_ids)
    assert text.count(QUERY) == 2
    assert tokenizer.decode(reading.token_ids[reading.query_rows]).strip() == QUERY
    assert text.rindex(QUERY) > text.rindex("Please find")


def test_chosen_heads_are_read_and_no_others(family, tokenizer):
    _, model = family
    heads = [(1, 3), (1, 0), (3, 2)]
    reading = Reranker.from_model(model, tokenizer, heads=heads).read_attention(QUERY, DOCUMENTS)
    assert reading.layers == [1, 3]
    everything = expected(model, reading.token_ids, reading.query_rows, reading.layers)
    for place, layer in enumerate(reading.layers):
        for head in range(4):
            wanted = everything[place, head] * ((layer, head) in heads)
            torch.testing.assert_close(reading.query[place, head], wanted, atol=TOLERANCE, rtol=0)


token_lists = st.lists(st.integers(4, 250), min_size=1, max_size=70)


@settings(max_examples=60)
@given(
    name=st.sampled_from(["llama", "mistral_narrow", "gemma3", "phi3"]),
    prefix=token_lists,
    query=st.lists(st.integers(4, 250), min_size=1, max_size=12),
    null=st.lists(st.integers(4, 250), min_size=1, max_size=12),
    chunk=st.integers(1, 80),
    last=st.integers(0, 4),
    data=st.data(),
)
def test_any_length_chunk_and_depth(name, prefix, query, null, chunk, last, data):
    model = tiny_model(name)
    tails = []
    for ids in (query, null):
        stop = data.draw(st.integers(1, len(ids)))
        tails.append(Tail(ids, slice(data.draw(st.integers(0, stop - 1)), stop)))
    layers = list(range(data.draw(st.integers(0, last)), last + 1))
    readings = read_tails(find_decoder(model), prefix, tails, layers, chunk=chunk)
    for tail, reading in zip(tails, readings, strict=True):
        rows = slice(len(prefix) + tail.rows.start, len(prefix) + tail.rows.stop)
        wanted = expected(model, prefix + list(tail.token_ids), rows, layers)
        torch.testing.assert_close(
            reading, wanted[..., : reading.shape[-1]], atol=TOLERANCE, rtol=0
        )
        assert not wanted[..., reading.shape[-1] :].any()


def test_row_blocks_do_not_change_the_reading(llama, monkeypatch):
    tails = [Tail(list(range(10, 40)), slice(3, 30))]
    arguments = (find_decoder(llama), list(range(5, 105)), tails, [0, 3])
    whole = read_tails(*arguments, chunk=64)[0]
    monkeypatch.setattr(reading_module, "_MAX_LOGITS", 4 * 130 * 5)  # five rows at a time
    torch.testing.assert_close(read_tails(*arguments, chunk=64)[0], whole, atol=1e-6, rtol=0)


# --- sabotage: the tests above must notice what would go wrong most easily --------------------


def test_dropping_the_mask_function_is_noticed(tokenizer, llama, monkeypatch):
    reranker = Reranker.from_model(llama, tokenizer, layers="all")
    reranker.read_attention(QUERY, DOCUMENTS)
    # The model has proven itself, and does not do so again.
    monkeypatch.setattr(tap, "_packed", lambda mask_function, current, device: mask_function)
    reading = reranker.read_attention(QUERY, DOCUMENTS)
    with pytest.raises(AssertionError):
        assert_reading_is_eager(llama, reading)


def test_without_a_mask_nothing_is_read(tokenizer, llama, monkeypatch):
    from icr_rag.errors import UnsupportedModelError

    reranker = Reranker.from_model(llama, tokenizer, layers="all")
    reranker.read_attention(QUERY, DOCUMENTS)
    monkeypatch.setattr(tap, "_mask", lambda *a, **k: None)
    tap.register()
    with pytest.raises(UnsupportedModelError, match="no attention mask"):
        reranker.read_attention(QUERY, DOCUMENTS)


@pytest.mark.real_weights
@pytest.mark.parametrize("layers", ["all", (10, 13)])
def test_real_weights_equal_eager_maps(embedded_folder, layers):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        embedded_folder, attn_implementation="eager", dtype=torch.float32
    ).eval()
    reranker = Reranker(model="smollm2-135m", dtype="float32", layers=layers, prefill_chunk=64)
    assert_reading_is_eager(model, reranker.read_attention(QUERY, DOCUMENTS))
