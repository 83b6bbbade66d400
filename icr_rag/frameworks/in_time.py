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
from icr_rag.frameworks.call import WINDOW, Call
from icr_rag.frameworks.listwise import rank_listwise
from icr_rag.frameworks.pointwise import rank_in_parts
from icr_rag.frameworks.result import WindowedScores
from icr_rag.frameworks.unscored import among, none_of
from icr_rag.scoring.base import InParts, KeepsStates, Listwise, Pairwise, Pointwise, Setwise

if TYPE_CHECKING:
    import torch

#: What is measured beside windows; each costs more the more tokens there are in it.
_DOCUMENTS, _KEPT, _SETS, _ENCODED = "documents", "kept", "sets", "encoded"


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
            with step(_DOCUMENTS, sum(self.tokens([item]) for item in range(self.count))):
                return super().pointwise(each)
        parts: InParts = each
        lacking = set(self._lacking())

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

    def pick(self, few: Setwise, sets: Sequence[Sequence[int]]) -> Sequence[int]:
        """See `Call.pick`."""
        with step(_SETS, sum(map(self.tokens, sets))):
            return super().pick(few, sets)

    def prefer(self, two: Pairwise, pairs: Sequence[tuple[int, int]]) -> Sequence[float]:
        """See `Call.prefer`."""
        with step(_SETS, sum(map(self.tokens, pairs))):
            return super().prefer(two, pairs)

    def parts(self) -> Callable[[Sequence[tuple[int, int]]], int] | None:
        """See `Call.parts`: as many as there is time for."""

        def at_once(pairs: Sequence[tuple[int, int]]) -> int:
            each = list(map(self.tokens, pairs))
            return _first(each, in_parts(_SETS, sum(each), each[0]))

        return at_once

    def _readable_with_states(self) -> list[int]:
        """Items that one tail can read: those whose states are kept, and those that there is time
        to encode before; all where nothing is kept."""
        everything = list(range(self.count))
        lacking, scorer, due = self._lacking(), self.scorer, deadline()
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
