"""GGUF files: converted once into a Hugging Face folder, which loads in about a second.

transformers reads GGUF by dequantising every tensor, which takes tens of seconds each time. The
converted folder holds float32, as dequantisation computes it, nothing rounded again: about seven
times the size of a 4-bit file.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from pathlib import Path
from typing import Any

from icr_rag.errors import ModelLoadError, require
from icr_rag.model.cache_folder import build_folder, cache_root
from icr_rag.model.gguf_header import read_header
from icr_rag.model.weight_files import fault

logger = logging.getLogger(__name__)

#: Raised when the content of converted folders changes, so that old ones are not reused.
FORMAT = "2"

#: Values of "tokenizer.ggml.pre" whose text is cut at every digit before byte-level BPE.
#: transformers has no entry for them and would leave the digits together, which changes the tokens
#: of whitespace in front of numbers.
_SPLITS_DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone")


def ensure_converted(source: Path, cache_dir: str | Path | None = None) -> Path:
    """The converted folder of a GGUF file, made on first use and found again by content.

    Raises:
        ModelLoadError: if the file is missing, is not GGUF, or holds an architecture that
            transformers cannot read.
        MissingDependencyError: if the ``gguf`` extra is not installed.
    """
    if not source.is_file():
        raise ModelLoadError(f"no GGUF file at {source}; check the path given as `model`")
    root = cache_root(cache_dir) / "gguf"
    digest = _known_hash(source, root)
    folder = root / f"{source.stem}-{digest[:16]}"

    def build(target: Path) -> None:
        logger.info("converting %s into %s, once", source, folder)
        convert_gguf(source, target)
        _remember_hash(source, root, digest)

    return build_folder(folder, f"{FORMAT}:{digest}", build)


def convert_gguf(source: Path, target: Path) -> None:
    """Write the model and tokenizer in ``source`` into the folder ``target``, as float32.

    Raises:
        ModelLoadError: if the file cannot be read; names its architecture.
        MissingDependencyError: if the ``gguf`` extra is not installed.
    """
    require("gguf", "gguf", "Reading GGUF files")
    from icr_rag.model._transformers import without_progress_bars

    architecture, splitting = describe(source)
    try:
        with without_progress_bars():
            _convert(source, target, splitting)
    # transformers, gguf, numpy and tokenizers raise whatever a value leads them to.
    except Exception as error:
        raise ModelLoadError(
            f"{source} (architecture {architecture!r}) could not be converted: "
            f"{_reason(error)} -- if the file is whole and transformers "
            "cannot read this architecture from GGUF, give the model's Hugging Face folder instead"
        ) from error


def gguf_config(source: Path) -> Any:
    """transformers' configuration of the model in a GGUF file; no weight is read.

    Raises:
        ModelLoadError: if the file cannot be read; names its architecture.
        MissingDependencyError: if the ``gguf`` extra is not installed.
    """
    require("gguf", "gguf", "Reading GGUF files")
    from transformers import AutoConfig

    architecture, _ = describe(source)
    try:
        return AutoConfig.from_pretrained(source.parent, gguf_file=source.name)
    except Exception as error:
        raise ModelLoadError(
            f"{source} (architecture {architecture!r}) cannot be read: {_reason(error)} -- if "
            "transformers cannot read this architecture from GGUF, give the model's Hugging Face "
            "folder instead"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _convert(source: Path, target: Path, splitting: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    outcome: Any = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=torch.float32, output_loading_info=True
    )
    loaded, report = outcome
    if report["missing_keys"]:
        # transformers fills them with random numbers and only warns.
        raise ValueError(f"it lacks the weights {sorted(map(str, report['missing_keys']))[:5]}")
    config = loaded.config
    # Marks the weights as quantised, which they no longer are.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    # A new model around the same tensors, because the loaded one refuses to be saved unquantised.
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(loaded.state_dict(), assign=True)
    plain.tie_weights()
    plain.save_pretrained(target)

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    if splitting in _SPLITS_DIGITS:
        _split_digits(tokenizer)
    tokenizer.save_pretrained(target)


def _split_digits(tokenizer: Any) -> None:
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


def describe(source: Path) -> tuple[str, str]:
    """The file's architecture, and how its tokenizer splits text ("" if it does not say).

    Raises:
        ModelLoadError: if the file is no GGUF file, is cut off, or announces more than it holds.
    """
    found = fault(source)
    if found is not None:
        raise ModelLoadError(f"not a readable GGUF file: {found}")
    try:
        header = read_header(source)
    except (OSError, ValueError) as error:
        raise ModelLoadError(
            f"{source} ({source.stat().st_size} bytes) is not a readable GGUF file: "
            f"{_reason(error)}; it may be cut off or of another format"
        ) from error
    return header.text("general.architecture"), header.text("tokenizer.ggml.pre")


def _known_hash(source: Path, root: Path) -> str:
    """The file's hash: noted at its conversion, or read from its gigabytes."""
    try:
        return _note(source, root).read_text(encoding="utf-8")
    except OSError:
        return file_hash(source)


def _remember_hash(source: Path, root: Path, digest: str) -> None:
    note = _note(source, root)
    note.parent.mkdir(parents=True, exist_ok=True)
    # Not by tempfile, whose files are their owner's alone: others could not read the note.
    temporary = note.with_name(f"{note.name}.{uuid.uuid4().hex}")
    temporary.write_text(digest, encoding="utf-8")
    temporary.replace(note)


def _note(source: Path, root: Path) -> Path:
    """Where the hash of this file, as it is now, is noted; changed files get a new place."""
    status = source.stat()
    state = f"{source.resolve()}\0{status.st_size}\0{status.st_mtime_ns}"
    return root / "hashes" / hashlib.sha256(state.encode("utf-8", "surrogateescape")).hexdigest()
