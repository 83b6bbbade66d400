"""GGUF files: converted once into a Hugging Face folder, which loads in about a second.

transformers reads GGUF by dequantising every tensor, which takes tens of seconds each time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from icr_rag.errors import ModelLoadError, require
from icr_rag.model.cache import build_folder, cache_root

#: Raised when the layout of converted folders changes, so that old ones are not reused.
_FORMAT = "1"


def ensure_converted(source: Path, cache_dir: str | Path | None = None) -> Path:
    """The converted folder of a GGUF file, made on first use and found again by content.

    Raises:
        ModelLoadError: if the file is missing, is not GGUF, or holds an architecture that
            transformers cannot read.
        MissingDependencyError: if the ``gguf`` extra is not installed.
    """
    if not source.is_file():
        raise ModelLoadError(f"no GGUF file at {source}; check the path given as `model`")
    digest = file_hash(source)
    folder = cache_root(cache_dir) / "gguf" / f"{source.stem}-{digest[:16]}"
    return build_folder(folder, f"{_FORMAT}:{digest}", lambda target: convert_gguf(source, target))


def convert_gguf(source: Path, target: Path) -> None:
    """Write the model and tokenizer in ``source`` into the folder ``target``, as float32.

    Raises:
        ModelLoadError: if the file cannot be read.
        MissingDependencyError: if the ``gguf`` extra is not installed.
    """
    require("gguf", "gguf", "Reading GGUF files")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        with _no_progress_bars():
            loaded = AutoModelForCausalLM.from_pretrained(
                source.parent, gguf_file=source.name, dtype=torch.float32
            )
            tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
            config = loaded.config
            # Marks the weights as quantised, which they no longer are.
            if hasattr(config, "quantization_config"):
                del config.quantization_config
            # A fresh model, because the loaded one refuses to be saved as what it now is.
            plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            plain.load_state_dict(loaded.state_dict())
            plain.save_pretrained(target)
            tokenizer.save_pretrained(target)
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        raise ModelLoadError(
            f"{source} could not be converted ({_architecture(source)}): "
            f"{' '.join(str(error).split())[:300]}"
        ) from error


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _architecture(source: Path) -> str:
    from gguf import GGUFReader

    try:
        field = GGUFReader(source).fields["general.architecture"]
        return f"architecture {bytes(field.parts[-1]).decode()!r}"
    except (ValueError, KeyError, OSError, IndexError):
        return "not a readable GGUF file"


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Three bars of three libraries say less than the one line that is logged."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
