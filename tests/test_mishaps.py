"""Everything that may be wrong with what a user gives as model or tokenizer: one error of ours,
that names the thing and the way out."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers
from gguf_files import write_gguf
from safetensors.torch import load_file, save_file
from tiny import byte_tokenizer, tiny_model
from transformers import PreTrainedTokenizerFast

from icr_rag import Reranker, RerankerConfig
from icr_rag.cli.doctor import examine
from icr_rag.errors import ICRError, InputError, ModelLoadError

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
WEIGHTS = "model.safetensors"


def replace(name, content):
    """A mishap: the file ``name`` of a model's folder holds something else."""

    def damage(folder):
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder

    return damage


def cut(name, share):
    def damage(folder):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: int(len(whole) * share)])
        return folder

    return damage


def only(*names):
    """The folder with these of its files alone."""

    def damage(folder):
        for path in folder.iterdir():
            if path.name not in names:
                path.unlink()
        return folder

    return damage


def without(*names):
    def damage(folder):
        for name in names:
            (folder / name).unlink()
        return folder

    return damage


def header(length=None, **entries):
    """A safetensors file with that header, and eight bytes of tensors."""
    text = json.dumps(entries).encode()
    size = len(text) if length is None else length
    return size.to_bytes(8, "little") + text + b"\0" * 8


def changed_config(**fields):
    def damage(folder):
        path = folder / "config.json"
        values = json.loads(path.read_text())
        path.write_text(json.dumps({**values, **fields}))
        return folder

    return damage


def without_config_field(*names):
    def damage(folder):
        path = folder / "config.json"
        values = json.loads(path.read_text())
        path.write_text(json.dumps({k: v for k, v in values.items() if k not in names}))
        return folder

    return damage


def sharded(table, there=()):
    def damage(folder):
        for name in there:
            shutil.copy(folder / WEIGHTS, folder / name)
        (folder / WEIGHTS).unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps(table))
        return folder

    return damage


def pickled(folder):
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    return folder


def adapter(with_config):
    def damage(folder):
        keep = ["tokenizer.json", "tokenizer_config.json"] + ["config.json"] * with_config
        only(*keep)(folder)
        (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
        (folder / "adapter_model.safetensors").write_bytes(header())
        return folder

    return damage


def larger_tokenizer(folder):
    larger = byte_tokenizer()
    larger.add_tokens([f"verylongword{number}" for number in range(6)])
    larger.save_pretrained(folder)
    return folder


def encoder(kind):
    def damage(folder):
        for path in folder.glob("model*"):
            path.unlink()
        config = getattr(transformers, f"{kind}Config")(
            vocab_size=264, hidden_size=32, intermediate_size=48, num_hidden_layers=5,
            num_attention_heads=4, pad_token_id=0, bos_token_id=1, eos_token_id=2,
            cls_token_id=1, sep_token_id=2,
        )  # fmt: skip
        getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
        return folder

    return damage


def mamba():
    config = transformers.MambaConfig(
        vocab_size=264, hidden_size=32, num_hidden_layers=2, state_size=4
    )
    return transformers.MambaForCausalLM(config)


def of_mamba(folder):
    mamba().save_pretrained(folder)
    return folder


def remote_code(folder):
    return changed_config(
        model_type="madeup", auto_map={"AutoConfig": "configuration_madeup.MadeUp"}
    )(folder)


def emptied(folder):
    return only()(folder)


def missing_weights(folder):
    weights = load_file(folder / WEIGHTS)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def other_shape(folder):
    weights = load_file(folder / WEIGHTS)
    weights["model.layers.0.mlp.up_proj.weight"] = torch.zeros(3, 3)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def hub_cache(folder):
    (folder / "snapshots").mkdir()
    return only("snapshots")(folder) if not emptied_but_folders(folder) else folder


def emptied_but_folders(folder):
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
    return True


def gguf_inside(folder):
    emptied_but_folders(folder)
    (folder / "m.Q4.gguf").write_bytes(b"GGUF")
    return folder


def as_file(name, content):
    def damage(folder):
        path = folder.parent / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return damage


#: mishap -> (how it comes about, words that the message holds besides the value).
FOLDERS = {
    "pointer as weights": (replace(WEIGHTS, POINTER), ["git-LFS pointer", "git lfs pull"]),
    "pointer as tokenizer": (replace("tokenizer.json", POINTER), ["git lfs pull"]),
    "pointer as configuration": (replace("config.json", POINTER), ["git lfs pull"]),
    "pointer as index": (
        lambda f: replace("model.safetensors.index.json", POINTER)(without(WEIGHTS)(f)),
        ["git lfs pull"],
    ),
    "no bytes of weights": (replace(WEIGHTS, ""), ["empty", "again"]),
    "no bytes of tokenizer": (replace("tokenizer.json", ""), ["empty", "again"]),
    "half of the weights": (cut(WEIGHTS, 0.5), ["cut off", "again"]),
    "most of the weights": (cut(WEIGHTS, 0.999), ["cut off", "again"]),
    "bytes too many": (
        lambda f: replace(WEIGHTS, (f / WEIGHTS).read_bytes() + b"more")(f),
        ["bytes too many", "again"],
    ),
    "part of a header": (cut(WEIGHTS, 0.01), ["cut off", "again"]),
    "a web page as weights": (replace(WEIGHTS, "<!doctype html><title>Log in"), ["again"]),
    "a header of 2^60 bytes": (replace(WEIGHTS, header(2**60)), ["header of", "again"]),
    "a header that is no JSON": (replace(WEIGHTS, (9).to_bytes(8, "little") + b"{" * 9), ["again"]),
    "a header nested deep": (
        replace(WEIGHTS, (90_000).to_bytes(8, "little") + b"[" * 90_000),
        ["nested too deep", "again"],
    ),
    "offsets of 2^60": (
        replace(WEIGHTS, header(a={"dtype": "F32", "shape": [1], "data_offsets": [0, 2**60]})),
        ["cut off", "again"],
    ),
    "offsets below zero": (
        replace(WEIGHTS, header(a={"dtype": "F32", "shape": [1], "data_offsets": [-8, 0]})),
        ["no offsets", "again"],
    ),
    "a shape that does not fit": (
        replace(WEIGHTS, header(a={"dtype": "F32", "shape": [2**60], "data_offsets": [0, 8]})),
        ["could not be loaded"],
    ),
    "an unknown number type": (
        replace(WEIGHTS, header(a={"dtype": "X9", "shape": [2], "data_offsets": [0, 8]})),
        ["could not be loaded"],
    ),
    "no weights": (without(WEIGHTS), ["no weights", "incomplete"]),
    "a weight missing": (missing_weights, ["lacks weights", "incomplete"]),
    "a weight of another shape": (other_shape, ["other shapes", "config.json"]),
    "pickled weights": (pickled, ["pickle", "save_pretrained"]),
    "shards missing": (
        sharded({"weight_map": {"a": "model-00001-of-00002.safetensors"}}),
        ["model-00001-of-00002.safetensors is missing", "incomplete"],
    ),
    "a shard outside": (sharded({"weight_map": {"a": "../../etc/x"}}), ["no name of a file"]),
    "a shard that is a number": (sharded({"weight_map": {"a": 1}}), ["no name of a file"]),
    "an index of nothing": (sharded({"weight_map": {}}), ["weight_map", "again"]),
    "an index that is a list": (sharded([]), ["not an object", "again"]),
    "half a configuration": (cut("config.json", 0.5), ["not a readable JSON file", "again"]),
    "a configuration of another kind": (replace("config.json", "[1]"), ["not an object"]),
    "a configuration nested deep": (replace("config.json", "[" * 99_999), ["nested too deep"]),
    "a model type not known": (changed_config(model_type="madeup"), ["madeup"]),
    "no model type": (without_config_field("model_type", "architectures"), ["model_type"]),
    "layers that are no number": (changed_config(num_hidden_layers="many"), ["num_hidden_layers"]),
    "layers that there are not": (changed_config(num_hidden_layers=10**9), ["num_hidden_layers"]),
    "a width that there is not": (changed_config(hidden_size=2**40), ["cannot hold"]),
    "words that there are not": (changed_config(vocab_size=2**50), ["cannot hold"]),
    "no layers": (changed_config(num_hidden_layers=0), ["num_hidden_layers"]),
    "no heads": (changed_config(num_attention_heads=0), ["num_attention_heads"]),
    "layers below zero": (changed_config(num_hidden_layers=-3), ["num_hidden_layers"]),
    "no configuration": (without("config.json"), ["no config.json", "save_pretrained"]),
    "only an adapter": (adapter(False), ["adapter", "'org/base'", "merge_and_unload"]),
    "an adapter with a configuration": (adapter(True), ["'org/base'", "merge_and_unload"]),
    "code to be trusted": (remote_code, ["trust_remote_code=True"]),
    "no tokenizer": (without("tokenizer.json", "tokenizer_config.json"), ["no tokenizer"]),
    "half a tokenizer": (cut("tokenizer.json", 0.5), ["tokenizer.json", "again"]),
    "a tokenizer of no kind": (replace("tokenizer.json", '{"model": {"type": "No"}}'), ["model="]),
    "a larger tokenizer": (larger_tokenizer, ["up to 265", "embeddings for 0 to 263"]),
    "an encoder": (encoder("Bert"), ["encoder (bert)", "decoder-only"]),
    "a modern encoder": (encoder("ModernBert"), ["encoder (modernbert)", "decoder-only"]),
    "a model without attention": (of_mamba, ["'mamba' has no attention heads", "likelihood"]),
    "an empty folder": (emptied, ["is empty"]),
    "a folder of the hub's cache": (hub_cache, ["snapshots", "hub name"]),
    "a folder of GGUF files": (gguf_inside, ["m.Q4.gguf"]),
    "a file of text": (as_file("notes.txt", "hello"), ["a folder is due"]),
    "a file of weights": (as_file("a.safetensors", header()), ["folder that holds it"]),
    "a pointer as GGUF": (as_file("m.gguf", POINTER), ["git lfs pull"]),
    "a GGUF file of nothing": (as_file("m.GGUF", ""), ["m.GGUF", "empty"]),
    "a GGUF file of another kind": (as_file("m.Gguf", "PK\3\4" * 99), ["not a readable GGUF"]),
}

#: What doctor, which reads no weights and no tokenizer, does not see.
UNSEEN = {
    "a shape that does not fit",
    "an unknown number type",
    "a weight missing",
    "a weight of another shape",
    "a tokenizer of no kind",
    "a larger tokenizer",
    "a width that there is not",
    "words that there are not",
}


@pytest.mark.parametrize("mishap", FOLDERS)
def test_what_is_wrong_with_a_models_files_is_told(mishap, model_folder, tmp_path):
    damage, words = FOLDERS[mishap]
    folder = tmp_path / "a model"
    shutil.copytree(model_folder, folder)
    path = damage(folder)
    config = RerankerConfig(
        model=str(path), layers="all", cache_dir=str(tmp_path / "cache"), local_files_only=True
    )
    asked = [lambda: Reranker(config).warm_up()]
    if mishap not in UNSEEN:
        asked.append(lambda: examine(config))
    for ask in asked:
        with pytest.raises(ModelLoadError) as caught:
            ask()
        message = str(caught.value)
        assert path.name in message or mishap == "a model without attention"
        for word in words:
            assert word in message
        assert len(message) < 1500


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("./models/qwen", ["there is nothing at", "models/qwen", "hub name"]),
        ("../qwen", ["there is nothing at"]),
        ("/no/such/folder", ["there is nothing at /no/such/folder"]),
        ("~/no-such-folder-here", ["there is nothing at"]),
        ("~nobody-of-this-name/x", ["cannot be looked up"]),
        ("models/qwen/base", ["no folder", "no name on the hub"]),
        ("models\\qwen", ["no folder", "no name on the hub"]),
        ("a name with blanks", ["no folder", "no name on the hub"]),
        ("org/", ["no folder", "no name on the hub"]),
        ("https://huggingface.co/org/name", ["no folder", "no name on the hub"]),
        (" ", ["no folder", "no name on the hub"]),
        ("a\0b", ["a\\x00b", "model"]),
        ("x" * 5000, ["model"]),
        ("none.gguf", ["no GGUF file at none.gguf"]),
        ("/no/M.GGUF", ["no GGUF file at /no/M.GGUF"]),
        ("none.safetensors", ["there is nothing at"]),
        ("no/such-model", ["'no/such-model' could not be loaded", "hub name"]),
    ],
)
def test_a_name_of_nothing_is_told(model, words):
    config = RerankerConfig(model=model, local_files_only=True)
    for ask in (lambda: Reranker(config).warm_up(), lambda: examine(config)):
        with pytest.raises(ModelLoadError) as caught:
            ask()
        for word in words:
            assert word in str(caught.value)
        assert "Repo id" not in str(caught.value)


def test_a_gguf_file_by_a_name_in_capitals(tmp_path):
    file = write_gguf(tmp_path / "M.GGUF", "llama", tiny_model("llama"))
    config = RerankerConfig(model=str(file), cache_dir=str(tmp_path / "cache"), layers="all")
    assert examine(config)["cost"]["layers"].endswith("of 5")
    assert len(Reranker(config).rank("a", ["b", "c"])) == 2


@pytest.mark.parametrize(
    "lie", [{"vocab_size": 2**24}, {"intermediate_size": 2**20}, {"num_hidden_layers": 900}]
)
@pytest.mark.parametrize("scoring", ["attention", "likelihood"])
def test_sizes_are_held_against_the_files_before_memory_is_taken(
    lie, scoring, model_folder, tmp_path, monkeypatch
):
    shutil.copytree(model_folder, tmp_path / "model")
    folder = changed_config(**lie)(tmp_path / "model")
    for loader in (transformers.AutoModel, transformers.AutoModelForCausalLM):
        monkeypatch.setattr(loader, "from_pretrained", lambda *a, **k: pytest.fail("loaded"))
    with pytest.raises(ModelLoadError, match=r"asks for \d+ weights.*cannot hold"):
        Reranker(model=str(folder), layers=(0, lie.get("num_hidden_layers", 5) - 1),
                 scoring=scoring).warm_up()  # fmt: skip


def test_pickled_weights_are_not_asked_for(model_folder, monkeypatch):
    """Whatever a hub holds beside them."""
    asked = []

    def load(*arguments, **keywords):
        asked.append(keywords["use_safetensors"])
        raise OSError("no file named model.safetensors")

    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", load)
    with pytest.raises(ModelLoadError, match=r"pickled weights never.*save_pretrained"):
        Reranker(model=model_folder).warm_up()
    assert asked == [True]


# --- from_model -----------------------------------------------------------------------------


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
    with pytest.raises(ModelLoadError, match="'mamba' has no attention heads"):
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
