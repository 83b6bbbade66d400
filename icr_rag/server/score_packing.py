"""A score in fourteen bytes, which rubbish is not taken for."""

from __future__ import annotations

import hashlib
import math
import struct

from icr_rag.errors import InputError

#: What every packed score begins with; the last byte is the number of the form.
_MAGIC = b"s\x01"
_NUMBER = struct.Struct(">d")
_CHECK = 4
_SIZE = len(_MAGIC) + _NUMBER.size + _CHECK


def pack(key: bytes, score: float) -> bytes:
    """A score as it is stored under ``key``: magic, a float64, and a checksum of both and the key.

    Raises:
        InputError: for NaN and infinity, which no score is.
    """
    if not math.isfinite(score):
        raise InputError(f"a score of {score} cannot be cached; scores are finite numbers")
    body = _MAGIC + _NUMBER.pack(score)
    return body + _checksum(key, body)


def unpack(key: bytes, packed: bytes) -> float | None:
    """The score that `pack` wrote under this key; None for anything else."""
    if len(packed) != _SIZE or not packed.startswith(_MAGIC):
        return None
    body = packed[:-_CHECK]
    if packed[-_CHECK:] != _checksum(key, body):
        return None
    score: float = _NUMBER.unpack(body[len(_MAGIC) :])[0]
    return score if math.isfinite(score) else None


def _checksum(key: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECK, key=hashlib.sha256(key).digest()).digest()
