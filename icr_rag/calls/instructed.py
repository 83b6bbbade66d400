"""Scorers for the instructions of calls, beside those for the instruction of the settings.

A scorer is its prompts: texts as token ids, and, with ``score_mode="explained"``, what documents
without content gave for the latest queries. Weights belong to the engine, kept document states to
the store that all scorers of one configuration share, whatever their instruction; both are counted
there.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from icr_rag.config import RerankerConfig
from icr_rag.deadline import Deadline
from icr_rag.model.turns import Turns, turn

if TYPE_CHECKING:
    from icr_rag.scoring.base import Scorer

    #: A reranker's scorer, and that of its second reading.
    Made = tuple[Scorer, Scorer | None]

#: Instructions whose scorers are kept; the least recently used go first.
MOST_INSTRUCTIONS = 16


class Instructed:
    """Scorers by instruction, the latest only. Safe under threads."""

    def __init__(self) -> None:
        #: Held while scorers are looked up or made, which loads nothing.
        self._turns = Turns()
        self._known: OrderedDict[str, Made] = OrderedDict()

    def __len__(self) -> int:
        """How many instructions have scorers now."""
        return len(self._known)

    def get(
        self,
        own: Made,
        config: RerankerConfig,
        instruction: str,
        due: Deadline | None = None,
    ) -> Made:
        """The scorers for an instruction; made on the engine of ``own`` where there are none.

        Args:
            own: the reranker's, for the instruction of its settings. config: its settings, the
                same in every call.
            instruction: checked.
            due: when the answer is; None: there is no deadline.

        Raises:
            OutOfTime: if other calls hold the model for too long.
        """
        from icr_rag.calls.load import scorers_on

        with turn(self._turns.lock, due):
            # Should they be let go of meanwhile, what is made now goes with them.
            known = self._known
            found = known.get(instruction)
            if found is None:
                engine = own[0].engine
                with turn(engine.lock, due):
                    made = scorers_on(engine, config.replace(instruction=instruction))
                    for scorer, twin in zip(made, own, strict=True):
                        if scorer is not None and twin is not None:
                            scorer.learn_from(twin)
                found = known[instruction] = made
                if len(known) > MOST_INSTRUCTIONS:
                    known.popitem(last=False)
            known.move_to_end(instruction)
            return found

    def clear(self) -> None:
        """Let go of them. Takes no turn: a call that makes one finds out when it is done."""
        self._known = OrderedDict()
