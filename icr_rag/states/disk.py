"""States on disk: one safetensors file per document, written whole or not at all.

``FOLDER/NAMESPACE/ab/KEY.safetensors``. A file is written under a temporary name and renamed, so
that a kill at any moment leaves nothing or all of it, and any number of processes may write: the
same key has the same content. What is read is checked against a digest of all its bytes; what
does not match, for whatever reason, counts as absent and is removed.

The digest finds damage and mistakes. It is no signature: whoever may write to the folder may
forge states, so that new folders are for their owner alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)

_FORMAT = "1"
#: Temporary files older than this many seconds belong to writers that were killed.
_STALE = 3600.0


class DiskStates:
    """Tensors of one namespace in a folder.

    Args:
        folder: made if need be, when something is written.
        namespace: name of the folder within it.
        parts: what the namespace stands for, written beside the states for people.
    """

    def __init__(self, folder: Path, namespace: str, parts: Mapping[str, Any]) -> None:
        self.namespace = namespace
        self.root = folder / namespace
        self.parts = parts
        #: Files that were removed because they could not be trusted, and writes that failed.
        self.rejected = 0
        self.write_failures = 0
        self._cleaned = False

    def path(self, key: str) -> Path:
        """The file of a key."""
        return self.root / key[:2] / f"{key}.safetensors"

    def __contains__(self, key: str) -> bool:
        try:
            return self.path(key).is_file()
        except OSError:
            # A folder that is somebody else's.
            return False

    def read(self, key: str) -> dict[str, torch.Tensor] | None:
        """Tensors as they were written; None if there are none that can be trusted."""
        path = self.path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("document states in %s cannot be read: %s", path, error)
            return None
        tensors = self._checked(content, key)
        if tensors is None:
            self.rejected += 1
            logger.warning("document states in %s are damaged; they are made anew", path)
            _remove(path)
        return tensors

    def _checked(self, content: bytes, key: str) -> dict[str, torch.Tensor] | None:
        from safetensors import SafetensorError
        from safetensors.torch import load

        # The header's length, the header, the tensors' bytes.
        size = int.from_bytes(content[:8], "little")
        try:
            header = json.loads(content[8 : 8 + size])
            told = header["__metadata__"]
            expected = {
                "format": _FORMAT,
                "namespace": self.namespace,
                "key": key,
                "digest": _digest(header, content[8 + size :]),
            }
            # A name that is not expected would be data that no digest covers.
            return load(content) if told == expected else None
        except (ValueError, KeyError, TypeError, RecursionError, SafetensorError):
            return None

    def write(self, key: str, tensors: Mapping[str, torch.Tensor]) -> bool:
        """Store tensors; False, and a line in the log, if the disk does not take them."""
        from safetensors.torch import save

        path = self.path(key)
        plain = save({name: tensor.cpu() for name, tensor in tensors.items()})
        size = int.from_bytes(plain[:8], "little")
        header, body = json.loads(plain[8 : 8 + size]), plain[8 + size :]
        header["__metadata__"] = {
            "format": _FORMAT,
            "namespace": self.namespace,
            "key": key,
            "digest": _digest(header, body),
        }
        # The header again, with what is told, padded so that the tensors stay aligned.
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        content = len(text).to_bytes(8, "little") + text + body
        temporary = path.with_name(f".{key}.{os.getpid()}.{time.monotonic_ns()}.tmp")
        try:
            self._make_folder(path.parent)
            _write_whole(temporary, path, content)
        except OSError as error:
            if not self.write_failures:
                logger.warning("document states cannot be written to %s: %s", self.root, error)
            self.write_failures += 1
            return False
        return True

    def _make_folder(self, folder: Path) -> None:
        if folder.is_dir() and self._cleaned:
            return
        if not folder.is_dir():
            self.root.parent.mkdir(parents=True, exist_ok=True)
            self.root.mkdir(mode=0o700, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
        description = self.root / "namespace.json"
        if not description.exists():
            described = json.dumps(dict(self.parts), indent=1, default=str) + "\n"
            temporary = self.root / f".namespace.{os.getpid()}.{time.monotonic_ns()}.tmp"
            _write_whole(temporary, description, described.encode())
        # At least once per store, for where all folders exist most may be left behind.
        self._cleaned = True
        self._clean()

    def _clean(self) -> None:
        """Remove what killed writers left."""
        for path in (*self.root.glob(".*.tmp"), *self.root.glob("*/.*.tmp")):
            try:
                if time.time() - path.stat().st_mtime > _STALE:
                    path.unlink()
            except OSError:
                # Another process was faster.
                continue

    def size(self) -> tuple[int, int]:
        """Documents and bytes of this namespace."""
        sizes = [path.stat().st_size for path in self.root.glob("*/*.safetensors")]
        return len(sizes), sum(sizes)


def _digest(header: Mapping[str, Any], body: bytes) -> str:
    """Of names, types, shapes and places of the tensors, and of their bytes."""
    told = {name: value for name, value in header.items() if name != "__metadata__"}
    digest = hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=16)
    digest.update(body)
    return digest.hexdigest()


def _write_whole(temporary: Path, path: Path, content: bytes) -> None:
    """A file that its owner alone may read, which is there whole or not at all."""
    try:
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    except OSError:
        _remove(temporary)
        raise


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger.debug("%s stays behind: %s", path, error)
