"""From a configuration to its scorer: one look-up in the table of methods."""

from __future__ import annotations

import importlib

from icr_rag.config import RerankerConfig
from icr_rag.config_checks import check_explained, check_meaning
from icr_rag.errors import ConfigError
from icr_rag.methods import Method, find_method
from icr_rag.model.engine import Engine
from icr_rag.scoring.base import Listwise, Pairwise, Pointwise, Scorer, Setwise
from icr_rag.scoring.selection import select_heads

#: Framework -> what a scorer must be able to do for it.
ASKED = {
    "pointwise": Pointwise,
    "listwise": Listwise,
    "setwise": Setwise,
    "pairwise": Pairwise,
}


def make_scorer(engine: Engine, config: RerankerConfig) -> Scorer:
    """The scorer for a configuration.

    Raises:
        ConfigError: if there is no such method, its scorer cannot be imported or cannot do what
            its framework asks, or a setting means nothing to the framework that a profile chose.
    """
    method = config.method
    if method.reads_attention:
        framework = select_heads(config, engine.text_config).framework
        method = find_method(config.scoring, framework, config.likelihood, config.document_states)
        check_meaning(config, method)
        check_explained(config, method)
    scorer = scorer_class(method)(engine, config, method.framework)
    asked = ASKED[method.framework]
    if not isinstance(scorer, asked):
        raise ConfigError(
            f"{method.scorer} cannot do what framework={method.framework!r} asks of it; see "
            f"icr_rag.scoring.base.{asked.__name__}"
        )
    return scorer


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
