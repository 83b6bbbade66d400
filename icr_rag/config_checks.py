"""Settings that must agree with each other and mean something.

Functions raise `ValueError`, for pydantic, or `ConfigError`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from icr_rag.errors import ConfigError
from icr_rag.methods import (
    KEPT,
    SORTS,
    Method,
    find_method,
    listed,
    scorings,
    using,
    with_explained,
)

if TYPE_CHECKING:
    from icr_rag.config import RerankerConfig

#: Readings of a head that compare with the null query; see `icr_rag.model.reading.READINGS`.
WITH_NULL = frozenset({"lift", "calibrated"})


def check_scoring(scoring: str) -> None:
    """Raise `ValueError` for a mechanism that no method has."""
    known = scorings()
    if scoring not in known:
        *others, last = map(repr, known)
        raise ValueError(f"Input should be {', '.join(others)} or {last}")


def check_together(config: RerankerConfig) -> None:
    """Raise `ValueError`, or `ConfigError`, for settings that exclude each other or are useless."""
    if config.stride is not None and config.window is not None and config.stride >= config.window:
        raise ValueError(
            f"stride ({config.stride}) must be smaller than window ({config.window}), "
            "so that windows overlap"
        )
    # What is settled by states comes first: it has messages of its own.
    method = _method(config)
    _check_states(config)
    check_meaning(config, method)
    _check_sort(config, method)
    _check_result(config, method)
    _check_absolute(config, method)
    _check_reading(config, method)
    if config.device_map is not None and config.device != "auto":
        raise ValueError("device and device_map exclude each other; set one of them")


def _method(config: RerankerConfig) -> Method:
    return find_method(config.scoring, config.framework, config.likelihood, config.document_states)


def is_set(config: RerankerConfig, name: str) -> bool:
    """Whether a setting has another value than its default."""
    found: object = getattr(config, name)
    return bool(found != type(config).model_fields[name].default)


def check_meaning(config: RerankerConfig, method: Method) -> None:
    """Raise `ConfigError` for a setting that means nothing to the method in use.

    Args:
        config: its settings.
        method: which may be known only when the model is: a profile may choose the framework.
    """
    for name in type(config).model_fields:
        if is_set(config, name) and not method.uses(name):
            states = config.document_states
            kept = "" if states == "joint" else f" and document_states={states!r}"
            raise ConfigError(
                f"{name}={getattr(config, name)!r} means nothing with "
                f"scoring={method.scoring!r} and framework={method.framework!r}{kept}; it is for "
                f"{listed(using(name))}: set one of these, or leave it out"
            )


def counts_first_stage(config: RerankerConfig) -> bool:
    """Whether the first stage may count. Its order and scores are about one list, so that absolute
    scores are the model's alone."""
    return config.fusion != "none" and config.score_mode != "explained"


def check_explained(config: RerankerConfig, method: Method) -> None:
    """Raise `ConfigError` for ``score_mode="explained"`` with a method that has no such score.

    Args:
        config: its settings.
        method: which may be known only when the model is.
    """
    if config.score_mode == "explained" and not method.explained:
        raise ConfigError(
            f"score_mode='explained' does not go with {method.label}, whose scores are relative to "
            f"the other documents of the list; it is for {listed(with_explained())}: set one of "
            "these, or another score_mode"
        )


def _check_absolute(config: RerankerConfig, method: Method) -> None:
    if config.score_mode != "explained":
        return
    if config.cascade is not None:
        raise ConfigError(
            "score_mode='explained' does not go with cascade, whose second reading scores on "
            "another scale; leave out one of them"
        )
    if config.fusion not in ("auto", "none"):
        raise ConfigError(
            f"score_mode='explained' does not go with fusion={config.fusion!r}, which mixes the "
            "first stage into the scores; leave out one of them"
        )
    if not _may_explain(config.framework, method):
        check_explained(config, method)


def _may_explain(framework: str, method: Method) -> bool:
    """Whether a method has absolute scores, or a profile may yet choose one that has."""
    if framework != "auto" or not method.reads_attention:
        return bool(method.explained)
    return any(row.scoring == method.scoring for row in with_explained())


def _check_states(config: RerankerConfig) -> None:
    if config.document_states == "joint":
        for name in ("states_dir", "states_dtype", "states_memory"):
            if is_set(config, name):
                raise ValueError(
                    f"{name}={getattr(config, name)!r} means nothing with "
                    "document_states='joint'; set document_states='independent'"
                )
        if config.cascade is not None:
            raise ValueError(
                f"cascade={config.cascade} follows a reading of kept states; set "
                "document_states='independent'"
            )
    if config.cascade is None and is_set(config, "cascade_framework"):
        raise ValueError("cascade_framework means nothing without cascade; set cascade=20")
    if config.cascade is not None and config.score_mode == "lift":
        raise ValueError("score_mode='lift' does not go with cascade, whose readings differ")


def _check_sort(config: RerankerConfig, method: Method) -> None:
    allowed = SORTS.get(method.framework, ())
    if allowed and config.sort not in allowed:
        raise ConfigError(
            f"sort={config.sort!r} does not go with framework={method.framework!r}; allowed are "
            f"{', '.join(allowed)}"
        )
    if config.sort == "all_pairs" and is_set(config, "sort_top"):
        raise ValueError(
            f"sort_top={config.sort_top!r} means nothing with sort='all_pairs', which finds all "
            "ranks; leave it out"
        )


def _check_reading(config: RerankerConfig, method: Method) -> None:
    if isinstance(config.heads, tuple) and isinstance(config.layers, tuple):
        first, last = config.layers
        outside = [pair for pair in config.heads if not first <= pair[0] <= last]
        if outside:
            raise ValueError(f"heads {outside} lie outside layers={config.layers}")
    if config.reading == "lift" and config.calibration == "none":
        raise ValueError("reading='lift' compares with the null query; set calibration='null'")
    explicit = [name for name in ("layers", "heads", "reading") if is_set(config, name)]
    if config.profile is not None and explicit:
        raise ValueError(
            f"profile says which layers and heads to read, and so do {', '.join(explicit)}; "
            "set one or the other"
        )
    if method.reads_attention and config.profile is None:
        readings, own_sum = readings_of(config.scoring, config.reading)
        check_readings(config, readings, own_sum=own_sum)


def readings_of(scoring: str, reading: str) -> tuple[frozenset[str], bool]:
    """What is read of heads where no profile says it, and whether attention is added up as ICR
    does (arXiv 2410.02642), not weighted by heads."""
    if reading == "auto":
        reading = "log_mass" if scoring == "mixed" else "calibrated"
    return frozenset({reading}), reading == "calibrated" and scoring == "attention"


def idle_settings(
    readings: Collection[str], *, own_sum: bool, calibration: str, score_mode: str
) -> dict[str, str]:
    """Settings of attention that these readings do not look at -> why, as the end of a sentence."""
    reads = f"reads {', '.join(sorted(readings))} of its heads"
    idle: dict[str, str] = {}
    if WITH_NULL.isdisjoint(readings):
        idle |= {"calibration": reads, "null_query": reads}
    elif calibration == "none":
        idle["null_query"] = "has calibration='none'"
    if "calibrated" not in readings:
        idle["token_mask"] = reads
    if not own_sum:
        idle["aggregation"] = reads
    elif score_mode == "lift":
        idle["aggregation"] = "has score_mode='lift', a ratio of sums"
    return idle


def check_readings(config: RerankerConfig, readings: Collection[str], *, own_sum: bool) -> None:
    """Raise `ConfigError` for a setting of attention that these readings do not look at.

    Args:
        config: calibration, null_query, token_mask, aggregation, score_mode.
        readings: of `icr_rag.model.reading.READINGS`, those that are taken of heads.
        own_sum: attention is added up as ICR does, not weighted by heads.
    """
    idle = idle_settings(
        readings,
        own_sum=own_sum,
        calibration=config.calibration,
        score_mode=config.score_mode,
    )
    for name, why in idle.items():
        if is_set(config, name):
            raise ConfigError(
                f"{name}={getattr(config, name)!r} means nothing here: this reranker {why}; "
                "leave it out"
            )
    if config.score_mode == "lift" and not own_sum:
        raise ConfigError(
            f"score_mode='lift' compares attention as ICR adds it up, and this reranker reads "
            f"{', '.join(sorted(readings))} of its heads; leave out reading and profile, or choose "
            "another score_mode"
        )


def _check_result(config: RerankerConfig, method: Method) -> None:
    if config.score_mode == "lift" and config.calibration == "none":
        raise ValueError(
            "score_mode='lift' compares with the null query; it needs calibration='null'"
        )
    if config.score_mode == "lift" and (method.scoring, method.framework) != (
        "attention",
        "listwise",
    ):
        raise ValueError(
            "score_mode='lift' goes with scoring='attention' and framework='listwise' only"
        )
    if is_set(config, "fusion_weight") and config.fusion not in ("rrf", "weighted"):
        raise ValueError(
            f"fusion_weight={config.fusion_weight} means nothing with fusion={config.fusion!r}; "
            "it is for fusion='rrf' and 'weighted': set one of these, or leave it out"
        )


def meaningless(values: Mapping[str, Any], method: Method) -> set[str]:
    """The settings among ``values`` that mean nothing to a method, or have a value that it lacks.

    Args:
        values: all settings.
    """
    found = {name for name in values if not method.uses(name)}
    if values["document_states"] == "joint":
        found |= KEPT
    if values["sort"] not in SORTS.get(method.framework, ()):
        found.add("sort")
    if method.reads_attention and values["profile"] is None:
        readings, own_sum = readings_of(method.scoring, values["reading"])
        found |= set(
            idle_settings(
                readings,
                own_sum=own_sum,
                calibration=values["calibration"],
                score_mode=values["score_mode"],
            )
        )
    if values["fusion"] not in ("rrf", "weighted"):
        found.add("fusion_weight")
    if (method.scoring, method.framework) != ("attention", "listwise"):
        found |= {"score_mode"} if values["score_mode"] == "lift" else set()
    if values["score_mode"] == "explained" and not _may_explain(values["framework"], method):
        found.add("score_mode")
    return found
