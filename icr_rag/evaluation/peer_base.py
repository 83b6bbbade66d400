"""What peers share: a ranking made of an order, and the word that one cannot be run here."""

from __future__ import annotations

from collections.abc import Sequence

from icr_rag.errors import ICRError
from icr_rag.ranking import Scored, make_ranking
from icr_rag.types import Document, Ranking, Usage


class NotRunHere(ICRError):
    """A peer that this machine cannot run; the message says why."""


def ranking_of(order: Sequence[int], documents: Sequence[Document], usage: Usage) -> Ranking:
    """A `Ranking` of all documents in this order; scores fall by 1 from rank to rank."""
    scores = [0.0] * len(documents)
    for rank, position in enumerate(order):
        scores[position] = float(-rank)
    scored = Scored(list(order), scores, [0] * len(documents))
    return make_ranking(list(documents), scored, usage, None)
