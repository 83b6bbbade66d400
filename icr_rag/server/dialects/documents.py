"""Documents as clients send them: strings, objects with a text, parts of a message.

Read into `icr_rag.Document`, and given back in the form in which they came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import WithJsonSchema

from icr_rag.errors import InputError
from icr_rag.fields import check_given
from icr_rag.server.dialects.refused import Refused, names
from icr_rag.types import Document

#: A list of documents in any of their forms; `read` looks at each, so that a mistake is told in
#: words and once.
Documents = Annotated[
    list[object],
    WithJsonSchema(
        {
            "type": "array",
            "items": {
                "anyOf": [
                    {"type": "string"},
                    {
                        "type": "object",
                        "properties": {"text": {"type": "string"}},
                        "required": ["text"],
                    },
                    {
                        "type": "object",
                        "properties": {
                            "content": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "properties": {
                                        "type": {"const": "text"},
                                        "text": {"type": "string"},
                                    },
                                    "required": ["type", "text"],
                                },
                            }
                        },
                        "required": ["content"],
                    },
                ]
            },
        }
    ),
]

_FORMS = (
    'a document is a string, an object with "text", or an object with "content": '
    '[{"type": "text", "text": ...}]'
)
_OWN = ("text", "title", "id", "_id", "metadata")
_PICTURES = ("image", "image_url", "video", "video_url", "audio")


def read(
    documents: Sequence[object], rank_fields: Sequence[str] | None = None, field: str = "documents"
) -> tuple[Document, ...]:
    """The documents, in their order.

    Args:
        documents: as they came out of JSON.
        rank_fields: fields of objects to read, in this order; None: "title" and "text".
        field: what the client calls the list, for messages.

    Raises:
        Refused: naming the place of a document that cannot be read, and why.
    """
    return tuple(
        _read(value, f"{field}[{place}]", place, rank_fields)
        for place, value in enumerate(documents)
    )


def _read(value: object, where: str, place: int, rank_fields: Sequence[str] | None) -> Document:
    if isinstance(value, str):
        return Document(value)
    if not isinstance(value, Mapping):
        raise Refused(f"{where} is {_kind(value)}; {_FORMS}")
    if rank_fields is not None:
        return _fields(value, place, rank_fields)
    if value.get("text") is not None:
        return _object(value, where)
    if value.get("content") is not None:
        return Document(_content(value["content"], where))
    if any(value.get(name) is not None for name in _PICTURES):
        raise Refused(f"{where} has no text but an image; this server reads texts only")
    raise Refused(
        f'{where} is an object without "text" (its fields: {names(value) or "none"}); give it '
        "one, or name the fields to read in rank_fields"
    )


def _object(value: Mapping[str, object], where: str) -> Document:
    text, title, nested = value["text"], value.get("title"), value.get("metadata")
    if not isinstance(text, str):
        raise Refused(f'{where} has a "text" that is {_kind(text)}; it must be a string')
    if title is not None and not isinstance(title, str):
        raise Refused(f'{where} has a "title" that is {_kind(title)}; it must be a string')
    identifier = value.get("id", value.get("_id"))
    # Other fields, for a server that is told which of them to read.
    others = {name: item for name, item in value.items() if name not in _OWN}
    metadata = {**nested, **others} if isinstance(nested, Mapping) else others
    return Document(text, title, None if identifier is None else str(identifier), metadata)


def _fields(value: Mapping[str, object], place: int, rank_fields: Sequence[str]) -> Document:
    try:
        (document,) = check_given([value], rank_fields, "lines").read
    except InputError as error:
        # It speaks of the only document of a list of one.
        raise Refused(str(error).replace("document 0", f"document {place}", 1)) from error
    return document


def _content(content: object, where: str) -> str:
    """The text of the parts of a message; "" where there are none."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Refused(f'{where} has a "content" that is {_kind(content)}; {_FORMS}')
    texts = []
    for number, part in enumerate(content):
        text = part.get("text") if isinstance(part, Mapping) else None
        if not isinstance(text, str):
            raise Refused(
                f"{where} has a part, content[{number}], that is no text; this server reads "
                'parts of the form {"type": "text", "text": ...} only'
            )
        texts.append(text)
    return "\n".join(texts)


def given_back(value: object, document: Document) -> dict[str, object]:
    """A document in a result: an object with "text"; of an object, with its other fields too."""
    if isinstance(value, Mapping) and value.get("content") is None:
        return {**value, "text": value.get("text", document.content)}
    return {"text": document.content}


def _kind(value: object) -> str:
    """A type by its name in JSON."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list) else "an object"
