"""Rank a call's documents: the framework that is asked for, on the scorer that goes with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from icr_rag.config import RerankerConfig
from icr_rag.frameworks.listwise import rank_listwise
from icr_rag.frameworks.pairwise import rank_pairwise
from icr_rag.frameworks.pointwise import rank_pointwise
from icr_rag.frameworks.result import WindowedScores
from icr_rag.frameworks.setwise import rank_setwise

if TYPE_CHECKING:
    from icr_rag.inputs import RankInputs
    from icr_rag.scoring.base import Cost


def rank_inputs(
    scorer: Any, config: RerankerConfig, inputs: RankInputs, cost: Cost
) -> WindowedScores:
    """The documents of ``inputs``, ranked.

    Args:
        scorer: as `icr_rag.scoring.registry.make_scorer` gives it for this configuration.
        config: scoring, framework, and what the framework looks at.
        inputs: distinct documents, cut to fit.
        cost: added to.
    """
    query, ids = inputs.query_ids, inputs.token_ids

    def of(items: Sequence[int]) -> list[list[int]]:
        return [ids[item] for item in items]

    framework = scorer.framework
    if framework == "pointwise":
        return rank_pointwise(len(ids), lambda items: scorer.score_each(query, of(items), cost))
    if framework == "setwise":
        return rank_setwise(
            len(ids),
            lambda sets: scorer.pick(query, [of(items) for items in sets], cost),
            set_size=config.set_size,
            sort=config.sort,
            top=config.sort_top,
        )
    if framework == "pairwise":
        return rank_pairwise(
            len(ids),
            lambda pairs: scorer.prefer(query, [(ids[a], ids[b]) for a, b in pairs], cost),
            sort=config.sort,
            top=config.sort_top,
        )
    return rank_listwise(
        count=len(ids),
        score=lambda items: scorer.score(query, of(items), cost),
        fits=inputs.fits,
        window=config.window,
        stride=config.stride,
    )
