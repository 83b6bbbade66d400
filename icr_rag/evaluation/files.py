"""Text files of the evaluation, read line by line, and the JSON in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from icr_rag.bounded import parse_json
from icr_rag.errors import DataError

#: Bytes of the longest line. A file without line ends would fill the memory.
_LONGEST = 256 * 2**20


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, without their ends, and their numbers from 1.

    Raises:
        DataError: if the file cannot be read; naming the line, if it is not UTF-8 or too long.
    """
    try:
        # Bytes, so that only \n ends a line and a wrong byte can be told by its line.
        with path.open("rb") as stream:
            lines = iter(lambda: stream.readline(_LONGEST + 1), b"")
            for number, raw in enumerate(lines, start=1):
                if len(raw) > _LONGEST:
                    raise DataError(
                        f"{path}:{number}: the line is longer than {_LONGEST:,} bytes, the most "
                        "that is read; is it a text file with one entry a line?"
                    )
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{path}:{number}: not UTF-8 (byte 0x{raw[error.start]:02x}); "
                        "convert the file"
                    ) from error
                if line.strip():
                    yield number, line
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def read_json_lines(path: Path) -> Iterator[tuple[str, object]]:
    """What each line of a .jsonl file holds, of any type, and its place for messages.

    Raises:
        DataError: as `read_lines`, and for a line that is not JSON.
    """
    for number, line in read_lines(path):
        place = f"{path}:{number}"
        yield place, json_at(line, place)


def json_at(text: str, place: str) -> object:
    """What a text holds, of any type; `DataError` if it is not JSON."""
    try:
        return parse_json(text)
    except ValueError as error:
        raise DataError(f"{place}: not JSON: {error}") from error
