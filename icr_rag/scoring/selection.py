"""Which layers and heads a reranker reads: settings, profile, shipped profile, in this order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from icr_rag.config import RerankerConfig
from icr_rag.errors import ConfigError
from icr_rag.methods import resolve_framework
from icr_rag.profiles import HeadWeight, Profile, Shape
from icr_rag.profiles.shipped import auto_layers, shipped_profile


@dataclass(frozen=True)
class Selection:
    """What is read.

    Attributes:
        framework: "auto" replaced.
        layers: ascending, 0-indexed; nothing above the last is run.
        heads: layer -> heads read, None for all of that layer.
        weights: weighted readings; None for ICR's own sum over all that is read.
        likelihood_weight: of the query likelihood in mixed scoring, beside attention's 1.
        first_stage_weight: of the first stage's order beside the score's 1, as the profile has it;
            0: none.
        scores_weight: of the first stage's scores likewise; None: it does not say.
        source: where the selection comes from, as a clause.
    """

    framework: str
    layers: list[int]
    heads: dict[int, list[int] | None]
    weights: tuple[HeadWeight, ...] | None
    source: str
    likelihood_weight: float = 0.0
    first_stage_weight: float = 0.0
    scores_weight: float | None = None

    @property
    def readings(self) -> frozenset[str]:
        """Which of `icr_rag.model.reading.READINGS` are needed: ICR's own, or those with a
        weight."""
        if self.weights is None:
            return frozenset({"calibrated"})
        return frozenset(item.reading for item in self.weights)


#: Weight of query likelihood beside attention's 1 where no profile says better; docs/study.md.
LIKELIHOOD_WEIGHT = 2.0


def select_heads(config: RerankerConfig, text_config: Any) -> Selection:
    """The selection for a configuration and a model.

    Explicit ``heads`` or ``layers`` go before everything. Else ``profile=FILE`` is read, else the
    shipped profile for a model of this shape is taken, else a window of layers.

    Args:
        config: model, layers, heads, reading, profile, scoring, framework. scoring="auto" is
            taken as for a model of which nothing is known; `icr_rag.scoring.choice` knows more.
        text_config: transformers configuration of the whole model, not of a truncated one.

    Raises:
        ConfigError: if the model lacks these layers or heads, or the profile is for another
            model, scoring or framework.
    """
    config = config.settled()
    framework = resolve_framework(config.scoring, config.framework)
    if config.profile is not None:
        profile: Profile | None = _checked(Profile.load(config.profile), config, text_config)
        source = f"profile {config.profile}"
    elif leaves_the_choice(config):
        profile = shipped_profile(
            text_config, config.scoring, config.framework, config.document_states
        )
        source = "" if profile is None else profile.method
    else:
        profile = None
    if profile is not None:
        framework = profile.framework if config.framework == "auto" else config.framework
        if profile.heads:
            return _of_weights(framework, profile, source)
    if profile is not None and profile.layers is not None:
        first, last = profile.layers
        pairs: Any = [
            (layer, head)
            for layer in range(first, last + 1)
            for head in range(text_config.num_attention_heads)
        ]
    elif isinstance(config.heads, tuple):
        pairs, source = config.heads, "as asked for"
    else:
        layers, source = _layers(config, text_config)
        pairs = [
            (layer, head) for layer in layers for head in range(text_config.num_attention_heads)
        ]
    _check_heads(pairs, config, text_config)
    found = _uniform(framework, config, pairs, text_config.num_attention_heads, source)
    if profile is None:
        return found
    # A profile of layers alone has the other weights too.
    return replace(
        found,
        likelihood_weight=profile.likelihood_weight,
        first_stage_weight=profile.order_weight,
        scores_weight=profile.scores_weight,
    )


#: Settings of attention as ICR adds it up. Who changes one asks for that sum, not for weighted
#: heads.
_ADDED_UP = ("aggregation", "token_mask", "calibration", "null_query")
#: Settings of ICR's prompt with all documents.
_JOINT_PROMPT = ("double_query", "order", "window", "stride")


def leaves_the_choice(config: RerankerConfig) -> bool:
    """Whether what is read is left to the shipped profiles."""
    if config.score_mode == "lift":
        return False
    fields = type(config).model_fields
    return all(
        getattr(config, name) == fields[name].default
        for name in ("layers", "heads", "reading", *_ADDED_UP, *_JOINT_PROMPT)
    )


def _layers(config: RerankerConfig, text_config: Any) -> tuple[list[int], str]:
    from icr_rag.model._transformers import attention_layers

    count = text_config.num_hidden_layers
    # Of models that mix attention with other layers, those that have attention.
    readable = attention_layers(text_config)
    if config.layers == "all":
        return readable or list(range(count)), "as asked for"
    if config.layers == "auto":
        return auto_layers(text_config, readable)
    first, last = config.layers
    if last >= count:
        raise ConfigError(
            f"layers=({first}, {last}), but {config.model} has layers 0 to {count - 1}"
        )
    chosen = [layer for layer in readable if first <= layer <= last]
    if readable and not chosen:
        raise ConfigError(
            f"layers=({first}, {last}), but none of these has attention in {config.model}; its "
            f"layers with attention are {readable}"
        )
    return chosen or list(range(first, last + 1)), "as asked for"


def _check_heads(pairs: Any, config: RerankerConfig, text_config: Any) -> None:
    count, head_count = text_config.num_hidden_layers, text_config.num_attention_heads
    for layer, head in pairs:
        if layer >= count or head >= head_count:
            raise ConfigError(
                f"heads contains ({layer}, {head}), but {config.model} has layers 0 to "
                f"{count - 1} with heads 0 to {head_count - 1}"
            )


def _uniform(
    framework: str, config: RerankerConfig, pairs: Any, head_count: int, source: str
) -> Selection:
    """These (layer, head) pairs, each with the same weight."""
    layers = sorted({layer for layer, _ in pairs})
    heads: dict[int, list[int] | None] = {
        layer: [head for at, head in pairs if at == layer] for layer in layers
    }
    # Reading all heads of a layer at once is cheaper.
    heads = {
        k: None if chosen and len(chosen) == head_count else chosen for k, chosen in heads.items()
    }
    reading, added_up = config.method.read(config.reading)
    if added_up:
        return Selection(framework, layers, heads, None, source)
    weight = 1.0 / len(pairs)
    weights = tuple(
        HeadWeight(layer=layer, head=head, reading=reading, weight=weight)
        for layer, head in sorted(pairs)
    )
    return Selection(framework, layers, heads, weights, source, LIKELIHOOD_WEIGHT)


def _of_weights(framework: str, profile: Profile, source: str) -> Selection:
    layers = sorted({item.layer for item in profile.heads})
    heads: dict[int, list[int] | None] = {
        layer: sorted({item.head for item in profile.heads if item.layer == layer})
        for layer in layers
    }
    return Selection(
        framework,
        layers,
        heads,
        profile.heads,
        source,
        profile.likelihood_weight,
        profile.order_weight,
        profile.scores_weight,
    )


def _checked(profile: Profile, config: RerankerConfig, text_config: Any) -> Profile:
    shape = Shape.of(text_config)
    if profile.shape != shape:
        raise ConfigError(
            f"profile={config.profile!r} was made for {profile.model} ({profile.shape}), but "
            f"{config.model} is {shape}; make one with `icr-rag profile`"
        )
    if profile.scoring != config.scoring or not profile.serves(
        config.framework, config.document_states
    ):
        raise ConfigError(
            f"profile={config.profile!r} was made for scoring={profile.scoring!r}, "
            f"framework={profile.framework!r} and document_states={profile.document_states!r}, "
            f"not for {config.scoring!r}, {config.framework!r} and {config.document_states!r}; "
            "set these three, or make another one"
        )
    return profile
