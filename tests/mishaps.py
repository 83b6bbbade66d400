"""Ways in which a model's folder may be damaged, and what is to be said of each."""

from __future__ import annotations

import json
import shutil

import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny import byte_tokenizer

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
    emptied(folder)
    (folder / "snapshots").mkdir()
    return folder


def gguf_inside(folder):
    emptied(folder)
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
    "a model without attention": (of_mamba, ["mamba models have no softmax attention"]),
    "an empty folder": (emptied, ["is empty"]),
    "a folder of the hub's cache": (hub_cache, ["snapshots", "hub name"]),
    "a folder of GGUF files": (gguf_inside, ["m.Q4.gguf"]),
    "a file of text": (as_file("notes.txt", "hello"), ["a folder is due"]),
    "a file of weights": (as_file("a.safetensors", header()), ["folder that holds it"]),
    "a pointer as GGUF": (as_file("m.gguf", POINTER), ["git lfs pull"]),
    "a GGUF file of nothing": (as_file("m.GGUF", ""), ["m.GGUF", "empty"]),
    "a GGUF file of another kind": (as_file("m.Gguf", "PK\3\4" * 99), ["not a readable GGUF"]),
}
