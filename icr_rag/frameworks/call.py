"""One ranking of documents as token ids, by the framework that its scorer is for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from icr_rag.deadline import step
from icr_rag.errors import ConfigError
from icr_rag.frameworks.listwise import rank_listwise
from icr_rag.frameworks.pairwise import Prefer, rank_pairwise
from icr_rag.frameworks.pointwise import rank_pointwise
from icr_rag.frameworks.result import WindowedScores
from icr_rag.frameworks.setwise import rank_setwise
from icr_rag.frameworks.sorting import Pick
from icr_rag.scoring.base import (
    Cost,
    Ids,
    Listwise,
    Pairwise,
    Pointwise,
    Scorer,
    Setwise,
)

#: What is measured, of calls without a deadline too, for those that have one: windows, and sets or
#: pairs that are asked about together. Each costs more the more tokens there are in it.
WINDOW, SETS = "window", "sets"


class Call:
    """One ranking, with all the time that it takes.

    Args:
        scorer: as `icr_rag.scoring.make.make_scorer` gives it; its settings are the framework's.
        query: token ids.
        documents: distinct, cut to fit.
        fits: whether these fit in one prompt.
        cost: added to.
    """

    def __init__(
        self,
        scorer: Scorer,
        query: Ids,
        documents: Sequence[Ids],
        fits: Callable[[Sequence[int]], bool],
        cost: Cost,
    ) -> None:
        self.scorer = scorer
        self.config = scorer.config
        self.query = query
        self.documents = documents
        self.fits = fits
        self.cost = cost
        self.count = len(documents)

    def ranked(self) -> WindowedScores:
        """The documents, ranked.

        Raises:
            ConfigError: if the scorer cannot do what its framework asks.
        """
        framework, scorer = self.scorer.framework, self.scorer
        if framework == "pointwise" and isinstance(scorer, Pointwise):
            return self.pointwise(scorer)
        if framework == "listwise" and isinstance(scorer, Listwise):
            return self.listwise(scorer)
        if framework == "setwise" and isinstance(scorer, Setwise):
            return self.setwise(scorer)
        if framework == "pairwise" and isinstance(scorer, Pairwise):
            return self.pairwise(scorer)
        raise ConfigError(f"{type(scorer).__name__} cannot rank {framework!r}")

    def pointwise(self, each: Pointwise) -> WindowedScores:
        """Each document by itself."""
        return rank_pointwise(
            self.count, lambda items: each.score_each(self.query, self.of(items), self.cost)
        )

    def listwise(self, window: Listwise) -> WindowedScores:
        """In windows, from the bottom up."""
        return rank_listwise(
            self.count,
            lambda items: self.score(window, items),
            self.fits,
            self.config.window,
            self.config.stride,
        )

    def setwise(self, few: Setwise) -> WindowedScores:
        """By the best of a few, again and again."""
        return self.sorted_sets(self.count, lambda sets: self.pick(few, sets))

    def sorted_sets(self, count: int, pick: Pick) -> WindowedScores:
        """The first documents, sorted by what is picked."""
        return rank_setwise(
            count,
            pick,
            set_size=self.config.set_size,
            sort=self.config.sort,
            top=self.config.sort_top,
        )

    def pairwise(self, two: Pairwise) -> WindowedScores:
        """By comparisons of two."""
        return self.sorted_pairs(self.count, lambda pairs: self.prefer(two, pairs))

    def sorted_pairs(self, count: int, prefer: Prefer) -> WindowedScores:
        """The first documents, sorted by what is preferred."""
        return rank_pairwise(
            count,
            prefer,
            sort=self.config.sort,
            top=self.config.sort_top,
            parts=self.parts(),
        )

    # --- what a framework asks of a scorer -------------------------------------------------

    def score(self, window: Listwise, items: Sequence[int]) -> Sequence[float]:
        """A window's scores."""
        with step(WINDOW, self.tokens(items)):
            return window.score(self.query, self.of(items), self.cost)

    def pick(self, few: Setwise, sets: Sequence[Sequence[int]]) -> Sequence[int]:
        """The place of the best of each set."""
        with step(SETS, sum(map(self.tokens, sets))):
            return few.pick(self.query, [self.of(items) for items in sets], self.cost)

    def prefer(self, two: Pairwise, pairs: Sequence[tuple[int, int]]) -> Sequence[float]:
        """The margin of each pair."""
        given = [(self.documents[a], self.documents[b]) for a, b in pairs]
        with step(SETS, sum(map(self.tokens, pairs))):
            return two.prefer(self.query, given, self.cost)

    def parts(self) -> Callable[[Sequence[tuple[int, int]]], int] | None:
        """How many of some pairs to ask about at once; None: all."""
        return None

    def of(self, items: Sequence[int]) -> list[Ids]:
        """Documents by their places."""
        return [self.documents[item] for item in items]

    def tokens(self, items: Sequence[int]) -> int:
        """Of a prompt that these documents share."""
        return self._around + sum(len(self.documents[item]) for item in items)

    @cached_property
    def _around(self) -> int:
        return self.scorer.prompts.overhead(self.query)
