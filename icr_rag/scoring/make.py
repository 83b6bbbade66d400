"""From a configuration to its scorer: one look-up in the table of methods."""

from __future__ import annotations

import importlib

from icr_rag.config import RerankerConfig
from icr_rag.errors import ConfigError
from icr_rag.methods import Method
from icr_rag.model.engine import Engine
from icr_rag.scoring.base import ASKED, Scorer
from icr_rag.scoring.choice import choose
from icr_rag.scoring.judge import find_judge


def make_scorer(engine: Engine, config: RerankerConfig) -> Scorer:
    """The scorer for a configuration; its own ``config`` has scoring="auto" replaced.

    Raises:
        ConfigError: if there is no such method, its scorer cannot be imported or cannot do what
            its framework asks, or a setting means nothing to what a profile chose.
    """
    # Of weights that were handed in it is known; others are loaded with what was chosen.
    headless = engine.given is not None and engine.causal is None
    chosen = choose(config, engine.text_config, lm_head=not headless)
    method = chosen.method
    scorer = scorer_class(method)(engine, chosen.config, method.framework)
    scorer.reason = chosen.reason
    asked = ASKED[method.framework]
    if not isinstance(scorer, asked):
        raise ConfigError(
            f"{method.scorer} cannot do what framework={method.framework!r} asks of it; see "
            f"icr_rag.scoring.base.{asked.__name__}"
        )
    scorer.judge = find_judge(scorer, method)
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
