"""From scores to an order: stable, blank documents last, cut to ``top_n``."""

from __future__ import annotations

import math
from collections.abc import Sequence

from icr_rag.types import Document, RankedDocument, Ranking, Usage


def stable_order(scores: Sequence[float]) -> list[int]:
    """Positions by descending score; equal scores keep their order."""
    return sorted(range(len(scores)), key=lambda position: -scores[position])


def below(scores: Sequence[float]) -> float:
    """A finite score for what was not read: lower than all others, and never above 0."""
    return min(0.0, math.nextafter(min(scores), -math.inf)) if scores else 0.0


def make_ranking(
    documents: Sequence[Document],
    order: Sequence[int],
    scores: Sequence[float],
    groups: Sequence[int],
    usage: Usage,
    top_n: int | None,
) -> Ranking:
    """Put a ranking together.

    Args:
        documents: in input order.
        order: input positions, best first; a permutation.
        scores, groups: in input order.
        usage: what it cost.
        top_n: how many hits to keep; None: all.
    """
    kept = order if top_n is None else order[:top_n]
    hits = tuple(RankedDocument(i, float(scores[i]), documents[i]) for i in kept)
    return Ranking(hits, tuple(float(score) for score in scores), tuple(groups), usage)
