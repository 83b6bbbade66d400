"""Re-rank retrieved chunks with the attention of the LLM you already run.

Importing this package is cheap: torch and transformers are imported when a model is loaded.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_EXPORTS = {
    "Reranker": "icr_rag.reranker",
    "RerankerConfig": "icr_rag.config",
    "Document": "icr_rag.types",
    "Ranking": "icr_rag.types",
    "RankedDocument": "icr_rag.types",
    "AttentionReading": "icr_rag.types",
    "Span": "icr_rag.types",
    "Usage": "icr_rag.types",
    "ICRError": "icr_rag.errors",
}

__all__ = [
    "AttentionReading",
    "Document",
    "ICRError",
    "RankedDocument",
    "Ranking",
    "Reranker",
    "RerankerConfig",
    "Span",
    "Usage",
    "__version__",
]

if TYPE_CHECKING:
    from icr_rag.config import RerankerConfig
    from icr_rag.errors import ICRError
    from icr_rag.reranker import Reranker
    from icr_rag.types import AttentionReading, Document, RankedDocument, Ranking, Span, Usage


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
