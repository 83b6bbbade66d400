"""The frameworks under a deadline: what is likely good first, and only what there is time for.

Documents are given best first, so that they are read in this order, those whose states are kept
before the others. What cannot be read in time has no score; see `icr_rag.frameworks.unscored`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from icr_rag.deadline import OutOfTime, deadline, expected, in_parts, most, step
from icr_rag.frameworks.call import SETS, WINDOW, Call
from icr_rag.frameworks.listwise import rank_listwise
from icr_rag.frameworks.pointwise import rank_in_parts
from icr_rag.frameworks.result import WindowedScores
from icr_rag.frameworks.unscored import among, none_of
from icr_rag.scoring.base import InParts, KeepsStates, Listwise, Pairwise, Pointwise, Setwise

if TYPE_CHECKING:
    import torch

#: What is measured beside windows and sets, by the tokens that are run: documents of which nothing
#: is kept, and such whose states are. Each costs more the more tokens there are in it.
DOCUMENTS, KEPT = "documents", "kept"


class CallInTime(Call):
    """One ranking, as far as there is time."""

    def ranked(self) -> WindowedScores:
        """See `Call.ranked`; what there was no time for has no score."""
        if not self.documents:
            return none_of(0)
        try:
            return super().ranked()
        except OutOfTime:
            return none_of(self.count)

    def pointwise(self, each: Pointwise) -> WindowedScores:
        """Part by part, those whose states are kept first."""
        if not isinstance(each, InParts):
            # Whether its scores depend on the list, nobody can say.
            with step(DOCUMENTS, sum(self.tokens([item]) for item in range(self.count))):
                return super().pointwise(each)
        parts: InParts = each
        lacking = set(self._lacking())

        def work(item: int) -> int:
            """Tokens that are run for an item."""
            return self.tokens([item]) if item in lacking else len(self.query) + 1

        def kind(items: Sequence[int]) -> str:
            """What reading these is: of a part all have states, or none."""
            return DOCUMENTS if items[0] in lacking else KEPT

        def part(left: Sequence[int]) -> int:
            alike = [work(item) for item in left if (item in lacking) == (left[0] in lacking)]
            return _first(alike, in_parts(kind(left), sum(alike), alike[0]))

        def read(items: Sequence[int]) -> torch.Tensor:
            with step(kind(items), sum(map(work, items)), with_apart=True):
                return parts.read_each(self.query, self.of(items), self.cost)

        kept_first = sorted(range(self.count), key=lacking.__contains__)
        return rank_in_parts(kept_first, read, parts.scores_of, part)

    def listwise(self, window: Listwise) -> WindowedScores:
        """Of the longest beginning that there is time for."""
        config = self.config
        items = self._readable_with_states()

        def of(own: Sequence[int]) -> list[int]:
            return [items[place] for place in own]

        def fits(own: Sequence[int]) -> bool:
            return self.fits(of(own))

        def score(own: Sequence[int]) -> Sequence[float]:
            return self.score(window, of(own))

        def windows(count: int) -> list[int]:
            asked: list[int] = []

            def counted(own: Sequence[int]) -> Sequence[float]:
                asked.append(self.tokens(of(own)))
                return [0.0] * len(own)

            rank_listwise(count, counted, fits, config.window, config.stride)
            return asked

        # Windows begin at the bottom: where they would not get to the top, that of a shorter list.
        count = most(WINDOW, len(items), windows)
        if count <= 1 < self.count:
            return none_of(self.count)
        ranked = rank_listwise(count, score, fits, config.window, config.stride)
        return among(ranked, items[:count], self.count)

    def setwise(self, few: Setwise) -> WindowedScores:
        """Of the longest beginning that there is time to sort."""

        def sets_of(count: int) -> list[int]:
            asked: list[int] = []

            def counted(sets: Sequence[Sequence[int]]) -> list[int]:
                asked.append(sum(map(self.tokens, sets)))
                return [items.index(max(items, key=_any_order)) for items in sets]

            self.sorted_sets(count, counted)
            return asked

        return self._beginning(
            sets_of, lambda count: self.sorted_sets(count, lambda sets: self.pick(few, sets))
        )

    def pairwise(self, two: Pairwise) -> WindowedScores:
        """Likewise; of all pairs those of the first documents."""
        if self.config.sort == "all_pairs":
            return super().pairwise(two)

        def pairs_of(count: int) -> list[int]:
            asked: list[int] = []

            def counted(pairs: Sequence[tuple[int, int]]) -> list[float]:
                asked.append(sum(map(self.tokens, pairs)))
                return [float(_any_order(a) - _any_order(b)) for a, b in pairs]

            self.sorted_pairs(count, counted)
            return asked

        return self._beginning(
            pairs_of, lambda count: self.sorted_pairs(count, lambda pairs: self.prefer(two, pairs))
        )

    def _beginning(
        self, steps: Callable[[int], list[int]], ranked: Callable[[int], WindowedScores]
    ) -> WindowedScores:
        """A sort of the first documents.

        Args:
            steps: what sorting so many is likely to ask.
            ranked: sorts so many.
        """
        count = most(SETS, self.count, steps)
        if count <= 1 < self.count:
            return none_of(self.count)
        return among(ranked(count), range(count), self.count)

    def parts(self) -> Callable[[Sequence[tuple[int, int]]], int] | None:
        """See `Call.parts`: as many as there is time for."""

        def at_once(pairs: Sequence[tuple[int, int]]) -> int:
            each = list(map(self.tokens, pairs))
            return _first(each, in_parts(SETS, sum(each), each[0]))

        return at_once

    def _readable_with_states(self) -> list[int]:
        """Items that one tail can read: those whose states are kept, and those that there is time
        to encode before; all where nothing is kept."""
        everything = list(range(self.count))
        lacking, scorer = self._lacking(), self.scorer
        due = deadline()
        if not lacking or not isinstance(scorer, KeepsStates) or scorer.states is None or not due:
            return everything
        bodies = scorer.bodies(self.documents)
        read = sorted(set(everything).difference(lacking))
        with scorer.engine.settled():
            for item in lacking:
                try:
                    with due.keep_back(expected(WINDOW, self.tokens([*read, item]))):
                        _, tokens = scorer.states.encode([bodies[item]])
                except OutOfTime:
                    break
                self.cost.tokens += tokens
                if scorer.states.missing([bodies[item]]):
                    # There is no room to keep it: reading encodes what it needs.
                    return everything
                read.append(item)
            else:
                return everything
        still = set(self._lacking())
        return [item for item in everything if item not in still]

    def _lacking(self) -> list[int]:
        """Documents whose states would have to be made; all where nothing is kept of any."""
        scorer = self.scorer
        if not isinstance(scorer, KeepsStates) or scorer.states is None:
            return list(range(self.count))
        with scorer.engine.settled():
            return scorer.states.missing(scorer.bodies(self.documents))


def _first(amounts: Sequence[int], room: int) -> int:
    """How many of the first amounts together are not above ``room``; at least one."""
    together = list(accumulate(amounts))
    return max(1, bisect_right(together, room))


def _any_order(item: int) -> int:
    """How good an item is, to see what a sort asks: as if the given order said nothing."""
    return item * 7919 % 10007
