"""Settings that must agree with each other and mean something.

Functions raise `ValueError`, for pydantic, or `ConfigError`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from icr_rag.config_auto import check_auto
from icr_rag.config_passages import check_passages, without_passages
from icr_rag.config_passages import is_lost as are_lost
from icr_rag.config_scores import ABSOLUTE, check_score_mode, is_lost
from icr_rag.errors import ConfigError
from icr_rag.method import AUTO
from icr_rag.methods import (
    SORTS,
    WITH_NULL,
    Method,
    find_method,
    listed,
    methods,
    scorings,
    using,
)

if TYPE_CHECKING:
    from icr_rag.config import RerankerConfig

_STATES = ("states_dir", "states_dtype", "states_memory")


@dataclass(frozen=True)
class Use:
    """One reading of a reranker, which may have two: a method, and what it does not look at.

    Attributes:
        idle: settings of attention that its readings of heads leave alone -> why, as the end of
            a sentence. Empty where a profile that is not read yet decides it.
        added_up: whether attention is added up as ICR does (arXiv 2410.02642).
    """

    method: Method
    idle: Mapping[str, str] = field(default_factory=dict)
    added_up: bool = False

    def looks_at(self, setting: str) -> bool:
        """Whether a setting means something to it."""
        return self.method.uses(setting) and setting not in self.idle


def check_scoring(scoring: str) -> None:
    """Raise `ValueError` for a mechanism that no method has."""
    known = [AUTO, *scorings()]
    if scoring not in known:
        *others, last = map(repr, known)
        raise ValueError(f"Input should be {', '.join(others)} or {last}")


def check_together(config: RerankerConfig) -> None:
    """Raise `ValueError`, or `ConfigError`, for settings that exclude each other or are useless."""
    if config.scoring == AUTO:
        check_auto(config)
        return
    if config.stride is not None and config.window is not None and config.stride >= config.window:
        raise ValueError(
            f"stride ({config.stride}) must be smaller than window ({config.window}), "
            "so that windows overlap"
        )
    _check_contradictions(config)
    check_meaning(config, uses_of(dict(config)))
    if config.device_map is not None and config.device != "auto":
        raise ValueError("device and device_map exclude each other; set one of them")


def is_set(config: RerankerConfig, name: str) -> bool:
    """Whether a setting has another value than its default."""
    found: object = getattr(config, name)
    return bool(found != type(config).model_fields[name].default)


def uses_of(values: Mapping[str, Any]) -> list[Use]:
    """The ways in which a reranker with these settings may read, as far as it is known without
    the model: with ``framework="auto"`` a profile may choose another framework.

    Args:
        values: all settings, scoring="auto" replaced.

    Raises:
        ConfigError: if the settings that a method is found by do not go together.
    """
    scoring, states = values["scoring"], values["document_states"]
    first = find_method(scoring, values["framework"], values["likelihood"], states)
    found = [first]
    if values["framework"] == "auto" and first.reads_attention:
        found += [
            row
            for row in methods()
            if row.scoring == scoring
            and row is not first
            and states in row.document_states
            # Profiles that ship are for one prompt with all documents, or one for each.
            and (values["profile"] is not None or row.framework == "pointwise")
        ]
    uses = [_use(row, values) for row in found]
    if values["cascade"] is not None:
        uses.append(second_use(values))
    return uses


def second_use(values: Mapping[str, Any]) -> Use:
    """How the second reading of a cascade reads."""
    row = find_method("attention", values["cascade_framework"], "query", "joint")
    return _use(row, {**values, "profile": None, "reading": "auto"})


def _use(method: Method, values: Mapping[str, Any]) -> Use:
    if not method.reads_attention or values["profile"] is not None:
        return Use(method)
    reading, added_up = method.read(values["reading"])
    return known_use(method, {reading}, added_up, values)


def known_use(
    method: Method, readings: Collection[str], added_up: bool, values: Mapping[str, Any]
) -> Use:
    """How a method reads once it is known what it takes of heads.

    Args:
        readings: of `icr_rag.model.reading.READINGS`, those that are taken.
        added_up: whether attention is added up as ICR does, not weighted by heads.
        values: calibration, score_mode.
    """
    reads = f"reads {', '.join(sorted(readings))} of its heads"
    idle: dict[str, str] = {}
    if WITH_NULL.isdisjoint(readings):
        idle |= {"calibration": reads, "null_query": reads}
    elif values["calibration"] == "none":
        idle["null_query"] = "has calibration='none'"
    if "calibrated" not in readings:
        idle["token_mask"] = reads
    if not added_up:
        idle["aggregation"] = reads
    elif values["score_mode"] == "lift":
        idle["aggregation"] = "has score_mode='lift', a ratio of sums"
    return Use(method, idle, added_up)


def check_meaning(config: RerankerConfig, uses: Sequence[Use]) -> None:
    """Raise `ConfigError` for a setting that nothing of a reranker looks at.

    Args:
        config: its settings.
        uses: how it reads, the first reading first.
    """
    values = dict(config)
    asked = {name for name in values if is_set(config, name)}
    for name, why in useless(values, uses, asked):
        raise ConfigError(f"{name}={values[name]!r} {why}")
    first = uses[0]
    weighs = config.profile is not None and bool(first.idle) and not first.added_up
    if config.score_mode == "lift" and weighs:
        raise ConfigError(
            "score_mode='lift' compares attention as ICR adds it up, and profile="
            f"{config.profile!r} weighs heads; leave it out, or choose another score_mode"
        )


def useless(
    values: Mapping[str, Any], uses: Sequence[Use], asked: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Settings that nothing looks at, whatever their value, and what to say of them.

    Args:
        values: all settings.
        uses: how a reranker with them reads.
        asked: which settings are in question.
    """
    return ((name, why) for name, why in _useless(values, uses, asked) if name in asked)


def _useless(
    values: Mapping[str, Any], uses: Sequence[Use], asked: Collection[str]
) -> Iterator[tuple[str, str]]:
    if values["document_states"] == "joint":
        for name in _STATES:
            yield (
                name,
                "means nothing with document_states='joint'; set document_states='independent'",
            )
        yield "cascade", "follows a reading of kept states; set document_states='independent'"
    if values["cascade"] is None:
        yield "cascade_framework", "means nothing without cascade; set cascade=20"
    yield (
        "prefer",
        f"means nothing with scoring={values['scoring']!r}, which leaves nothing to choose; set "
        "scoring='auto', or leave it out",
    )
    if values["rank_fields"] is None:
        yield "rank_fields_format", "means nothing without rank_fields; set these, or leave it out"
    first = uses[0]
    if values["score_mode"] not in ABSOLUTE:
        yield (
            "min_answerable",
            f"means nothing with score_mode={values['score_mode']!r}, whose scores say which "
            "documents of a list are better; set score_mode='probability' or 'explained', or leave "
            "it out",
        )
        if not first.method.reads_attention and first.method.uses("profile"):
            yield (
                "profile",
                f"means nothing with scoring={values['scoring']!r}, which reads no heads, and "
                f"score_mode={values['score_mode']!r}; set score_mode='probability', or leave it "
                "out",
            )
    # In the order of the settings, so that a message is about the same one each time.
    for name in (name for name in values if name in asked):
        if any(use.looks_at(name) for use in uses):
            continue
        if first.method.uses(name):
            yield name, f"means nothing here: this reranker {first.idle[name]}; leave it out"
            continue
        framework = values["framework"] if values["framework"] == "auto" else first.method.framework
        states = values["document_states"]
        kept = "" if states == "joint" else f" and document_states={states!r}"
        yield (
            name,
            f"means nothing with scoring={values['scoring']!r} and framework={framework!r}{kept}; "
            f"it is for {listed(using(name))}: set one of these (`switched` changes the method and "
            "drops what is for another), or leave it out",
        )
    if values["sort"] == "all_pairs":
        yield "sort_top", "means nothing with sort='all_pairs', which finds all ranks; leave it out"
    yield from without_passages(values)
    if values["fusion"] not in ("rrf", "weighted"):
        yield (
            "fusion_weight",
            f"means nothing with fusion={values['fusion']!r}; it is for fusion='rrf' and "
            "'weighted': set one of these, or leave it out",
        )
    unasked = f"fusion={values['fusion']!r}; it is for fusion='auto'"
    if values["fusion"] == "auto":
        unasked = f"score_mode={values['score_mode']!r}, for which the first stage does not count"
    if values["fusion"] != "auto" or values["score_mode"] in (*ABSOLUTE, "lift"):
        for name in ("first_stage_weights", "embedder"):
            yield name, f"means nothing with {unasked}: change that, or leave it out"


def meaningless(values: Mapping[str, Any]) -> set[str]:
    """The settings to drop: nothing looks at them, or the method lacks their value."""
    uses = uses_of(values)
    found = {name for name, _ in useless(values, uses, values)}
    if values["sort"] not in SORTS.get(uses[0].method.framework, ()):
        found.add("sort")
    if is_lost(values, uses[0].method, added_up=uses[0].added_up):
        found.add("score_mode")
    if are_lost(values["passages"], values["framework"], uses[0].method):
        found.add("passages")
    return found


def _check_contradictions(config: RerankerConfig) -> None:
    method = config.method
    allowed = SORTS.get(method.framework, ())
    if allowed and config.sort not in allowed:
        raise ConfigError(
            f"sort={config.sort!r} does not go with framework={method.framework!r}; allowed are "
            f"{', '.join(allowed)}"
        )
    if isinstance(config.heads, tuple) and config.layers == "all":
        raise ValueError("layers='all' means nothing beside single heads; leave it out")
    if isinstance(config.heads, tuple) and isinstance(config.layers, tuple):
        first, last = config.layers
        outside = [pair for pair in config.heads if not first <= pair[0] <= last]
        if outside:
            raise ValueError(f"heads {outside} lie outside layers={config.layers}")
    if config.reading == "lift" and config.calibration == "none":
        raise ValueError("reading='lift' compares with the null query; set calibration='null'")
    explicit = [name for name in ("layers", "heads", "reading") if is_set(config, name)]
    if config.profile is not None and explicit and method.reads_attention:
        raise ValueError(
            f"profile says which layers and heads to read, and so do {', '.join(explicit)}; "
            "set one or the other"
        )
    check_score_mode(config)
    check_passages(config)
