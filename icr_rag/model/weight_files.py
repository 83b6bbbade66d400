"""What can be told of files on disk by their first bytes and their size, before they are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from icr_rag.bounded import parse_json, read_text

#: The longest header that the safetensors format allows.
_LONGEST_HEADER = 100_000_000
_POINTER = b"version https://git-lfs.github.com/spec/"


def lfs_pointer(path: Path) -> bool:
    """Whether a file is the stand-in that git leaves where git-lfs did not fetch the real one."""
    with path.open("rb") as stream:
        return stream.read(len(_POINTER)) == _POINTER


def fault(path: Path) -> str | None:
    """What is wrong with any file of a model, and what to do; None if nothing shows."""
    try:
        if not path.is_file():
            return f"{path} is missing; the download or copy may be incomplete"
        if path.stat().st_size == 0:
            return f"{path} is empty (0 bytes); download or copy it again"
        if lfs_pointer(path):
            return (
                f"{path} is a git-LFS pointer ({path.stat().st_size} bytes), not the file itself; "
                f"run `git lfs pull` in {path.parent}"
            )
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}; check its permissions"
    return None


def safetensors_fault(path: Path) -> str | None:
    """What is wrong with the frame of a safetensors file; None if it is in order.

    The header is checked against the file's size, so that neither it nor what it announces can ask
    for more memory than there are bytes.
    """
    found = fault(path)
    if found is not None:
        return found
    size = path.stat().st_size
    advice = "download or copy it again"
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > size - 8 or length > _LONGEST_HEADER:
                return (
                    f"{path} ({size} bytes) is not a safetensors file or is cut off: it announces "
                    f"a header of {length} bytes; {advice}"
                )
            header = parse_json(stream.read(length))
        end = _end_of_tensors(header)
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}; check its permissions"
    except ValueError as error:
        return f"{path} is not a safetensors file: its header cannot be read ({error}); {advice}"
    if 8 + length + end != size:
        state = "is cut off" if 8 + length + end > size else "has bytes too many"
        return (
            f"{path} {state}: its header announces {8 + length + end} bytes, it has {size}; "
            f"{advice}"
        )
    return None


def _end_of_tensors(header: object) -> int:
    """Where the last tensor ends, from the header's end."""
    if not isinstance(header, Mapping):
        raise ValueError("no JSON object")
    end = 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        offsets = entry.get("data_offsets") if isinstance(entry, Mapping) else None
        if (
            not isinstance(offsets, list)
            or len(offsets) != 2
            or not all(type(offset) is int for offset in offsets)
            or not 0 <= offsets[0] <= offsets[1]
        ):
            raise ValueError(f"no offsets for {str(name)[:80]!r}")
        end = max(end, offsets[1])
    return end


def json_object(path: Path, most: int) -> dict[str, object]:
    """The JSON object in a model's file.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is no JSON object, or larger than ``most`` bytes.
    """
    value = parse_json(read_text(path, most))
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}, not an object")
    return value


def shards(index: Path, most: int) -> list[Path]:
    """The files that an index (model.safetensors.index.json) spreads the weights over.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it does not name files beside it.
    """
    table = json_object(index, most).get("weight_map")
    if not isinstance(table, Mapping) or not table:
        raise ValueError("it has no 'weight_map' from tensors to files")
    names = set()
    for name in table.values():
        if not isinstance(name, str) or Path(name).name != name:
            raise ValueError(f"{str(name)[:80]!r} is no name of a file beside it")
        names.add(name)
    return [index.parent / name for name in sorted(names)]
