"""The scorers of a reranker: the model is loaded as deep as they read, and no deeper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icr_rag.calls.cascade import second_config
from icr_rag.config import RerankerConfig
from icr_rag.deadline import Deadline
from icr_rag.model.engine import Engine
from icr_rag.model.loading import load_config, load_engine
from icr_rag.model.turns import turn
from icr_rag.scoring.base import Scorer
from icr_rag.scoring.choice import choose
from icr_rag.scoring.make import make_scorer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def load_scorers(
    config: RerankerConfig, due: Deadline | None = None
) -> tuple[Scorer, Scorer | None]:
    """Both scorers on weights that are loaded, or shared with other rerankers.

    Args:
        due: when who waits for others that load or use them gives up; None: never.

    Raises:
        OutOfTime: if others take too long.
        ModelLoadError: if the model cannot be loaded.
        ConfigError: if a setting does not fit the model or this machine.
    """
    found = load_config(config)
    depth, lm_head = depth_run(config, found.text)
    return scorers_on(load_engine(config, found, depth, lm_head=lm_head, due=due), config, due)


def scorers_on(
    engine: Engine, config: RerankerConfig, due: Deadline | None = None
) -> tuple[Scorer, Scorer | None]:
    """The scorer of a configuration and, for a cascade, that of the second reading.

    Raises:
        OutOfTime: if other calls hold the model for too long.
    """
    again = second_config(config)
    # Who makes scorers tokenises, and proves the model by running it.
    with turn(engine.lock, due):
        second = None if again is None else make_scorer(engine, again)
        return make_scorer(engine, config), second


def depth_run(config: RerankerConfig, text_config: PreTrainedConfig) -> tuple[int, bool]:
    """How many layers are run, and whether the LM head is.

    An LM head needs every layer; attention only those up to the last one read. What does not fit
    the model is found before its weights are loaded.

    Raises:
        ConfigError: if a setting or a profile does not fit the model.
    """
    again = second_config(config)
    readings = [config] if again is None else [config, again]
    chosen = [choose(one, text_config) for one in readings]
    deepest = text_config.num_hidden_layers - 1
    if any(one.method.needs_lm_head for one in chosen):
        return deepest + 1, True
    last = (deepest if one.selection is None else one.selection.layers[-1] for one in chosen)
    return max(last) + 1, False
