"""API keys: from the environment, and from a file that is read again when it changes."""

from __future__ import annotations

import hmac
import logging
import re
from pathlib import Path

from icr_rag.bounded import read_text
from icr_rag.errors import ConfigError
from icr_rag.server.settings import ServerSettings, wrong_key

logger = logging.getLogger(__name__)

_MOST_BYTES = 2**20
_COMMENT = re.compile(r"(?:^|\s)#")


class Keys:
    """The keys that are accepted now.

    A file that vanished or cannot be read leaves the keys as they were, because editors replace
    files in two steps; one that is there and has no keys accepts none.

    Args:
        settings: keys_file, api_key.

    Raises:
        ConfigError: if the file cannot be read, has no keys, or one that is not allowed.
    """

    def __init__(self, settings: ServerSettings) -> None:
        own = settings.api_key
        self._own = () if own is None else (own.get_secret_value().encode(),)
        self._path = None if settings.keys_file is None else Path(settings.keys_file).expanduser()
        self._seen: tuple[int, int, int] | None = None
        self._told = False
        self._of_file: tuple[bytes, ...] = ()
        if self._path is not None:
            self._of_file = _read(self._path)
            if not self._of_file:
                raise ConfigError(f"keys_file={settings.keys_file!r} has no keys; write one a line")

    @property
    def needed(self) -> bool:
        """Whether callers need one."""
        return bool(self._own) or self._path is not None

    def accept(self, key: bytes) -> bool:
        """Whether this is one of them, in a time that does not tell how much of it is right."""
        self._refresh()
        found = False
        for known in (*self._own, *self._of_file):
            found |= hmac.compare_digest(known, key)
        return found

    def _refresh(self) -> None:
        if self._path is None:
            return
        try:
            state = _state(self._path)
            if state == self._seen:
                return
            self._of_file = _read(self._path)
        except (OSError, ConfigError):
            # The path and what is wrong are the operator's, who may look at it; once per trouble.
            if not self._told:
                logger.warning("the file of API keys cannot be read; the keys stay as they were")
            self._told = True
            return
        self._seen, self._told = state, False
        logger.info("API keys were read again: %d", len(self._of_file))


def _state(path: Path) -> tuple[int, int, int]:
    """What differs after a change."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(path: Path) -> tuple[bytes, ...]:
    """The keys in a file.

    Raises:
        ConfigError: if it cannot be read, or has one that is not allowed.
    """
    try:
        text = read_text(path, _MOST_BYTES)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read keys_file {path}: {error}") from error
    keys = []
    for number, line in enumerate(text.splitlines(), start=1):
        # Inside of a key it is a character like any other: a key must not be cut unnoticed.
        key = _COMMENT.split(line, maxsplit=1)[0].strip()
        if not key:
            continue
        problem = wrong_key(key)
        if problem is not None:
            raise ConfigError(f"keys_file {path}: the key in line {number} {problem}")
        keys.append(key.encode())
    return tuple(keys)
