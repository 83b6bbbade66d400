"""The documents that a command is given: files, or standard input."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from icr_rag.cli.console import messages
from icr_rag.document_files import decode, parse_documents, read_document_file
from icr_rag.types import Document

_STDIN = "-"


def read_documents(paths: Sequence[str]) -> list[Document]:
    """The documents in these files, in this order; see `icr_rag.document_files`.

    ``-``, or no file, is standard input: JSONL if its first line is a JSON object, else one
    document a line.

    Raises:
        DataError: for a file that is missing, is not UTF-8 text, or has a malformed line.
    """
    documents: list[Document] = []
    for path in paths if paths else [_STDIN]:
        if path == _STDIN:
            documents += parse_documents(_read_stdin(), "standard input")
        else:
            documents += read_document_file(path)
    return documents


def _read_stdin() -> str:
    if sys.stdin.isatty():
        messages.print("reading one document a line from the terminal; end with Ctrl-D")
    return decode(sys.stdin.buffer.read(), "standard input")
