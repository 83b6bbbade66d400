"""Queries with documents of their own, read in passes that they share.

Each list is prepared as its ranking will prepare it; all documents are read together, each with its
own query behind it. Ranking then goes its usual way, list by list, and finds the rows read already.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from icr_rag.arguments import check_query
from icr_rag.calls.candidates import Candidates
from icr_rag.calls.passages import split_documents
from icr_rag.deadline import OutOfTime, deadline, step
from icr_rag.errors import ICRError, brief
from icr_rag.frameworks.in_time import DOCUMENTS, KEPT
from icr_rag.scoring.base import Cost, Ids, InParts, KeepsStates, ReadsPairs, Scorer, evictions
from icr_rag.types import Document

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

#: Lists that are read together: as many as fill so many passes with documents that are not kept,
#: and no more than so many. What is saved is passes that are not full.
_PASSES, _LISTS = 16, 64
#: Of the time until a deadline, what preparing lists, and reading them together, may take: what is
#: lost where it does not end in time is everybody's.
_PREPARING, _READING = 0.1, 0.5


@dataclass(frozen=True)
class _List:
    """One list, ready to be read.

    Attributes:
        place: among those asked for.
        query: token ids.
        documents: distinct, cut to fit.
        tokens: of all its prompts.
    """

    place: int
    query: Ids
    documents: Sequence[Ids]
    tokens: int


def read_together(
    scorer: Scorer,
    asked: Sequence[tuple[str, Sequence[Document]]],
    most: int | None = None,
    *,
    tolerant: bool = False,
) -> list[Scorer | None]:
    """Scorers that know the rows of these lists; None for a list that is to be read by itself.

    A list that cannot be read raises nothing here: its own ranking says why. Nor does a failure
    of the reading that they share, if it is one of the library's own errors: whose fault it was
    shows where each is read by itself.

    Args:
        scorer: of the configuration.
        asked: queries and the documents that are read for them.
        most: tokens of a document, where the call limits them.
        tolerant: whether other errors are left to the lists' own rankings, too.

    Returns:
        One per list of a beginning of ``asked``, as long as is worth being read at once; at least
        one. All are None where nothing is shared.
    """
    if not isinstance(scorer, ReadsPairs) or scorer.framework != "pointwise":
        return [None] * len(asked)
    lists, taken = _prepared(scorer, asked, most)
    answered: list[Scorer | None] = [None] * taken
    if len(lists) < 2:
        return answered
    costs = [Cost() for _ in lists]
    before = evictions(scorer)
    try:
        with _measured(scorer, lists):
            found = scorer.read_pairs(
                [own.query for own in lists], [own.documents for own in lists], costs
            )
    except OutOfTime:
        return answered
    except Exception as error:
        if not tolerant and not isinstance(error, ICRError):
            raise
        logger.warning("reading %d lists together failed: %s", len(lists), brief(str(error)))
        return answered
    # Whose documents made room, nobody can say: the first list tells of it.
    costs[0].states_evicted = evictions(scorer) - before
    for own, rows, cost in zip(lists, found, costs, strict=True):
        answered[own.place] = _Read(scorer, scorer, own, rows, cost)
    return answered


def _prepared(
    scorer: Scorer, asked: Sequence[tuple[str, Sequence[Document]]], most: int | None
) -> tuple[list[_List], int]:
    """The lists of a beginning of ``asked`` that can be read, and how long it is."""
    room = _PASSES * (scorer.config.prefill_chunk or scorer.engine.chunk)
    lists: list[_List] = []
    taken = 0
    for place, (query, documents) in enumerate(asked):
        due = deadline()
        late = due is not None and due.elapsed > _PREPARING * due.seconds
        if place and (room <= 0 or len(lists) == _LISTS or late):
            break
        try:
            own = _ready(scorer, place, query, documents, most)
        except OutOfTime:
            taken = max(1, taken)
            break
        except ICRError:
            own = None
        taken += 1
        if own is not None:
            lists.append(own)
            room -= own.tokens
    return lists, taken


def _ready(
    scorer: Scorer, place: int, query: str, documents: Sequence[Document], most: int | None
) -> _List | None:
    """One list, as `icr_rag.calls.rank` makes it; None if nothing of it is to be read."""
    check_query(query)
    if not any(document.content.strip() for document in documents):
        return None
    passages = split_documents(scorer, documents, most)
    candidates = Candidates(scorer, query, passages.documents, most=most)
    if not candidates.token_ids:
        return None
    tokens = sum(candidates.cost([item]) for item in range(len(candidates.token_ids)))
    return _List(place, candidates.query_ids, candidates.token_ids, tokens)


def _measured(scorer: Scorer, lists: Sequence[_List]) -> AbstractContextManager[None]:
    """What reading these lists together is measured in.

    Raises:
        OutOfTime: under a deadline, unless reading them is known to take a part of the time that
            is left. Each by itself then takes its own.
    """
    due = deadline()
    if due is None:
        return nullcontext()
    amounts = {DOCUMENTS: 0, KEPT: 0}
    for own in lists:
        lacking: Sequence[int] = range(len(own.documents))
        if isinstance(scorer, KeepsStates) and scorer.states is not None:
            with scorer.engine.settled():
                lacking = scorer.states.missing(scorer.bodies(own.documents))
        amounts[DOCUMENTS] += own.tokens * len(lacking) // len(own.documents)
        amounts[KEPT] += (len(own.query) + 1) * (len(own.documents) - len(lacking))
    there = {kind: amount for kind, amount in amounts.items() if amount}
    known = [scorer.pace.expect(kind, amount) for kind, amount in there.items()]
    seconds = [own for own in known if own is not None]
    if len(seconds) < len(known) or sum(seconds) > _READING * due.left:
        raise OutOfTime
    if len(there) > 1:
        # Of either kind it would say something wrong.
        return nullcontext()
    ((kind, amount),) = there.items()
    return step(kind, amount, with_apart=True)


class _Read(Scorer):
    """A pointwise scorer whose rows of one list are known; it is asked for them, all or in parts.

    Args:
        scorer: that read them. parts: the same.
        given: the list.
        rows: [document, ...], as it gave them.
        cost: the list's share of what they cost.
    """

    def __init__(
        self, scorer: Scorer, parts: InParts, given: _List, rows: torch.Tensor, cost: Cost
    ) -> None:
        super().__init__(scorer.engine, scorer.config, scorer.framework)
        self.prompts = scorer.prompts
        self._parts = parts
        self._query = list(given.query)
        self._place = {tuple(ids): place for place, ids in enumerate(given.documents)}
        self._rows = rows
        self._cost: Cost | None = cost

    def score_each(self, query_ids: Ids, documents: Sequence[Ids], cost: Cost) -> list[float]:
        """As the scorer's own."""
        return self.scores_of([self.read_each(query_ids, documents, cost)])

    def read_each(self, query_ids: Ids, documents: Sequence[Ids], cost: Cost) -> torch.Tensor:
        """As the scorer's own; the first part bears what all cost."""
        places = [self._place.get(tuple(ids)) for ids in documents]
        known = [place for place in places if place is not None]
        if list(query_ids) != self._query or len(known) < len(places):
            return self._parts.read_each(query_ids, documents, cost)
        if self._cost is not None:
            cost.add_shared(self._cost)
            self._cost = None
        return self._rows[known]

    def scores_of(self, rows: Sequence[torch.Tensor]) -> list[float]:
        """As the scorer's own."""
        return self._parts.scores_of(rows)
