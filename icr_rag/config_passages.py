"""Settings of passages: what goes with them, and what means nothing without them.

Functions raise `ValueError`, for pydantic, or `ConfigError`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from icr_rag.errors import ConfigError
from icr_rag.methods import Method, listed, methods

if TYPE_CHECKING:
    from icr_rag.config import RerankerConfig


def check_passages(config: RerankerConfig) -> None:
    """Raise for settings of passages that contradict each other or the method."""
    if config.passages == "none":
        return
    if config.passage_overlap >= config.passage_tokens:
        raise ValueError(
            f"passage_overlap ({config.passage_overlap}) must be smaller than passage_tokens "
            f"({config.passage_tokens}), so that each passage has something new"
        )
    most = config.max_document_tokens
    if most is not None and most <= config.passage_tokens:
        raise ConfigError(
            f"max_document_tokens={most} cuts documents to no more than one passage "
            f"(passage_tokens={config.passage_tokens}), and passages={config.passages!r} means "
            "nothing then; set a larger max_document_tokens, or leave out one of them"
        )
    if is_lost(config.passages, config.framework, config.method):
        check_folding(config, config.method)


def check_folding(config: RerankerConfig, method: Method) -> None:
    """Raise `ConfigError` for ``passages="top2"`` with a method that has no scores to add up.

    Args:
        config: its settings.
        method: which may be known only when the model is.
    """
    if config.passages == "top2" and method.order_only:
        fitting = [row for row in methods() if not row.order_only]
        raise ConfigError(
            f"passages='top2' does not go with {method.label}, which says the order of passages "
            f"and not how far apart they are; set passages='max', or one of {listed(fitting)}"
        )


def is_lost(passages: str, framework: str, method: Method) -> bool:
    """Whether a value of ``passages`` does not go with a method, whatever a profile may choose."""
    open_yet = framework == "auto" and method.reads_attention
    return passages == "top2" and method.order_only and not open_yet


def without_passages(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Settings that mean nothing where nothing is split, and what to say of them."""
    if values["passages"] == "none":
        for name in ("passage_tokens", "passage_overlap"):
            yield name, "means nothing without passages; set passages='max', or leave it out"
