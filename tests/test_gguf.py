"""GGUF conversion: the same weights and tokens, once, and clear errors for what cannot be read."""

from __future__ import annotations

import copy
import sys

import gguf
import pytest
import torch
import transformers
from gguf_files import write_gguf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from icr_rag import Reranker
from icr_rag.errors import MissingDependencyError, ModelLoadError
from icr_rag.model import gguf as conversion
from icr_rag.model.gguf import convert_gguf, ensure_converted


def gemma3():
    """A tiny Gemma 3 whose logits are scaled as in every Gemma 3 that GGUF can describe."""
    config = copy.deepcopy(tiny_model("gemma3").config)
    config.query_pre_attn_scalar = 256
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", dtype=torch.float32
    ).eval()


@pytest.fixture(scope="module", params=["llama", "gemma3"])
def pair(request, tmp_path_factory):
    """(the model that was written, its GGUF file)."""
    model = gemma3() if request.param == "gemma3" else tiny_model(request.param)
    folder = tmp_path_factory.mktemp("gguf")
    return model, write_gguf(folder / f"{request.param}.gguf", request.param, model)


@pytest.fixture(scope="module")
def llama_file(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "m.gguf", "llama", tiny_model("llama"))


@pytest.fixture
def counted(monkeypatch):
    """The files that were converted, in order; the conversion itself is a stub."""
    sources = []

    def convert(source, target):
        sources.append(source)
        (target / "config.json").write_text(source.read_text(errors="replace")[:8])

    monkeypatch.setattr(conversion, "convert_gguf", convert)
    return sources


def test_converted_weights_and_outputs_are_the_models_own(pair, tmp_path):
    model, file = pair
    version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    if model.config.model_type == "gemma3_text" and version < (5, 20):
        pytest.skip("transformers before 5.20 reads a Gemma with SentencePiece's scores only")
    convert_gguf(file, tmp_path)
    converted = AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, attn_implementation="eager"
    )
    for name, tensor in model.state_dict().items():
        # Gemma's norms lose a bit when one is added and taken away again.
        torch.testing.assert_close(converted.state_dict()[name], tensor, atol=1e-6, rtol=0)
    ids = torch.arange(4, 204).reshape(1, -1)
    with torch.no_grad():
        torch.testing.assert_close(converted(ids).logits, model(ids).logits, atol=1e-4, rtol=1e-4)


def test_digits_are_split_where_the_file_says_so(llama_file, tmp_path):
    """The double space is one token, except in front of a digit, which stands alone."""
    convert_gguf(llama_file, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.tokenize("a  7") == ["a", "ĠĠ", "7"]
    assert tokenizer.tokenize("a  b") == ["a", "Ġ", "Ġ", "b"]


def test_a_converted_file_ranks_like_the_model_it_was_written_from(llama_file, tmp_path):
    documents = ["the tide", "the moon rises", "a harbour"]
    with Reranker(model=str(llama_file), cache_dir=tmp_path, layers="all") as reranker:
        found = reranker.rank("the moon", documents).scores
        same = Reranker.from_model(tiny_model("llama"), reranker.tokenizer, layers="all")
        assert same.rank("the moon", documents).scores == pytest.approx(found, abs=1e-6)


def test_converted_once_and_again_when_it_changes(counted, tmp_path):
    source = tmp_path / "m.gguf"
    source.write_text("one")
    first = ensure_converted(source, tmp_path / "cache")
    assert ensure_converted(source, tmp_path / "cache") == first
    assert len(counted) == 1
    source.write_text("three")
    assert ensure_converted(source, tmp_path / "cache") != first
    assert len(counted) == 2


def test_the_hash_is_noted_so_that_gigabytes_are_not_read_again(counted, tmp_path, monkeypatch):
    source = tmp_path / "m.gguf"
    source.write_text("one")
    first = ensure_converted(source, tmp_path / "cache")
    monkeypatch.setattr(conversion, "file_hash", lambda path: pytest.fail("read again"))
    assert ensure_converted(source, tmp_path / "cache") == first


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelLoadError, match="no GGUF file at"):
        ensure_converted(tmp_path / "x.gguf", tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_what_is_no_gguf_file_is_an_error(tmp_path, content):
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelLoadError, match=r"not a readable GGUF|could not be conv"):
        convert_gguf(path, tmp_path / "target")


@settings(max_examples=25)
@given(share=st.floats(0, 0.99))
def test_a_file_that_is_cut_off_is_an_error(llama_file, tmp_path_factory, share):
    folder = tmp_path_factory.mktemp("cut")
    whole = llama_file.read_bytes()
    (folder / "x.gguf").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ModelLoadError, match=r"x\.gguf"):
        ensure_converted(folder / "x.gguf", folder / "cache")
    assert [p for p in (folder / "cache").rglob("*") if p.is_file() and p.suffix != ".lock"] == []


def test_a_file_that_lacks_weights_is_an_error_not_random_numbers(tmp_path):
    file = write_gguf(
        tmp_path / "m.gguf", "llama", tiny_model("llama"), leave_out=("blk.1.ffn_up.weight",)
    )
    with pytest.raises(ModelLoadError, match=r"lacks the weights .*layers\.1\.mlp\.up_proj"):
        convert_gguf(file, tmp_path / "target")


def test_an_architecture_that_cannot_be_read_is_named(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "mysterious")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelLoadError, match="architecture 'mysterious'"):
        convert_gguf(tmp_path / "x.gguf", tmp_path / "target")


def test_without_the_extra_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    (tmp_path / "x.gguf").touch()
    with pytest.raises(MissingDependencyError, match=r"icr-rag\[gguf\]"):
        convert_gguf(tmp_path / "x.gguf", tmp_path)
