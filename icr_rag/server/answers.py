"""From what is known and what was ranked to an answer with every document."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from icr_rag.config import RerankerConfig
from icr_rag.ranking import unread_score
from icr_rag.server.call import RerankAnswer
from icr_rag.server.known import Known
from icr_rag.types import Document, Ranking


def to_rank(documents: Sequence[Document], known: Sequence[Known | None]) -> list[int]:
    """Places of the documents to rank: all, as they came, where no score is known; else those
    without one that are not blank."""
    blank = _blank(documents)
    if len(blank) == len(documents):
        return []
    if not any(known):
        return list(range(len(documents)))
    return [place for place, own in enumerate(known) if own is None and place not in blank]


def make_answer(
    model: str,
    config: RerankerConfig,
    documents: Sequence[Document],
    known: Sequence[Known | None],
    places: Sequence[int],
    ranking: Ranking | None,
    queue: float = 0.0,
    late: str | None = None,
) -> RerankAnswer:
    """The answer of a call.

    Args:
        model: its public name.
        config: of the reranker.
        documents: as they are read, in the client's order.
        known: per document, what the cache has.
        places: of the documents in ``ranking``, as `to_rank` gave them.
        ranking: of these; None: none was needed, or it did not come in time.
        queue: seconds that the request waited.
        late: why documents without a score have none, where no ranking came.
    """
    scores = [unread_score(config)] * len(documents)
    cut = set()
    unscored = _blank(documents)
    for place, own in enumerate(known):
        if own is not None:
            scores[place] = own.score
            if own.cut:
                cut.add(place)
    if ranking is None:
        unscored |= set(places)
    else:
        for place, score in zip(places, ranking.scores, strict=True):
            scores[place] = score
        cut |= {places[index] for index in ranking.usage.truncated}
        unscored |= {places[index] for index in ranking.usage.unscored}
    seconds = {} if ranking is None else dict(ranking.usage.seconds)
    return RerankAnswer(
        model=model,
        scores=tuple(scores),
        order=_order(scores, unscored, places, ranking),
        probability=config.score_mode == "probability",
        tokens=0 if ranking is None else ranking.usage.tokens,
        truncated=tuple(sorted(cut)),
        cached=sum(own is not None for own in known),
        degraded=late if ranking is None else ranking.degraded,
        seconds=(*seconds.items(), ("queue", queue)),
    )


def new_scores(
    documents: Sequence[Document], places: Sequence[int], ranking: Ranking
) -> list[tuple[Document, Known]]:
    """What was read, and its scores, but for documents that were not read."""
    blank, unscored, cut = _blank(documents), ranking.usage.unscored, ranking.usage.truncated
    return [
        (documents[place], Known(ranking.scores[index], index in cut))
        for index, place in enumerate(places)
        if index not in unscored and place not in blank
    ]


def _order(
    scores: Sequence[float],
    unscored: Collection[int],
    places: Sequence[int],
    ranking: Ranking | None,
) -> tuple[int, ...]:
    """All places, best first: the ranking's own order where it has them all; else by score, what
    was not scored last, as it came."""
    if ranking is not None and len(ranking.hits) == len(scores):
        return tuple(places[hit.index] for hit in ranking.hits)
    every = range(len(scores))
    return tuple(sorted(every, key=lambda place: (place in unscored, -scores[place], place)))


def _blank(documents: Sequence[Document]) -> set[int]:
    return {place for place, own in enumerate(documents) if not own.content.strip()}
