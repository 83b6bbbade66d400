"""Which fields of a document the model reads, and how they are written (``rank_fields``).

"lines", as the title and the text of a document have always been read: these two bare, every other
field as ``name: value``. "yaml": one YAML mapping, as Cohere advises for structured documents. The
order is that of ``rank_fields``. A document that is only read so keeps what it was given as.
"""

from __future__ import annotations

import datetime
import decimal
import json
import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from icr_rag.arguments import Array, check_documents
from icr_rag.errors import InputError, brief, shown
from icr_rag.types import Document, DocumentLike, as_document

#: Fields that stand without their name, as they do where ``rank_fields`` is not set.
_BARE = ("title", "text")
#: Lists and mappings in each other.
_DEEPEST = 20

#: A value without types of others: what JSON has, without null.
_Plain = str | bool | int | float | list[Any] | dict[str, Any]


class Given(NamedTuple):
    """A call's documents.

    Attributes:
        documents: as they were given, and as hits give them back.
        read: what the model reads of each, in the same order: fields before a last "text" as the
            title, the text as the text; else all as the text.
    """

    documents: list[Document]
    read: list[Document]


def check_given(documents: object, names: Sequence[str] | None, layout: str) -> Given:
    """The documents, and what the model reads of them.

    Args:
        documents: as `Reranker.rank` takes them; with ``names`` also mappings without "text".
        names: fields, in the order in which they are read; None: title and text.
        layout: "lines" or "yaml".

    Raises:
        InputError: naming the document that is none, has none of the fields, or has a value in one
            that cannot be written; and the field.
    """
    if names is None:
        given = check_documents(documents)
        return Given(given, given)
    if isinstance(documents, (str, bytes)) or not isinstance(documents, Sequence):
        check_documents(documents)
        return Given([], [])
    pairs = [_pair(value, index, names, layout) for index, value in enumerate(documents)]
    return Given([own for own, _ in pairs], [read for _, read in pairs])


def _pair(
    value: DocumentLike, index: int, names: Sequence[str], layout: str
) -> tuple[Document, Document]:
    """One document as it is given, and as it is read."""
    if not isinstance(value, Mapping) or value.get("text") is not None:
        document = as_document(value, index)
        source = value if isinstance(value, Mapping) else document
        return document, _read(_found(source, index, names), names, layout)
    read = _read(_found(value, index, names), names, layout)
    identifier = value.get("id", value.get("_id"))
    name = None if identifier is None else str(identifier)
    return Document(read.content, None, name, value), read


def _found(
    document: Document | Mapping[str, Any], index: int, names: Sequence[str]
) -> dict[str, _Plain]:
    """Field -> its value, of those that have one."""
    if isinstance(document, Document):
        own: Mapping[str, Any] = {
            name: value
            for name in ("text", "title", "id")
            if (value := getattr(document, name)) is not None
        }
        metadata: object = document.metadata
    else:
        own, metadata = document, document.get("metadata") or {}
    if not isinstance(metadata, Mapping):
        raise InputError(
            f"document {index} has metadata of type {type(metadata).__name__}; it must be a mapping"
        )
    if not any(name in own or name in metadata for name in names):
        there = brief(", ".join(dict.fromkeys(map(str, [*own, *metadata]))), 200)
        raise InputError(
            f"document {index} has none of the fields in rank_fields "
            f"({brief(', '.join(names), 200)}); it has {there or 'none'}. Name one that it has, or "
            "leave the document out"
        )
    found: dict[str, _Plain] = {}
    for name in names:
        value = own.get(name)
        value = metadata.get(name) if _lacks(value) else value
        if not _lacks(value):
            plain = _plain(value, f"document {index} has in its field {name!r}", 0)
            if plain not in ([], {}):
                found[name] = plain
    return found


def _read(found: Mapping[str, _Plain], names: Sequence[str], layout: str) -> Document:
    if layout == "yaml":
        values = {name: value for name, value in found.items() if value != ""}
        return Document(_yaml(values) if values else "")
    last = found.get("text") if names[-1] == "text" else None
    body = last if isinstance(last, str) else None
    lines = [
        written if name in _BARE else f"{name}: {written}"
        for name, value in found.items()
        if (name != "text" or body is None) and (written := _written(value)).strip()
    ]
    header = "\n".join(lines)
    return Document(header) if body is None else Document(body, header or None)


def _yaml(values: Mapping[str, _Plain]) -> str:
    text: str = yaml.safe_dump(
        dict(values), sort_keys=False, allow_unicode=True, width=math.inf, default_flow_style=False
    )
    return text.rstrip("\n")


def _written(value: _Plain) -> str:
    """A value in a line: lists of single values with commas, what is nested as JSON."""
    if isinstance(value, list) and not any(isinstance(item, (list, dict)) for item in value):
        return ", ".join(map(_written, value))
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _lacks(value: object) -> bool:
    """Whether there is nothing: None, NaN, and pandas' NA and NaT."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and math.isnan(value)


def _plain(value: object, where: str, depth: int) -> _Plain:
    """A value in plain types, all of it new, without what lacks.

    Args:
        where: "document 3 has in its field 'price'".
    """
    if depth > _DEEPEST:
        raise InputError(f"{where} lists and mappings nested more than {_DEEPEST} deep")
    if isinstance(value, str):
        # The characters, also of an enumeration's.
        return str.__str__(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, Array):
        return _plain(value.tolist(), where, depth + 1)
    if isinstance(value, int):
        return _number(int(value), where)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item, where, depth + 1) for item in value if not _lacks(item)]
    if isinstance(value, Mapping):
        return {
            _key(key, where): _plain(item, where, depth + 1)
            for key, item in value.items()
            if not _lacks(item)
        }
    raise InputError(
        f"{where} a {type(value).__name__}, which cannot be written for the model; allowed are "
        "str, numbers, bool, dates, and lists and mappings of these"
    )


def _number(value: int, where: str) -> int:
    try:
        str(value)
    except ValueError as error:
        raise InputError(f"{where} a number that cannot be written: {error}") from error
    return value


def _key(key: object, where: str) -> str:
    if isinstance(key, bool) or not isinstance(key, (str, int)):
        raise InputError(
            f"{where} a mapping with the key {shown(key)}, a {type(key).__name__}; keys must be "
            "str or int"
        )
    return str.__str__(key) if isinstance(key, str) else str(key)
