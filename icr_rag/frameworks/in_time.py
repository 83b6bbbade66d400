"""The frameworks under a deadline: what is likely good first, and only what there is time for.

Documents are given best first, so that they are read in this order, those whose states are kept
before the others. What cannot be read in time has no score; see `icr_rag.frameworks.unscored`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from icr_rag.deadline import OutOfTime, deadline, enough, expected, in_parts, step
from icr_rag.errors import ConfigError
from icr_rag.frameworks.listwise import rank_listwise
from icr_rag.frameworks.pairwise import rank_pairwise
from icr_rag.frameworks.pointwise import rank_in_parts, rank_pointwise
from icr_rag.frameworks.result import WindowedScores
from icr_rag.frameworks.setwise import rank_setwise
from icr_rag.frameworks.unscored import among, none_of
from icr_rag.scoring.base import (
    Cost,
    Ids,
    InParts,
    KeepsStates,
    Listwise,
    Pairwise,
    Pointwise,
    Scorer,
    Setwise,
)

if TYPE_CHECKING:
    import torch

#: What is measured; each costs more the more tokens there are in it.
WINDOW, _DOCUMENTS, _KEPT, _SETS, _ENCODED = "window", "documents", "kept", "sets", "encoded"


def rank_in_time(
    scorer: Scorer,
    query: Ids,
    documents: Sequence[Ids],
    fits: Callable[[Sequence[int]], bool],
    cost: Cost,
) -> WindowedScores:
    """As `icr_rag.frameworks.run.rank_windows`, as far as there is time."""
    call = _Call(scorer, query, documents, fits, cost)
    if not documents:
        return none_of(0)
    try:
        if scorer.framework == "pointwise" and isinstance(scorer, Pointwise):
            return call.pointwise(scorer)
        if scorer.framework == "listwise" and isinstance(scorer, Listwise):
            return call.listwise(scorer, scorer)
        if scorer.framework == "setwise" and isinstance(scorer, Setwise):
            return call.setwise(scorer, scorer)
        if scorer.framework == "pairwise" and isinstance(scorer, Pairwise):
            return call.pairwise(scorer, scorer)
    except OutOfTime:
        return none_of(len(documents))
    raise ConfigError(f"{type(scorer).__name__} cannot rank {scorer.framework!r}")


class _Call:
    """One ranking; arguments as `rank_in_time` has them."""

    def __init__(
        self,
        scorer: Scorer,
        query: Ids,
        documents: Sequence[Ids],
        fits: Callable[[Sequence[int]], bool],
        cost: Cost,
    ) -> None:
        self.query = query
        self.documents = documents
        self.fits = fits
        self.cost = cost
        self.count = len(documents)
        self.around = scorer.prompts.overhead(query)

    def of(self, items: Sequence[int]) -> list[Ids]:
        return [self.documents[item] for item in items]

    def tokens(self, items: Sequence[int]) -> int:
        """Of documents that share a prompt."""
        return self.around + sum(len(self.documents[item]) for item in items)

    def pointwise(self, scorer: Pointwise) -> WindowedScores:
        if not isinstance(scorer, InParts):
            # Whether its scores depend on the list, nobody can say.
            whole = sum(self.tokens([item]) for item in range(self.count))
            with step(_DOCUMENTS, whole):
                return rank_pointwise(
                    self.count,
                    lambda items: scorer.score_each(self.query, self.of(items), self.cost),
                )
        parts: InParts = scorer
        lacking = set(_lacking(scorer, self.documents))

        def work(item: int) -> int:
            """Tokens that are run for an item."""
            return self.tokens([item]) if item in lacking else len(self.query) + 1

        def kind(items: Sequence[int]) -> str:
            """What reading these is: of a part all have states, or none."""
            return _DOCUMENTS if items[0] in lacking else _KEPT

        def part(left: Sequence[int]) -> int:
            alike = [work(item) for item in left if (item in lacking) == (left[0] in lacking)]
            return _first(alike, in_parts(kind(left), sum(alike), alike[0]))

        def read(items: Sequence[int]) -> torch.Tensor:
            with step(kind(items), sum(map(work, items))):
                return parts.read_each(self.query, self.of(items), self.cost)

        kept_first = sorted(range(self.count), key=lacking.__contains__)
        return rank_in_parts(kept_first, read, parts.scores_of, part)

    def listwise(self, scorer: Scorer, window: Listwise) -> WindowedScores:
        config = scorer.config
        items = self._readable_with_states(scorer)

        def of(own: Sequence[int]) -> list[int]:
            return [items[place] for place in own]

        def fits(own: Sequence[int]) -> bool:
            return self.fits(of(own))

        def score(own: Sequence[int]) -> Sequence[float]:
            with step(WINDOW, self.tokens(of(own))):
                return window.score(self.query, self.of(of(own)), self.cost)

        def in_time(count: int) -> bool:
            windows: list[int] = []

            def counted(own: Sequence[int]) -> Sequence[float]:
                windows.append(self.tokens(of(own)))
                return [0.0] * len(own)

            rank_listwise(count, counted, fits, config.window, config.stride)
            return enough(WINDOW, windows)

        # Windows begin at the bottom: where they would not get to the top, that of a shorter list.
        count = len(items)
        while count > 1 and not in_time(count):
            count = min(count - 1, 3 * count // 4)
        if count <= 1 < self.count:
            return none_of(self.count)
        ranked = rank_listwise(count, score, fits, config.window, config.stride)
        return among(ranked, items[:count], self.count)

    def setwise(self, scorer: Scorer, few: Setwise) -> WindowedScores:
        config = scorer.config

        def pick(sets: Sequence[Sequence[int]]) -> Sequence[int]:
            with step(_SETS, sum(map(self.tokens, sets))):
                return few.pick(self.query, [self.of(items) for items in sets], self.cost)

        return rank_setwise(
            self.count, pick, set_size=config.set_size, sort=config.sort, top=config.sort_top
        )

    def pairwise(self, scorer: Scorer, two: Pairwise) -> WindowedScores:
        config = scorer.config

        def prefer(pairs: Sequence[tuple[int, int]]) -> Sequence[float]:
            given = [(self.documents[a], self.documents[b]) for a, b in pairs]
            with step(_SETS, sum(map(self.tokens, pairs))):
                return two.prefer(self.query, given, self.cost)

        def parts(pairs: Sequence[tuple[int, int]]) -> int:
            each = list(map(self.tokens, pairs))
            return _first(each, in_parts(_SETS, sum(each), each[0]))

        return rank_pairwise(self.count, prefer, sort=config.sort, top=config.sort_top, parts=parts)

    def _readable_with_states(self, scorer: Scorer) -> list[int]:
        """Items that one tail can read: those whose states are kept, and those that there is time
        to encode before; all where nothing is kept."""
        everything = list(range(self.count))
        lacking = _lacking(scorer, self.documents)
        due = deadline()
        if not lacking or not isinstance(scorer, KeepsStates) or scorer.states is None or not due:
            return everything
        bodies = scorer.bodies(self.documents)
        with scorer.engine.settled(), due.keep_back(expected(WINDOW, self.tokens(everything))):
            for item in lacking:
                try:
                    with step(_ENCODED, len(bodies[item])):
                        _, tokens = scorer.states.encode([bodies[item]])
                except OutOfTime:
                    break
                self.cost.tokens += tokens
                if scorer.states.missing([bodies[item]]):
                    # There is no room to keep it: reading encodes what it needs.
                    return everything
            else:
                return everything
        still = set(_lacking(scorer, self.documents))
        return [item for item in everything if item not in still]


def _first(amounts: Sequence[int], room: int) -> int:
    """How many of the first amounts together are not above ``room``; at least one."""
    together = list(accumulate(amounts))
    return max(1, bisect_right(together, room))


def _lacking(scorer: object, documents: Sequence[Ids]) -> list[int]:
    """Documents whose states would have to be made; all where nothing is kept of any."""
    if not isinstance(scorer, Scorer):
        return list(range(len(documents)))
    if not isinstance(scorer, KeepsStates) or scorer.states is None:
        return list(range(len(documents)))
    with scorer.engine.settled():
        return scorer.states.missing(scorer.bodies(documents))
