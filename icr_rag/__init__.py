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
    "Profile": "icr_rag.profiles",
    "AttentionReading": "icr_rag.types",
    "Document": "icr_rag.types",
    "DocumentLike": "icr_rag.types",
    "Encoded": "icr_rag.types",
    "RankedDocument": "icr_rag.types",
    "Ranking": "icr_rag.types",
    "Span": "icr_rag.types",
    "Usage": "icr_rag.types",
    "ClosedError": "icr_rag.errors",
    "ConfigError": "icr_rag.errors",
    "DataError": "icr_rag.errors",
    "DeviceMemoryError": "icr_rag.errors",
    "DownloadError": "icr_rag.errors",
    "EmbedderError": "icr_rag.errors",
    "ForkedError": "icr_rag.errors",
    "ICRError": "icr_rag.errors",
    "InputError": "icr_rag.errors",
    "MissingDependencyError": "icr_rag.errors",
    "ModelLoadError": "icr_rag.errors",
    "NonFiniteScoreError": "icr_rag.errors",
    "OverloadedError": "icr_rag.errors",
    "PromptTooLongError": "icr_rag.errors",
    "UnsupportedModelError": "icr_rag.errors",
}

__all__ = [
    "AttentionReading",
    "ClosedError",
    "ConfigError",
    "DataError",
    "DeviceMemoryError",
    "Document",
    "DocumentLike",
    "DownloadError",
    "EmbedderError",
    "Encoded",
    "ForkedError",
    "ICRError",
    "InputError",
    "MissingDependencyError",
    "ModelLoadError",
    "NonFiniteScoreError",
    "OverloadedError",
    "Profile",
    "PromptTooLongError",
    "RankedDocument",
    "Ranking",
    "Reranker",
    "RerankerConfig",
    "Span",
    "UnsupportedModelError",
    "Usage",
    "__version__",
]

if TYPE_CHECKING:
    from icr_rag.config import RerankerConfig
    from icr_rag.errors import (
        ClosedError,
        ConfigError,
        DataError,
        DeviceMemoryError,
        DownloadError,
        EmbedderError,
        ForkedError,
        ICRError,
        InputError,
        MissingDependencyError,
        ModelLoadError,
        NonFiniteScoreError,
        OverloadedError,
        PromptTooLongError,
        UnsupportedModelError,
    )
    from icr_rag.profiles import Profile
    from icr_rag.reranker import Reranker
    from icr_rag.types import (
        AttentionReading,
        Document,
        DocumentLike,
        Encoded,
        RankedDocument,
        Ranking,
        Span,
        Usage,
    )


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
