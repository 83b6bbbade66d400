"""From scores to what is shown: score modes, near-duplicates, thresholds, hits.

Works on numbers and texts; it holds no model code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from icr_rag.config import RerankerConfig
from icr_rag.duplicates import near_duplicates
from icr_rag.order import standardised
from icr_rag.types import Document, RankedDocument, Ranking, Usage


@dataclass(frozen=True)
class Scored:
    """A ranked list, by input position.

    Attributes:
        order: input positions, best first; a permutation.
        scores: one float per input position; higher is better, never rising along ``order``.
        groups: one integer per input position; scores compare within a group, -1 is unread.
        duplicates: a near-duplicate's position -> that of the better document that it repeats.
        passages: position of a document that was split -> where its best passage is in its text.
    """

    order: list[int]
    scores: list[float]
    groups: list[int]
    duplicates: Mapping[int, int] = field(default_factory=dict)
    passages: Mapping[int, tuple[int, int]] = field(default_factory=dict)


def present(scored: Scored, documents: Sequence[Document], config: RerankerConfig) -> Scored:
    """Show scores as asked for, and leave out what the configuration leaves out.

    Args:
        scored: the ranking of all documents.
        documents: in input order.
        config: score_mode, near_duplicates, score_threshold.
    """
    scored = replace(scored, scores=shown_scores(scored, config.score_mode))
    if config.near_duplicates is not None:
        texts = [documents[position].content for position in scored.order]
        repeats = near_duplicates(texts, config.near_duplicates)
        duplicates = {scored.order[place]: scored.order[of] for place, of in repeats.items()}
        kept = [position for position in scored.order if position not in duplicates]
        scored = replace(scored, order=kept, duplicates=duplicates)
    if config.score_threshold is not None:
        least = config.score_threshold
        kept = [position for position in scored.order if scored.scores[position] >= least]
        scored = replace(scored, order=kept)
    return scored


def shown_scores(scored: Scored, mode: str) -> list[float]:
    """The scores in the unit of ``score_mode``; the order stays as it is.

    "share": softmax of the scores in units of their standard deviation, so that it does not
    depend on how many layers and heads are added up; over the documents of the window that
    decided the top of the list, 0 for those that did not get into it.
    """
    if mode == "rank":
        place = {position: number for number, position in enumerate(scored.order)}
        return [1.0 / (place[position] + 1) for position in range(len(scored.order))]
    if mode != "share" or not scored.order:
        return scored.scores
    top = scored.groups[scored.order[0]]
    if top < 0:
        return [0.0] * len(scored.scores)
    members = [position for position in scored.order if scored.groups[position] == top]
    shares = _softmax(standardised([scored.scores[position] for position in members]))
    shown = [0.0] * len(scored.scores)
    for position, share in zip(members, shares, strict=True):
        shown[position] = share
    return shown


def unread(count: int, score: float = 0.0) -> Scored:
    """Documents that were not read, because they are blank or it failed: input order, one score."""
    return Scored(list(range(count)), [score] * count, [-1] * count)


def make_ranking(
    documents: Sequence[Document],
    scored: Scored,
    usage: Usage,
    top_n: int | None,
    error: str | None = None,
) -> Ranking:
    """Put a ranking together.

    Args:
        documents: in input order.
        scored: what to return, best first, and the scores of all.
        usage: what it cost.
        top_n: how many hits to keep; None: all.
        error: why the input order is returned instead of a ranking, if it is.
    """
    kept = scored.order if top_n is None else scored.order[:top_n]
    scores = tuple(float(score) for score in scored.scores)
    hits = tuple(RankedDocument(i, scores[i], documents[i], scored.passages.get(i)) for i in kept)
    return Ranking(hits, scores, tuple(scored.groups), usage, dict(scored.duplicates), error)


def _softmax(values: Sequence[float]) -> list[float]:
    largest = max(values)
    powers = [math.exp(value - largest) for value in values]
    total = math.fsum(powers)
    return [power / total for power in powers]
