"""The header of a GGUF file, walked within the bounds of the file.

The format announces how many keys, values, letters and tensors follow, in numbers of 64 bits.
The libraries that read it believe them. Here each is held against the bytes that there are, before
anything is made from it: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

#: Number of a value's type -> its layout, as `struct` writes it. Bool is one byte.
_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)
#: Longest string that is kept; longer ones (chat templates) are passed over.
_LONGEST_KEPT = 4096
#: Arrays in arrays, dimensions of a tensor: what the format's own reader takes.
_DEEPEST, _MOST_DIMENSIONS = 4, 8
_DEFAULT_ALIGNMENT = 32

Scalar = int | float | bool | str


@dataclass(frozen=True)
class Header:
    """What a GGUF file says about itself.

    Attributes:
        values: key -> value, single numbers and short strings only.
        tensors: how many there are.
        widest: the largest dimension of any tensor.
    """

    values: Mapping[str, Scalar]
    tensors: int
    widest: int

    def text(self, key: str) -> str:
        """A string value; "" if there is none."""
        value = self.values.get(key)
        return value if isinstance(value, str) else ""


def read_header(path: Path) -> Header:
    """Walk the header of a GGUF file.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is no GGUF file, or announces more than it holds.
    """
    with path.open("rb") as stream:
        return _Walk(stream, path.stat().st_size).header()


class _Walk:
    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream = stream
        self.size = size
        self.place = 0

    def header(self) -> Header:
        if self.take(4, "its mark") != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        version = self.number("I", "its version")
        if version not in _VERSIONS:
            raise ValueError(f"its version is {version}; read are {_VERSIONS}, little-endian")
        tensors = self.number("Q", "the number of tensors")
        keys = self.number("Q", "the number of keys")
        # A key takes 13 bytes at least, a tensor 24.
        self.expect(13 * keys + 24 * tensors, f"{keys} keys and {tensors} tensors")
        values: dict[str, Scalar] = {}
        seen = set()
        for _ in range(keys):
            key = self.string("a key")
            if key is None or key in seen:
                raise ValueError("a key is too long" if key is None else f"{key!r} stands twice")
            seen.add(key)
            value = self.value(self.number("I", f"the type of {key!r}"), key)
            if value is not None:
                values[key] = value
        widest = self.tensors(tensors, values)
        parts = values.get("split.count", 1)
        if type(parts) is int and parts > 1:
            raise ValueError(
                f"it is one of {parts} parts; join them first (llama-gguf-split --merge)"
            )
        _check_sizes(values, tensors, widest)
        return Header(values, tensors, widest)

    def tensors(self, count: int, values: Mapping[str, Scalar]) -> int:
        """Walk the tensors' descriptions; their largest dimension."""
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        alignment = values.get("general.alignment", _DEFAULT_ALIGNMENT)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise ValueError(f"general.alignment is {alignment!r}, no power of two")
        widest, ends = 0, 0
        for _ in range(count):
            name = self.string("a tensor's name")
            dimensions = self.number("I", f"the dimensions of {name!r}")
            if dimensions > _MOST_DIMENSIONS:
                raise ValueError(f"tensor {name!r} has {dimensions} dimensions")
            shape = [self.number("Q", f"the shape of {name!r}") for _ in range(dimensions)]
            kind, offset = self.number("I", f"the type of {name!r}"), self.number("Q", "an offset")
            try:
                block, width = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
            except (ValueError, KeyError) as error:
                raise ValueError(f"tensor {name!r} has the unknown type {kind}") from error
            elements = 1
            for dimension in shape:
                elements *= dimension
            ends = max(ends, offset + -(-elements // block) * width)
            widest = max(widest, *shape, 0)
        begin = -(-self.place // alignment) * alignment
        if count and begin + ends > self.size:
            raise ValueError(
                f"its tensors end at byte {begin + ends}, the file at {self.size}: it is cut off"
            )
        return widest

    def value(self, kind: int, key: str, depth: int = 0) -> Scalar | None:
        """A value; None for one that is passed over."""
        if kind in _SCALARS:
            scalar: Scalar = struct.unpack(
                "<" + _SCALARS[kind], self.take(struct.calcsize(_SCALARS[kind]), repr(key))
            )[0]
            return scalar
        if kind == _STRING:
            return self.string(repr(key))
        if kind != _ARRAY:
            raise ValueError(f"{key!r} has the unknown type {kind}")
        if depth >= _DEEPEST:
            raise ValueError(f"{key!r} is nested too deep")
        inner, count = self.number("I", repr(key)), self.number("Q", repr(key))
        if inner in _SCALARS:
            self.skip(count * struct.calcsize(_SCALARS[inner]), f"{count} values of {key!r}")
            return None
        self.expect(8 * count, f"{count} values of {key!r}")
        for _ in range(count):
            if inner == _STRING:
                length = self.number("Q", repr(key))
                self.skip(length, f"a string of {length} bytes in {key!r}")
            else:
                self.value(inner, key, depth + 1)
        return None

    def string(self, what: str) -> str | None:
        """A string; None for one too long to be kept."""
        length = self.number("Q", what)
        if length > _LONGEST_KEPT:
            self.skip(length, f"{what} of {length} bytes")
            return None
        return self.take(length, f"{what} of {length} bytes").decode("utf-8")

    def number(self, layout: str, what: str) -> int:
        number: int = struct.unpack("<" + layout, self.take(struct.calcsize(layout), what))[0]
        return number

    def take(self, count: int, what: str) -> bytes:
        self.expect(count, what)
        self.place += count
        return self.stream.read(count)

    def skip(self, count: int, what: str) -> None:
        self.expect(count, what)
        self.place += count
        self.stream.seek(self.place)

    def expect(self, count: int, what: str) -> None:
        if count > self.size - self.place:
            raise ValueError(
                f"at byte {self.place} it announces {what}, and {self.size - self.place} bytes "
                "are left: it is cut off or damaged"
            )


def _check_sizes(values: Mapping[str, Scalar], tensors: int, widest: int) -> None:
    """Refuse sizes that the tensors cannot have; a model of them would be built first."""
    prefix = f"{values.get('general.architecture')}."
    for key, value in values.items():
        if not key.startswith(prefix) or type(value) is not int:
            continue
        most = tensors if key.endswith(".block_count") else widest
        # How long a context may be is in no tensor.
        sized = key.endswith(("_length", "_count", ".vocab_size")) and "context" not in key
        if sized and (value < 0 or (tensors > 0 and value > most)):
            raise ValueError(
                f"{key} is {value}, but there are {tensors} tensors, none wider than {widest}"
            )
