"""Documents from files, with errors that name file and line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from icr_rag.bounded import parse_json
from icr_rag.errors import DataError
from icr_rag.types import Document, DocumentLike


def read_document_file(path: str) -> list[Document]:
    """The documents in a file.

    A ``.jsonl`` file holds one JSON object a line with "text" and, if it has them, "title" and
    "id" (or "_id"). Any other file is one document, whose id is the path as given.

    Raises:
        DataError: for a file that is missing, is not UTF-8 text, or has a malformed line.
    """
    if path.endswith(".jsonl"):
        return parse_jsonl(read_text(path), path)
    return [Document(read_text(path), id=path)]


def parse_documents(text: str, name: str) -> list[Document]:
    """The documents in a text: JSONL if its first line is a JSON object, else one a line.

    Raises:
        DataError: naming ``name`` and the line.
    """
    if _starts_with_object(text):
        return parse_jsonl(text, name)
    return [Document(line) for line in _lines(text) if line.strip()]


def read_with_fields(path: str) -> list[DocumentLike]:
    """As `read_document_file`, with the objects of a ``.jsonl`` file as mappings of whatever keys,
    of which ``rank_fields`` names those to read.

    Raises:
        DataError: as `read_document_file`, but for an object without "text", or without a text
            in it.
    """
    if path.endswith(".jsonl"):
        return _mappings(read_text(path), path)
    return [Document(read_text(path), id=path)]


def parse_with_fields(text: str, name: str) -> list[DocumentLike]:
    """As `parse_documents`, with objects as in `read_with_fields`."""
    if _starts_with_object(text):
        return _mappings(text, name)
    return [*parse_documents(text, name)]


def _mappings(text: str, name: str) -> list[DocumentLike]:
    lines = [(f"{name}:{n}", line) for n, line in enumerate(_lines(text), 1) if line.strip()]
    found: list[DocumentLike] = []
    for place, line in lines:
        value = _object(line, place)
        if value.get("text") is not None:
            _text_and_title(value, place)
        _identifier(value, place)
        found.append(value)
    return found


def read_text(path: str) -> str:
    """The file's text.

    Raises:
        DataError: if it cannot be read or is not UTF-8.
    """
    try:
        content = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; give existing files") from error
    return decode(content, path)


def parse_jsonl(text: str, name: str) -> list[Document]:
    """The documents in JSONL text; blank lines are skipped.

    Raises:
        DataError: naming ``name`` and the line.
    """
    documents = []
    for number, line in enumerate(_lines(text), 1):
        if line.strip():
            documents.append(_document(line, f"{name}:{number}"))
    return documents


def _document(line: str, place: str) -> Document:
    value = _object(line, place)
    if "text" not in value:
        raise DataError(f"{place}: no 'text', only {sorted(value)}; each object needs a 'text'")
    text, title = _text_and_title(value, place)
    return Document(text, title, _identifier(value, place))


def _object(line: str, place: str) -> dict[str, Any]:
    try:
        value = parse_json(line)
    except ValueError as error:
        raise DataError(f"{place}: not JSON ({error}); each line must be a JSON object") from error
    if not isinstance(value, dict):
        raise DataError(f"{place}: {_shown(value)} is not a JSON object with 'text'")
    return value


def _text_and_title(value: Mapping[str, Any], place: str) -> tuple[str, str | None]:
    text, title = value["text"], value.get("title")
    if not isinstance(text, str):
        raise DataError(f"{place}: 'text' is {_shown(text)}; it must be a string")
    if title is not None and not isinstance(title, str):
        raise DataError(f"{place}: 'title' is {_shown(title)}; it must be a string")
    return text, title


def _identifier(value: Mapping[str, Any], place: str) -> str | None:
    identifier = value.get("id", value.get("_id"))
    # bool is an int to Python but no id.
    if isinstance(identifier, bool) or not isinstance(identifier, (str, int, type(None))):
        raise DataError(f"{place}: 'id' is {_shown(identifier)}; it must be a string or an integer")
    return None if identifier is None else str(identifier)


def _starts_with_object(text: str) -> bool:
    first = next((line for line in _lines(text) if line.strip()), "")
    try:
        return isinstance(parse_json(first), dict)
    except ValueError:
        # A line that was meant as an object deserves the JSON error, not to be ranked as text.
        return first.lstrip().startswith('{"')


def decode(content: bytes, name: str) -> str:
    """Bytes in UTF-8 as text.

    Raises:
        DataError: naming ``name``, the line and the byte.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{name}:{line}: not UTF-8 (byte 0x{content[error.start]:02x}); convert the file"
        ) from error


def _lines(text: str) -> list[str]:
    # Not splitlines(), which also splits at form feeds and other characters inside a document.
    return text.replace("\r\n", "\n").split("\n")


def _shown(value: object) -> str:
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= 60 else shown[:60] + " ..."
