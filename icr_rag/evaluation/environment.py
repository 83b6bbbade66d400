"""Where numbers come from: versions and hardware."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

from icr_rag import __version__

_PACKAGES = ("torch", "transformers", "tokenizers", "ir-measures")
_WEIGHTS = (".safetensors", ".bin", ".gguf")
_MODEL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def versions() -> dict[str, str | None]:
    """Versions of what decides the numbers; None for a package that is not installed."""
    found: dict[str, str | None] = {"icr_rag": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def hardware() -> dict[str, str | int | None]:
    """The machine; of torch only what it says once it is imported."""
    torch = sys.modules.get("torch")
    accelerator = None
    if torch is not None and torch.cuda.is_available():
        accelerator = torch.cuda.get_device_name(0)
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cpus": os.cpu_count(),
        "torch_threads": None if torch is None else torch.get_num_threads(),
        "accelerator": accelerator,
    }


def device_of(reranker: object) -> str | None:
    """Where a reranker's weights are and their type; None for one that has no engine."""
    engine = getattr(reranker, "engine", None)
    if engine is None:
        return None
    device: str = engine.device
    if device.startswith("cuda"):
        device = f"{device} ({sys.modules['torch'].cuda.get_device_name(device)})"
    return f"{device} {engine.dtype.dtype}"


def local_files(model: str) -> list[tuple[str, int, int]]:
    """Name, size and time of change of each file that decides what a local model computes.

    Tells weights that were trained on from those that lay under the same name before. Empty for
    a model that is not local.
    """
    path = Path(model).expanduser()
    if path.is_file():
        files = [path]
    elif path.is_dir():
        # Not all files: the evaluation's own may be written to this folder.
        files = [f for f in path.iterdir() if f.suffix in _WEIGHTS or f.name in _MODEL_FILES]
    else:
        files = []
    found = [(file.name, file.stat()) for file in sorted(files)]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in found]


def _cpu_name() -> str | None:
    """Linux tells the model only in a file; elsewhere `platform` does, where anything does."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as stream:
            for line in stream:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or None
