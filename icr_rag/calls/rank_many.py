"""Several queries over one list of documents: one pass where kept states allow it.

Ranking goes its usual way, query by query, and finds the scores computed already.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from icr_rag.arguments import check_query
from icr_rag.calls.candidates import Candidates
from icr_rag.calls.passages import split_documents
from icr_rag.calls.traces import traced_lists
from icr_rag.config import RerankerConfig
from icr_rag.deadline import Deadline, OutOfTime, Timing, deadline, step, timed
from icr_rag.errors import InputError, brief
from icr_rag.fields import Given
from icr_rag.model.turns import turn
from icr_rag.scoring.base import (
    AnswersTogether,
    Cost,
    Ids,
    KeepsStates,
    Listwise,
    Scorer,
    evictions,
)
from icr_rag.types import Document, DocumentLike, Ranking

logger = logging.getLogger(__name__)

#: Queries in one pass: what is saved is reading weights and states, which a few queries fill.
TOGETHER = 16
#: What is measured: a pass for all of them.
_TOGETHER = "together"


@traced_lists
def rank_lists(
    config: RerankerConfig,
    make_scorer: Callable[[Deadline | None], Scorer],
    rank: Callable[[str, Given, Scorer | None, Deadline | None], Ranking],
    queries: Sequence[str],
    given: Sequence[Given],
    start: Callable[[float], Deadline | None],
    most: int | None = None,
) -> list[Ranking]:
    """A ranking per query.

    Args:
        config: the reranker's.
        make_scorer: gives its scorer; may load the model.
        rank: ranks for one query with a scorer, None for the reranker's own, until a deadline.
        queries: as many as ``lists``.
        given: documents of each query.
        start: begins the deadline of a query of which so many seconds are gone; None: it has none.
        most: tokens of a document, where the call limits them.
    """
    rankings: dict[int, Ranking] = {}
    for places in _same_contents([own.read for own in given]):
        scorer: Scorer | None = None
        gone = 0.0
        # Without the scores that it needs, each call says so by itself.
        if len(places) > 1 and config.fusion != "weighted":
            asked = [queries[place] for place in places]
            due = start(0.0)
            try:
                with timed_for(make_scorer(due), due) as own:
                    scorer = answer_together(own, config, asked, given[places[0]].read, most)
            except OutOfTime:
                # Each for itself, with what time is left of its own.
                pass
            except Exception as error:
                if config.on_error == "raise":
                    raise
                # One by one, so that those that can be ranked are.
                logger.warning(
                    "ranking %d queries together failed: %s", len(asked), brief(str(error))
                )
            gone = 0.0 if due is None else due.elapsed
        for place in places:
            rankings[place] = rank(queries[place], given[place], scorer, start(gone))
    return [rankings[place] for place in range(len(queries))]


def check_lists(queries: Sequence[str], lists: Sequence[Sequence[DocumentLike]]) -> None:
    """Raise `InputError` unless there is one list of documents per query."""
    if isinstance(queries, str) or len(queries) != len(lists):
        count = "one string" if isinstance(queries, str) else f"{len(queries)} queries"
        raise InputError(
            f"rank_many got {count} and {len(lists)} document lists; it takes one "
            "list of documents per query"
        )


def _same_contents(lists: Sequence[list[Document]]) -> Iterator[list[int]]:
    """Places of lists that read the same, at most `TOGETHER`."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, documents in enumerate(lists):
        groups.setdefault(tuple(document.content for document in documents), []).append(place)
    for places in groups.values():
        for begin in range(0, len(places), TOGETHER):
            yield places[begin : begin + TOGETHER]


def answer_together(
    scorer: Scorer,
    config: RerankerConfig,
    queries: Sequence[str],
    documents: list[Document],
    most: int | None = None,
) -> Scorer:
    """A scorer that knows the scores of these queries; the scorer itself where it must ask.

    Args:
        scorer: of the configuration.
        config: window, max_query_tokens.
        queries: several, over the same documents.
        documents: in input order.
        most: tokens of a document, where the call limits them.
    """
    for query in queries:
        check_query(query)
    readable = any(document.content.strip() for document in documents)
    if len(queries) < 2 or not readable or not isinstance(scorer, AnswersTogether):
        return scorer
    passages = split_documents(scorer, documents, most)
    candidates = Candidates(scorer, queries[0], passages.documents, most=most)
    ids = candidates.token_ids
    in_one = config.window is None or config.window >= len(ids)
    if not ids or not in_one or not candidates.fits(range(len(ids))):
        return scorer
    with scorer.engine.lock:
        encoded = [scorer.prompts.encode_query(query) for query in queries]
    encoded = [own[: config.max_query_tokens] for own in encoded]
    # A query whose characters the tokenizer lacks is refused where it is ranked.
    wanted = [own for own in encoded if own]
    if deadline() is not None and isinstance(scorer, KeepsStates) and scorer.states is not None:
        with scorer.engine.settled():
            if scorer.states.missing(scorer.bodies(ids)):
                # Query by query, the first ones encode what there is time for.
                return scorer
    cost = Cost()
    before = evictions(scorer)
    with step(_TOGETHER, sum(map(len, ids)) + sum(map(len, wanted))):
        scores = scorer.score_queries(wanted, ids, cost)
    cost.states_evicted = evictions(scorer) - before
    return _Answered(scorer, wanted, ids, scores, cost)


@contextmanager
def timed_for(scorer: Scorer, due: Deadline | None) -> Iterator[Scorer]:
    """Under a deadline, a scorer that has its model for itself inside the block.

    Raises:
        OutOfTime: if other calls held it for too long.
    """
    if due is None:
        yield scorer
        return
    with turn(scorer.engine.lock, due), timed(Timing(scorer.pace, due, due.clock)):
        yield scorer


class _Answered(Scorer):
    """A listwise scorer that has been asked before; only its windows are asked for."""

    def __init__(
        self,
        scorer: Scorer,
        queries: Sequence[Ids],
        documents: Sequence[Ids],
        scores: Sequence[list[float]],
        cost: Cost,
    ) -> None:
        super().__init__(scorer.engine, scorer.config, scorer.framework)
        self.prompts = scorer.prompts
        self._scorer = scorer
        self._documents = [list(own) for own in documents]
        self._scores = {tuple(q): own for q, own in zip(queries, scores, strict=True)}
        self._cost = cost
        self._left = len(queries)

    def score(self, query_ids: Ids, documents: Sequence[Ids], cost: Cost) -> list[float]:
        """As the scorer's own; each query is given its share of what the pass cost."""
        known = self._scores.get(tuple(query_ids))
        if known is None or [list(own) for own in documents] != self._documents:
            # Cut differently, because another query leaves another room.
            if not isinstance(self._scorer, Listwise):
                raise TypeError(f"{type(self._scorer).__name__} scores no window")
            return self._scorer.score(query_ids, documents, cost)
        share = self._cost.tokens // max(1, self._left)
        self._cost.tokens -= share
        cost.tokens += share
        for phase, seconds in self._cost.seconds.items():
            own = seconds / max(1, self._left)
            self._cost.seconds[phase] -= own
            cost.seconds[phase] += own
        self._left -= 1
        # Whose call it was in, nobody can say: the first one tells of it.
        cost.states_evicted += self._cost.states_evicted
        self._cost.states_evicted = 0
        cost.windows += 1
        cost.calls += 1
        return list(known)
