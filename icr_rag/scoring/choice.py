"""How a reranker reads, once the model's shape is known: what "auto" stands for is settled here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from icr_rag.config import RerankerConfig
from icr_rag.config_auto import open_to, with_scoring
from icr_rag.config_checks import check_meaning, known_use, second_use
from icr_rag.config_passages import check_folding
from icr_rag.config_scores import check_explained
from icr_rag.errors import ConfigError
from icr_rag.method import AUTO
from icr_rag.methods import Method, find_method
from icr_rag.profiles import HeldOut, Profile
from icr_rag.profiles.shipped import shipped_profile
from icr_rag.scoring.judge import check_judged
from icr_rag.scoring.selection import Selection, leaves_the_choice, select_heads

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

#: Held-out figures that are closer than this are alike; the cheaper way of scoring is taken.
ALIKE = 0.005

#: Why, where nobody has measured.
UNMEASURED = "no held-out figures for this model"


@dataclass(frozen=True)
class Choice:
    """What is read, and why so.

    Attributes:
        config: the settings, scoring="auto" replaced.
        method: with the framework that a profile chose.
        selection: layers and heads; None: no attention is read.
        reason: why this way of scoring, as a clause.
    """

    config: RerankerConfig
    method: Method
    selection: Selection | None
    reason: str = "as asked for"


def choose(
    config: RerankerConfig, text_config: PreTrainedConfig, *, lm_head: bool = True
) -> Choice:
    """The method of a configuration for a model, and what it reads.

    With scoring="auto": of the ways of scoring that have a use for all settings, with
    prefer="quality" the one with the best held-out figure in the profile that is used, of those
    that are `ALIKE` the cheapest; with prefer="speed", or where there are no figures, the cheapest.
    Given ``profile=FILE`` it is what the file was made for, or query likelihood without its heads
    if the file's figures say that this is better.

    Args:
        text_config: transformers configuration of the whole model, not of a truncated one.
        lm_head: whether the model may have one; without it "auto" stands for attention.

    Raises:
        ConfigError: if a setting means nothing to the method, or the profile does not fit.
    """
    if config.scoring != AUTO:
        return _concrete(config, text_config)
    if config.profile is not None:
        return _of_file(config, Profile.load(config.profile), text_config, lm_head=lm_head)
    fitting: list[Choice] = []
    refused: list[ConfigError] = []
    for one in open_to(config):
        try:
            fitting.append(_concrete(one, text_config))
        except ConfigError as error:
            refused.append(error)
    if not fitting:
        raise refused[0]
    headless = [one for one in fitting if not one.method.needs_lm_head]
    if not lm_head and headless:
        return replace(headless[0], reason="the model has no LM head")
    if len(fitting) == 1:
        return replace(fitting[0], reason="the other settings are for it alone")
    if config.prefer == "speed":
        return replace(fitting[0], reason="prefer='speed'")
    return _best(fitting, *_shipped_figures(fitting, text_config)) or replace(
        fitting[0], reason=UNMEASURED
    )


def _concrete(config: RerankerConfig, text_config: PreTrainedConfig) -> Choice:
    """The choice where scoring is not "auto"."""
    if not config.method.reads_attention:
        check_judged(config, config.method, text_config)
        return Choice(config, config.method, None)
    selection = select_heads(config, text_config)
    states = config.document_states
    method = find_method(config.scoring, selection.framework, config.likelihood, states)
    values = dict(config)
    uses = [known_use(method, selection.readings, selection.weights is None, values)]
    if config.cascade is not None:
        uses.append(second_use(values))
    check_meaning(config, uses)
    check_explained(config, method)
    check_judged(config, method, text_config)
    check_folding(config, method)
    return Choice(config, method, selection)


def _of_file(
    config: RerankerConfig, profile: Profile, text_config: PreTrainedConfig, *, lm_head: bool
) -> Choice:
    """The choice for ``profile=FILE``: what it was made for, or likelihood without its heads."""
    own = _concrete(with_scoring(config, profile.scoring), text_config)
    own = replace(own, reason=f"profile {config.profile} was made for it")
    held_out = profile.held_out
    # Absolute scores have their meaning from the file, for its own way of scoring.
    fixed = config.absolute or config.prefer == "speed" or own.selection is None or not lm_head
    if held_out is None or fixed:
        return own
    try:
        other = _concrete(with_scoring(config, "likelihood", profile=None), text_config)
    except ConfigError:
        # Another setting is for the heads.
        return own
    pair = (own, other) if profile.scoring == "attention" else (other, own)
    return _best(pair, _figures(pair, held_out), held_out) or own


def _shipped_figures(
    fitting: Sequence[Choice], text_config: PreTrainedConfig
) -> tuple[dict[str, float], HeldOut | None]:
    """Way of scoring -> its figure, where it would read what was measured; and where from."""
    shipped = {}
    for one in fitting:
        own = one.config
        if one.selection is not None and leaves_the_choice(own):
            found = shipped_profile(text_config, own.scoring, own.framework, own.document_states)
            if found is not None:
                shipped[own.scoring] = found
    held_out = next((item.held_out for item in shipped.values() if item.held_out), None)
    if held_out is None:
        return {}, None
    read = [one for one in fitting if one.selection is None or one.config.scoring in shipped]
    return _figures(read, held_out), held_out


def _figures(read: Sequence[Choice], held_out: HeldOut) -> dict[str, float]:
    """Way of scoring -> its figure, but for other variants than the one that was measured."""
    measured = {
        one.config.scoring
        for one in read
        if one.selection is not None or one.method.variant == "query"
    }
    return {name: value for name, value in held_out.figures().items() if name in measured}


def _best(
    fitting: Sequence[Choice], figures: Mapping[str, float], held_out: HeldOut | None
) -> Choice | None:
    """The best by its figure, of those alike the cheapest; None if nothing can be compared.

    Args:
        fitting: the cheapest first.
        figures: way of scoring -> its figure. held_out: what it is.
    """
    if held_out is None or len(figures) < 2:
        return None
    most = max(figures.values())
    alike = [one for one in fitting if most - figures.get(one.config.scoring, -1.0) < ALIKE]
    chosen = alike[0]
    told = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
    told = f"held-out {held_out.measure} over {held_out.queries} queries: {told}"
    if figures[chosen.config.scoring] < most:
        told += f"; within {ALIKE} of the best, and cheaper"
    return replace(chosen, reason=told)
