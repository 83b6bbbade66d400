"""Infinity: the standard shape, with ``document`` as a string.

Its clients fail on an object there, and vLLM's on a string; the request does not tell them apart,
so that this has a path of its own. https://github.com/michaelfeil/infinity
"""

from __future__ import annotations

from typing import ClassVar

from icr_rag.server.dialects.standard import StandardAsked
from icr_rag.types import Document


class InfinityAsked(StandardAsked):
    """A request of a client of Infinity."""

    name: ClassVar[str] = "Infinity"

    def _document(self, place: int, document: Document) -> str | None:
        return document.content if self.return_documents else None
