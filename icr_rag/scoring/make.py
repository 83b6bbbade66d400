"""From a configuration to its scorer: one look-up in the table of methods."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from icr_rag.config import RerankerConfig
from icr_rag.config_checks import check_meaning, known_use, second_use
from icr_rag.config_passages import check_folding
from icr_rag.config_scores import check_explained
from icr_rag.errors import ConfigError
from icr_rag.methods import Method, find_method
from icr_rag.model.engine import Engine
from icr_rag.scoring.base import ASKED, Scorer
from icr_rag.scoring.judge import check_judged, find_judge
from icr_rag.scoring.selection import Selection, select_heads

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def make_scorer(engine: Engine, config: RerankerConfig) -> Scorer:
    """The scorer for a configuration.

    Raises:
        ConfigError: if there is no such method, its scorer cannot be imported or cannot do what
            its framework asks, or a setting means nothing to what a profile chose.
    """
    method, _ = chosen_method(config, engine.text_config)
    scorer = scorer_class(method)(engine, config, method.framework)
    asked = ASKED[method.framework]
    if not isinstance(scorer, asked):
        raise ConfigError(
            f"{method.scorer} cannot do what framework={method.framework!r} asks of it; see "
            f"icr_rag.scoring.base.{asked.__name__}"
        )
    scorer.judge = find_judge(scorer, method)
    return scorer


def chosen_method(
    config: RerankerConfig, text_config: PreTrainedConfig
) -> tuple[Method, Selection | None]:
    """The method, once it is known what a profile says of framework and heads, and what is read;
    None: no attention.

    Raises:
        ConfigError: if a setting means nothing to it, or the profile does not fit.
    """
    if not config.method.reads_attention:
        check_judged(config, config.method, text_config)
        return config.method, None
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
    return method, selection


def scorer_class(method: Method) -> type[Scorer]:
    """The class that a row of the table names.

    Raises:
        ConfigError: if it cannot be imported or is no scorer.
    """
    module, _, name = method.scorer.partition(":")
    try:
        found: object = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{method.label} names the scorer {method.scorer!r}, which cannot be had: {error}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Scorer)):
        raise ConfigError(
            f"{method.label} names the scorer {method.scorer!r}, which is no subclass of "
            "icr_rag.scoring.base.Scorer"
        )
    return found
