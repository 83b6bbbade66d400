"""What the adapters share: from a constructor's keywords to the engine they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from icr_rag.config import RerankerConfig
from icr_rag.errors import ConfigError
from icr_rag.reranker import Reranker


def resolve_reranker(
    reranker: Reranker | None,
    config: RerankerConfig | Mapping[str, Any] | None,
    fields: Mapping[str, Any],
) -> Reranker:
    """The reranker for an adapter's constructor arguments. Loads nothing.

    Args:
        reranker: a ready one, or None.
        config: settings, or None for the defaults.
        fields: single settings, which replace those of ``config``.

    Raises:
        ConfigError: if a ready reranker comes together with settings, or a setting is wrong.
    """
    if reranker is not None:
        if not callable(getattr(reranker, "rank", None)):
            raise ConfigError(f"reranker={reranker!r} is not an icr_rag.Reranker")
        if config is not None or fields:
            given = sorted(fields) or ["config"]
            raise ConfigError(
                f"reranker= comes with settings of its own; {', '.join(given)} cannot be set "
                "beside it. Set them where the Reranker is made"
            )
        return reranker
    if config is not None and not isinstance(config, RerankerConfig):
        config = RerankerConfig.from_dict(config)
    return Reranker(config, **fields)
