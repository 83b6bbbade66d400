"""What one request may ask for, checked before it waits."""

from __future__ import annotations

from collections.abc import Sequence

from icr_rag.arguments import (
    check_deadline,
    check_documents,
    check_instruction,
    check_max_tokens,
    check_query,
)
from icr_rag.config import RerankerConfig
from icr_rag.errors import InputError, PromptTooLongError
from icr_rag.fields import check_given
from icr_rag.server.call import RerankCall
from icr_rag.server.settings import ServerSettings
from icr_rag.types import Document

#: UTF-8 bytes that are taken for one token: about right for English, and for scripts of three
#: bytes a character not too few.
_BYTES_OF_A_TOKEN = 4


class TooLargeError(PromptTooLongError):
    """A request asks for more than the server's limits allow."""


def check_call(
    call: RerankCall, settings: ServerSettings, config: RerankerConfig
) -> list[Document]:
    """What the model would read of a call's documents, one for each, in their order.

    Raises:
        InputError: for a query, document or argument that cannot be ranked, without its text.
        TooLargeError: if a limit of the settings is exceeded.
    """
    if not call.query.strip():
        raise InputError("the query is blank; give the question to rank for")
    check_query(call.query)
    check_instruction(call.instruction)
    check_max_tokens(call.max_tokens_per_doc)
    check_deadline(call.deadline_ms, None)
    _check_size(len(call.documents), settings.max_documents, "documents in one request")
    _check_text(call.query, settings.max_query_chars, "the query")
    if call.instruction is not None:
        _check_text(call.instruction, settings.max_query_chars, "the instruction")
    check_documents(call.documents)
    read = check_given(call.documents, config.rank_fields, config.rank_fields_format).read
    for place, document in enumerate(read):
        _check_text(document.content, settings.max_document_chars, f"document {place}")
    return read


def estimated_tokens(query: str, documents: Sequence[str]) -> int:
    """About how many tokens ranking these takes: each document is read with the query."""
    own = len(query.encode())
    return sum(1 + (own + len(text.encode())) // _BYTES_OF_A_TOKEN for text in documents)


def _check_size(count: int, most: int, what: str) -> None:
    if count > most:
        raise TooLargeError(f"{count} {what}; this server allows {most}: send fewer at a time")


def _check_text(text: str, most: int, what: str) -> None:
    if len(text) > most:
        raise TooLargeError(f"{what} has {len(text)} characters; this server allows {most}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{what} has half of a surrogate pair at character {error.start}, which is no text; "
            "send UTF-8, or whole pairs"
        ) from None
