"""Settings that must agree with each other. Each function raises `ValueError`, for pydantic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icr_rag.scoring.registry import check_sort, check_states, resolve_framework

if TYPE_CHECKING:
    from icr_rag.config import RerankerConfig


def check_together(config: RerankerConfig) -> None:
    """Raise `ValueError`, or `ConfigError`, for settings that exclude each other."""
    if config.stride is not None and config.window is not None and config.stride >= config.window:
        raise ValueError(
            f"stride ({config.stride}) must be smaller than window ({config.window}), "
            "so that windows overlap"
        )
    framework = resolve_framework(config.scoring, config.framework)
    check_sort(framework, config.sort)
    if isinstance(config.heads, tuple) and isinstance(config.layers, tuple):
        first, last = config.layers
        outside = [pair for pair in config.heads if not first <= pair[0] <= last]
        if outside:
            raise ValueError(f"heads {outside} lie outside layers={config.layers}")
    if config.score_mode == "lift" and config.calibration == "none":
        raise ValueError(
            "score_mode='lift' compares with the null query; it needs calibration='null'"
        )
    if config.score_mode == "lift" and (config.scoring, framework) != ("attention", "listwise"):
        raise ValueError(
            "score_mode='lift' goes with scoring='attention' and framework='listwise' only"
        )
    _check_prompt_settings(config, framework)
    check_states(config.document_states, config.scoring, framework, config.likelihood)
    if config.document_states == "joint":
        for name in ("states_dir", "states_dtype", "states_memory"):
            if getattr(config, name) != type(config).model_fields[name].default:
                raise ValueError(
                    f"{name}={getattr(config, name)!r} means nothing with "
                    "document_states='joint'; set document_states='independent'"
                )
        if config.cascade is not None:
            raise ValueError(
                f"cascade={config.cascade} follows a reading of kept states; set "
                "document_states='independent'"
            )
    if config.cascade is None and config.cascade_framework != "listwise":
        raise ValueError("cascade_framework means nothing without cascade; set cascade=20")
    if config.cascade is not None and config.score_mode == "lift":
        raise ValueError("score_mode='lift' does not go with cascade, whose readings differ")
    if config.reading == "lift" and config.calibration == "none":
        raise ValueError("reading='lift' compares with the null query; set calibration='null'")
    explicit = [
        name
        for name, default in (("layers", "auto"), ("heads", "auto"), ("reading", "auto"))
        if getattr(config, name) != default
    ]
    if config.profile is not None and explicit:
        raise ValueError(
            f"profile says which layers and heads to read, and so do {', '.join(explicit)}; "
            "set one or the other"
        )
    if config.device_map is not None and config.device != "auto":
        raise ValueError("device and device_map exclude each other; set one of them")


def _check_prompt_settings(config: RerankerConfig, framework: str) -> None:
    """Settings of prompts that this way of scoring has not must not be silently ignored."""
    joint_attention = config.scoring == "attention" and framework in ("listwise", "setwise")
    applies = {
        "instruction": joint_attention,
        "double_query": joint_attention,
        "order": joint_attention and config.document_states == "joint",
        "window": framework == "listwise",
        "stride": framework == "listwise",
    }
    for name, does in applies.items():
        if not does and getattr(config, name) != type(config).model_fields[name].default:
            raise ValueError(
                f"{name}={getattr(config, name)!r} means nothing with scoring={config.scoring!r} "
                f"and framework={framework!r}; leave it out"
            )
