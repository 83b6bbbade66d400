"""The documents that a command is given: files, or standard input."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from icr_rag.cli.console import messages
from icr_rag.document_files import (
    decode,
    parse_documents,
    parse_with_fields,
    read_document_file,
    read_with_fields,
)
from icr_rag.types import Document, DocumentLike

_STDIN = "-"


def read_documents(paths: Sequence[str], *, any_fields: bool = False) -> list[DocumentLike]:
    """The documents in these files, in this order; see `icr_rag.document_files`.

    ``-``, or no file, is standard input: JSONL if its first line is a JSON object, else one
    document a line.

    Args:
        any_fields: JSONL objects come as mappings, of which the settings name the fields.

    Raises:
        DataError: for a file that is missing, is not UTF-8 text, or has a malformed line.
    """
    documents: list[DocumentLike] = []
    read: Callable[[str], Sequence[DocumentLike]] = read_document_file
    parse: Callable[[str, str], Sequence[DocumentLike]] = parse_documents
    if any_fields:
        read, parse = read_with_fields, parse_with_fields
    for path in paths if paths else [_STDIN]:
        if path == _STDIN:
            documents += parse(_read_stdin(), "standard input")
        else:
            documents += read(path)
    return documents


def identifiers(documents: Sequence[DocumentLike]) -> list[str | None]:
    """The id of each, None for those that have none."""
    return [_identifier(document) for document in documents]


def _identifier(document: DocumentLike) -> str | None:
    if isinstance(document, str):
        return None
    if isinstance(document, Document):
        return document.id
    found = document.get("id", document.get("_id"))
    return None if found is None else str(found)


def _read_stdin() -> str:
    if sys.stdin.isatty():
        messages.print("reading one document a line from the terminal; end with Ctrl-D")
    return decode(sys.stdin.buffer.read(), "standard input")
