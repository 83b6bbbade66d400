"""Everything that may be wrong with the files that `model` names: one error of ours, that names the
thing and the way out."""

from __future__ import annotations

import shutil

import pytest
import transformers
from gguf_files import write_gguf
from mishaps import FOLDERS, changed_config
from tiny import tiny_model

from icr_rag import Reranker, RerankerConfig
from icr_rag.cli.doctor import examine
from icr_rag.errors import ModelLoadError

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
    layers = {"layers": (0, lie.get("num_hidden_layers", 5) - 1)}
    fields = layers if scoring == "attention" else {}
    with pytest.raises(ModelLoadError, match=r"asks for \d+ weights.*cannot hold"):
        Reranker(model=str(folder), scoring=scoring, **fields).warm_up()


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
