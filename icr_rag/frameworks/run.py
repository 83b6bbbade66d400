"""Rank a call's documents: the framework asked for, on the scorer that goes with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from icr_rag.deadline import deadline, step
from icr_rag.errors import ConfigError
from icr_rag.frameworks.in_time import WINDOW, rank_in_time
from icr_rag.frameworks.listwise import rank_listwise
from icr_rag.frameworks.pairwise import rank_pairwise
from icr_rag.frameworks.pointwise import rank_pointwise
from icr_rag.frameworks.result import WindowedScores
from icr_rag.frameworks.setwise import rank_setwise
from icr_rag.scoring.base import (
    Cost,
    Ids,
    Listwise,
    Pairwise,
    Pointwise,
    Scorer,
    Setwise,
)


def rank_windows(
    scorer: Scorer,
    query: Ids,
    documents: Sequence[Ids],
    fits: Callable[[Sequence[int]], bool],
    cost: Cost,
) -> WindowedScores:
    """Documents as token ids, in first-stage order, ranked.

    Args:
        scorer: as `icr_rag.scoring.make.make_scorer` gives it; its settings are the framework's.
        query: token ids.
        documents: distinct, cut to fit.
        fits: whether these fit in one prompt.
        cost: added to.

    Under a deadline some documents may be left without a score.
    """
    if deadline() is not None:
        return rank_in_time(scorer, query, documents, fits, cost)
    config = scorer.config
    count = len(documents)

    def of(items: Sequence[int]) -> list[Ids]:
        return [documents[item] for item in items]

    if scorer.framework == "pointwise" and isinstance(scorer, Pointwise):
        each: Pointwise = scorer
        return rank_pointwise(count, lambda items: each.score_each(query, of(items), cost))
    if scorer.framework == "listwise" and isinstance(scorer, Listwise):
        window: Listwise = scorer

        def score(items: Sequence[int]) -> Sequence[float]:
            # A window cannot be divided: calls with a deadline learn from others what one takes.
            with step(WINDOW, scorer.prompts.overhead(query) + sum(map(len, of(items)))):
                return window.score(query, of(items), cost)

        return rank_listwise(
            count,
            score,
            fits,
            config.window,
            config.stride,
        )
    if scorer.framework == "setwise" and isinstance(scorer, Setwise):
        few: Setwise = scorer
        return rank_setwise(
            count,
            lambda sets: few.pick(query, [of(items) for items in sets], cost),
            set_size=config.set_size,
            sort=config.sort,
            top=config.sort_top,
        )
    if scorer.framework == "pairwise" and isinstance(scorer, Pairwise):
        two: Pairwise = scorer
        return rank_pairwise(
            count,
            lambda pairs: two.prefer(query, [(documents[a], documents[b]) for a, b in pairs], cost),
            sort=config.sort,
            top=config.sort_top,
        )
    raise ConfigError(f"{type(scorer).__name__} cannot rank {scorer.framework!r}")
