"""LangChain's re-rankers under their own names, with their constructors and return shapes.

To swap one, change where it is imported from, and the model that it is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from icr_rag.errors import require

require("langchain_core", "langchain", "icr_rag.integrations.compat.langchain")

if TYPE_CHECKING:
    from icr_rag.integrations.compat._langchain_cohere import CohereRerank
    from icr_rag.integrations.compat._langchain_cross_encoder import CrossEncoderReranker

__all__ = ["CohereRerank", "CrossEncoderReranker"]


def __getattr__(name: str) -> object:
    # Each by itself: early versions of langchain-core have no interface for cross-encoders.
    if name == "CohereRerank":
        from icr_rag.integrations.compat._langchain_cohere import CohereRerank

        return CohereRerank
    if name == "CrossEncoderReranker":
        from icr_rag.integrations.compat._langchain_cross_encoder import CrossEncoderReranker

        return CrossEncoderReranker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
