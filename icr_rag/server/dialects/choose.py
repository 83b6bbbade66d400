"""Which shape a body has, where one path serves several: told by the field of its texts."""

from __future__ import annotations

from collections.abc import Mapping

from icr_rag.server.dialects.asked import Asked
from icr_rag.server.dialects.dashscope import DashScopeAsked
from icr_rag.server.dialects.nvidia import NvidiaAsked
from icr_rag.server.dialects.refused import Refused
from icr_rag.server.dialects.tei import TEIAsked

_BY_FIELD: tuple[tuple[str, type[Asked]], ...] = (
    ("texts", TEIAsked),
    ("input", DashScopeAsked),
    ("passages", NvidiaAsked),
)


def shape_of(body: Mapping[str, object], default: type[Asked]) -> type[Asked]:
    """The shape of a body: ``default`` if it has "documents".

    Raises:
        Refused: if it has no field that holds texts.
    """
    if "documents" in body:
        return default
    for field, shape in _BY_FIELD:
        if field in body:
            return shape
    raise Refused(
        'there is nothing to rank: "documents" (Cohere, Jina, vLLM) is missing; so are "texts" '
        '(TEI), "input" (DashScope) and "passages" (NVIDIA)'
    )
