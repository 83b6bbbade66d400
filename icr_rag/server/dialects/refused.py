"""Why a request is refused, in words that never hold a document's text."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from icr_rag.errors import brief

#: Mistakes that one message names.
_MOST = 5


class Refused(Exception):
    """A request that cannot be answered as it stands.

    Attributes:
        status: the HTTP status, 400 to 499.
        message: what is wrong and what to do; holds names and numbers, never texts.
    """

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


def wrong_fields(error: ValidationError) -> Refused:
    """The refusal of a body whose fields have wrong types or values, or lack."""
    mistakes = [
        f"{'.'.join(map(str, item['loc']))}: {item['msg']}"
        for item in error.errors(include_url=False, include_input=False)
    ]
    more = len(mistakes) - _MOST
    told = brief("; ".join(mistakes[:_MOST]), 1000)
    return Refused(told + (f"; and {more} more" if more > 0 else ""))


def names(values: Mapping[str, object]) -> str:
    """Names of fields as messages show them: a few, cut, for they may be anything."""
    shown = [brief(name, 40) for name in list(values)[:_MOST]]
    more = len(values) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
