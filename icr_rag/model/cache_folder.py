"""The user's cache folder, and how a folder gets into it whole or not at all.

A folder is built under a temporary name beside its place, sealed with a marker file, and renamed.
A rename is atomic, so that a killed process, a full disk or a second process can leave rubbish
behind, which the next build sweeps away, but never a half-built folder under the final name.

Who may read a finished folder is what the umask says, so that an image built by one user serves
another.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from icr_rag.errors import ModelLoadError

_MARKER = ".icr_rag_complete"


def cache_root(cache_dir: str | Path | None = None) -> Path:
    """``cache_dir``, else $ICR_RAG_CACHE, else the user's cache folder for icr_rag."""
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    own = os.environ.get("ICR_RAG_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    base = Path(shared).expanduser() if shared else Path.home() / ".cache"
    return base / "icr_rag"


def complete_folder(folder: Path, seal: str) -> bool:
    """Whether ``folder`` was built to its end, from the source that ``seal`` names."""
    try:
        return (folder / _MARKER).read_text(encoding="utf-8") == seal
    except OSError:
        return False


def build_folder(folder: Path, seal: str, build: Callable[[Path], None]) -> Path:
    """Return ``folder``, built by ``build`` if it is not complete yet.

    Args:
        folder: the final place.
        seal: identifies what it is built from (a hash and a format version).
        build: fills the empty folder it is given. If it raises, nothing is left behind.

    Raises:
        ModelLoadError: if the cache cannot be written to.
    """
    if complete_folder(folder, seal):
        return folder
    _require_writable(folder.parent)
    with FileLock(f"{folder}.lock"):
        # Another process may have built it while this one waited.
        if complete_folder(folder, seal):
            return folder
        # Under the lock, every temporary folder of this name belongs to a process that died.
        for leftover in folder.parent.glob(f"{folder.name}.building-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        # Not by tempfile, whose folders are their owner's alone.
        temporary = folder.parent / f"{folder.name}.building-{uuid.uuid4().hex}"
        temporary.mkdir()
        try:
            build(temporary)
            (temporary / _MARKER).write_text(seal, encoding="utf-8")
            _follow_umask(temporary)
            if folder.exists():
                shutil.rmtree(folder)
            temporary.replace(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _follow_umask(folder: Path) -> None:
    """Give all in ``folder`` the modes that the folder itself and its marker were made with.

    Some libraries write under a private name and rename, which leaves a file to its owner alone.
    The umask cannot be asked for without being set, for other threads too; a new folder and a new
    file tell it.
    """
    folder_mode = stat.S_IMODE(folder.stat().st_mode)
    file_mode = stat.S_IMODE((folder / _MARKER).stat().st_mode)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(folder_mode if path.is_dir() else file_mode)


def _require_writable(parent: Path) -> None:
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise ModelLoadError(
            f"the cache folder {parent} cannot be written to ({error}); set cache_dir or the "
            "environment variable ICR_RAG_CACHE to a folder that can"
        ) from error
