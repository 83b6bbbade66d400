"""Which scores a configuration may ask for: what goes with ``score_mode``.

Functions raise `ValueError`, for pydantic, or `ConfigError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from icr_rag.errors import ConfigError
from icr_rag.methods import Method, listed, with_explained

if TYPE_CHECKING:
    from icr_rag.config import RerankerConfig


#: Values of ``score_mode`` whose scores are of the query and the document alone.
ABSOLUTE = ("explained", "probability")


def counts_first_stage(config: RerankerConfig) -> bool:
    """Whether the first stage may count. Its order and scores are about one list, so that absolute
    scores are the model's alone; and a log ratio would be one no more with something added, unless
    a fusion is asked for by name."""
    unasked = (*ABSOLUTE, "lift") if config.fusion == "auto" else ABSOLUTE
    return config.fusion != "none" and config.score_mode not in unasked


def written_weights(value: object) -> object:
    """Weights by name as pairs: of a mapping, or of text, ``dense=1,sparse=0.3``; else as it is."""
    if isinstance(value, Mapping):
        return tuple(value.items())
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in value.split(",")]
    return tuple((name.strip(), weight.strip()) for name, _, weight in pairs)


def checked_weights(
    value: tuple[tuple[str, float], ...] | None,
) -> tuple[tuple[str, float], ...] | None:
    """Weights of the first stage, or the `ValueError` that says what is wrong with a name."""
    names = [name for name, _ in value or ()]
    if value is not None and (not names or not all(map(str.strip, names)) or "model" in names):
        raise ValueError(
            "allowed are weights by the names of scores, by 'order' and by 'embedder', at least "
            "one; the model's own is 1"
        )
    if len(set(names)) != len(names):
        raise ValueError("a name is listed twice")
    return value


def check_score_mode(config: RerankerConfig) -> None:
    """Raise for a ``score_mode`` that does not go with the other settings."""
    if config.score_mode == "rank" and config.diversity is not None:
        raise ConfigError(
            "score_mode='rank' says the place by relevance, and diversity="
            f"{config.diversity!r} gives other places; leave out one of them"
        )
    if config.score_mode == "lift":
        _check_lift(config, config.method)
    elif config.absolute:
        _check_absolute(config, config.method)


def check_explained(config: RerankerConfig, method: Method) -> None:
    """Raise `ConfigError` for absolute scores with a method that has none.

    Args:
        config: its settings.
        method: which may be known only when the model is.
    """
    if config.absolute and not method.explained:
        raise ConfigError(
            f"score_mode={config.score_mode!r} does not go with {method.label}, whose scores are "
            f"relative to the other documents of the list; it is for {listed(with_explained())}: "
            "set one of these, or another score_mode"
        )


def is_lost(values: Mapping[str, Any], method: Method, *, added_up: bool) -> bool:
    """Whether the score mode among ``values`` does not go with a method.

    Args:
        values: framework, score_mode.
        added_up: whether its attention is added up as ICR does.
    """
    if values["score_mode"] == "lift":
        return not (_is_joint(method) and added_up)
    return values["score_mode"] in ABSOLUTE and not _may_explain(values["framework"], method)


def _is_joint(method: Method) -> bool:
    return method.adds_up and method.framework == "listwise"


def _may_explain(framework: str, method: Method) -> bool:
    """Whether a method has absolute scores, or a profile may yet choose one that has."""
    if framework != "auto" or not method.reads_attention:
        return bool(method.explained)
    return any(row.scoring == method.scoring for row in with_explained())


def _check_absolute(config: RerankerConfig, method: Method) -> None:
    if config.cascade is not None:
        raise ConfigError(
            f"score_mode={config.score_mode!r} does not go with cascade, whose second reading "
            "scores on another scale; leave out one of them"
        )
    if config.fusion not in ("auto", "none"):
        raise ConfigError(
            f"score_mode={config.score_mode!r} does not go with fusion={config.fusion!r}, which "
            "mixes the first stage into the scores; leave out one of them"
        )
    if not _may_explain(config.framework, method):
        check_explained(config, method)
    least = config.score_threshold
    if config.score_mode == "probability" and least is not None and not 0 < least <= 1:
        raise ConfigError(
            f"score_threshold={least} with score_mode='probability' is compared with "
            "probabilities: set it above 0 and up to 1, or leave it out"
        )


def _check_lift(config: RerankerConfig, method: Method) -> None:
    if config.calibration == "none":
        raise ValueError(
            "score_mode='lift' compares with the null query; it needs calibration='null'"
        )
    if not _is_joint(method):
        raise ValueError(
            "score_mode='lift' goes with scoring='attention' and framework='listwise' only"
        )
    if config.cascade is not None:
        raise ValueError("score_mode='lift' does not go with cascade, whose readings differ")
    if config.reading not in ("auto", "calibrated"):
        raise ConfigError(
            "score_mode='lift' compares attention as ICR adds it up, and this reranker reads "
            f"{config.reading} of its heads; leave out reading, or choose another score_mode"
        )
