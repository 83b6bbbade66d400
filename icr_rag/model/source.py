"""What ``model`` names, checked before transformers is asked.

transformers takes every text that is no folder for a name on the hub, and reads a folder file by
file until one fails, in words about that file. What can be seen at once is told here.
"""

from __future__ import annotations

import re
from pathlib import Path

from icr_rag.errors import ModelLoadError
from icr_rag.model.weight_files import fault, json_object, safetensors_fault, shards

#: What a hub name may look like: "name" or "owner/name".
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9_][\w.-]*)?", re.ASCII)
#: Ends of names of files.
_FILES = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".json", ".onnx", ".zip")
_ALLOWED = "`model` takes a hub name, a local Hugging Face folder, a .gguf file or 'smollm2-135m'"
_CONVERT = (
    "convert them where you trust them: AutoModelForCausalLM.from_pretrained(folder)"
    ".save_pretrained(new_folder), and the tokenizer likewise"
)
#: Size of the largest JSON file of a model: tokenizers of large vocabularies have some 30 MB.
_MOST_JSON = 512 * 2**20
#: Layers of the deepest model that is believed. A configuration of more would be built first.
_MOST_LAYERS = 10_000
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def named_path(model: str) -> Path | None:
    """The file or folder that ``model`` names; None: it is a name on the hub.

    Raises:
        ModelLoadError: if it can be neither, or there is nothing at that path.
    """
    try:
        path = Path(model).expanduser()
        there = path.exists()
        # A name too long, a folder that may not be entered, `~name` of nobody, a null character.
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelLoadError(f"model={model!r} cannot be looked up: {error}; {_ALLOWED}") from error
    if there and model.strip():
        return path
    if is_gguf(path):
        raise ModelLoadError(f"no GGUF file at {path}; check the path given as `model`")
    if path.is_absolute() or model.startswith((".", "~")) or model.lower().endswith(_FILES):
        raise ModelLoadError(
            f"model={model!r}: there is nothing at {path.absolute()}; check the path -- {_ALLOWED}"
        )
    if not _HUB_NAME.fullmatch(model):
        raise ModelLoadError(
            f"model={model!r} is no folder or file here, seen from {Path.cwd()}, and no name on "
            f"the hub ('name' or 'owner/name'); check the spelling -- {_ALLOWED}"
        )
    return None


def is_gguf(path: Path) -> bool:
    """Whether a path is that of a GGUF file, by its name, in whatever case."""
    return path.suffix.lower() == ".gguf" and not path.is_dir()


def check_folder(model: str, folder: Path) -> None:
    """Refuse what is no whole model folder.

    Raises:
        ModelLoadError: naming the file that is wrong or missing, and what to do.
    """
    try:
        if not folder.is_dir():
            raise ModelLoadError(_of_file(model, folder))
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise ModelLoadError(
            f"model={model!r}: {folder} cannot be read: {error.strerror}; check its permissions"
        ) from error
    if "config.json" not in names:
        raise ModelLoadError(f"model={model!r}: {_without_config(folder, names)}")
    config = _checked_json(model, folder / "config.json")
    for key in ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size"):
        size = config.get(key)
        if type(size) is int and size < 1:
            raise ModelLoadError(
                f"model={model!r}: {folder / 'config.json'} has {key}={size}; a whole number from "
                "1 is needed -- is the file damaged?"
            )
    _check_depth(model, folder / "config.json", config)
    for name in _TOKENIZER_FILES:
        if name in names:
            _checked_json(model, folder / name)
    _check_weights(model, folder, names, config)
    if not any(_of_tokenizer(name) for name in names):
        raise ModelLoadError(
            f"model={model!r}: {folder} holds no tokenizer (tokenizer.json); save the model's own "
            "there: AutoTokenizer.from_pretrained(name).save_pretrained(folder)"
        )


def _of_tokenizer(name: str) -> bool:
    return (
        name.startswith(("tokeni", "vocab", "tekken")) or name.endswith((".model", ".tiktoken"))
    )  # fmt: skip


def _of_file(model: str, file: Path) -> str:
    found = fault(file)
    if found is not None and file.exists():
        return f"model={model!r}: {found}"
    if file.suffix.lower() == ".safetensors":
        advice = f"give the folder that holds it and its config.json: {str(file.parent)!r}"
    else:
        advice = _ALLOWED
    return f"model={model!r} is a file where a folder is due; {advice}"


def _without_config(folder: Path, names: list[str]) -> str:
    if "adapter_config.json" in names:
        try:
            base = json_object(folder / "adapter_config.json", _MOST_JSON)
            of = f" of {base.get('base_model_name_or_path')!r}"
        except (OSError, ValueError):
            of = ""
        return (
            f"{folder} holds an adapter{of} and no model; merge it into its base "
            "(peft: merge_and_unload(), then save_pretrained, with the tokenizer), or give base "
            "and adapter, loaded, to Reranker.from_model"
        )
    files = [name for name in names if name.lower().endswith(".gguf")]
    if files:
        return f"{folder} holds GGUF files; give one of them: {str(folder / files[0])!r}"
    if "snapshots" in names:
        return (
            f"{folder} is a folder of the hub's cache; give the model's hub name, or the folder "
            f"in {folder / 'snapshots'} that holds config.json"
        )
    if not names:
        return f"{folder} is empty; {_ALLOWED}"
    holds = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    return (
        f"{folder} has no config.json (it holds {holds}); is it the folder that save_pretrained "
        "wrote, or that was downloaded whole?"
    )


def _checked_json(model: str, path: Path) -> dict[str, object]:
    found = fault(path)
    if found is not None:
        raise ModelLoadError(f"model={model!r}: {found}")
    try:
        return json_object(path, _MOST_JSON)
    except (OSError, ValueError) as error:
        raise ModelLoadError(
            f"model={model!r}: {path} is not a readable JSON file ({error}); download or copy it "
            "again"
        ) from error


def _check_depth(model: str, path: Path, config: dict[str, object]) -> None:
    for key, value in config.items():
        if isinstance(value, dict):
            _check_depth(model, path, value)
        elif key.endswith(("layers", "n_layer")) and type(value) is int and value > _MOST_LAYERS:
            raise ModelLoadError(
                f"model={model!r}: {path} asks for {key}={value}; no model has more than "
                f"{_MOST_LAYERS} layers -- is the file damaged?"
            )


def _check_weights(model: str, folder: Path, names: list[str], config: dict[str, object]) -> None:
    if "transformers_weights" in config:
        return  # the configuration names a file of its own
    index = folder / "model.safetensors.index.json"
    if "model.safetensors" in names:
        files = [folder / "model.safetensors"]
    elif index.name in names:
        found = fault(index)
        if found is not None:
            raise ModelLoadError(f"model={model!r}: {found}")
        try:
            files = shards(index, _MOST_JSON)
        except (OSError, ValueError) as error:
            raise ModelLoadError(
                f"model={model!r}: {index} is no index of weights ({error}); download or copy it "
                "again"
            ) from error
    else:
        raise ModelLoadError(f"model={model!r}: {_without_weights(folder, names)}")
    for file in files:
        found = safetensors_fault(file)
        if found is not None:
            raise ModelLoadError(f"model={model!r}: {found}")


def _without_weights(folder: Path, names: list[str]) -> str:
    pickled = [name for name in names if name.endswith((".bin", ".pt", ".pth"))]
    if "adapter_config.json" in names:
        return _without_config(folder, names)
    if pickled:
        return (
            f"{folder} holds pickled weights only ({pickled[0]}); pickles can run code and are "
            f"never loaded; {_CONVERT}"
        )
    return (
        f"{folder} holds no weights (model.safetensors, or model.safetensors.index.json and its "
        "shards); the download or copy may be incomplete"
    )


def hint(reason: str) -> str:
    """What to do about an error of transformers, by what it says."""
    if "trust_remote_code" in reason:
        return (
            "the model needs Python code that comes with it and is not part of transformers; read "
            "that code, and where you trust it set trust_remote_code=True"
        )
    if "mismatch" in reason:
        return (
            "its weights have other shapes than its config.json says; are both of the same model, "
            "and whole?"
        )
    if "safetensors" in reason or ".bin" in reason:
        return f"only safetensors are loaded, pickled weights never; {_CONVERT}"
    return _ALLOWED
