"""From scores to a ranking: stable order, fusion with the first stage, score modes, selection.

Works on numbers and texts; it holds no model code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from icr_rag.config import RerankerConfig
from icr_rag.duplicates import near_duplicates
from icr_rag.errors import InputError
from icr_rag.types import Document, RankedDocument, Ranking, Usage

#: The constant of reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009).
RRF_CONSTANT = 60


@dataclass(frozen=True)
class Scored:
    """A ranked list, by input position.

    Attributes:
        order: input positions, best first; a permutation.
        scores: one float per input position; higher is better, never rising along ``order``.
        groups: one integer per input position; scores compare within a group, -1 is unread.
        duplicates: a near-duplicate's position -> that of the better document that it repeats.
    """

    order: list[int]
    scores: list[float]
    groups: list[int]
    duplicates: Mapping[int, int] = field(default_factory=dict)


def stable_order(scores: Sequence[float]) -> list[int]:
    """Positions by descending score; equal scores keep their order."""
    return sorted(range(len(scores)), key=lambda position: -scores[position])


def below(scores: Sequence[float]) -> float:
    """A finite score for what was not read: lower than all others, and never above 0."""
    return min(0.0, math.nextafter(min(scores), -math.inf)) if scores else 0.0


def select(
    scored: Scored,
    documents: Sequence[Document],
    config: RerankerConfig,
    retrieval_scores: Sequence[float] | None,
) -> Scored:
    """Fuse, show scores as asked for, and leave out what the configuration leaves out.

    Args:
        scored: the attention ranking of all documents.
        documents: in input order.
        config: fusion, score_mode, near_duplicates, score_threshold.
        retrieval_scores: first-stage scores in input order, for ``fusion="weighted"``.
    """
    scored = fuse(scored, config.fusion, config.fusion_weight, retrieval_scores)
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


def fuse(
    scored: Scored, method: str, weight: float, retrieval_scores: Sequence[float] | None
) -> Scored:
    """Combine the attention ranking with the first stage's. Unread documents stay last.

    Args:
        method: "none" ("auto" and "prior" have been dealt with before); "rrf", reciprocal rank
            fusion of both orders, where input order is the first stage's unless its scores are
            given; "weighted", the sum of both scores, each scaled to 0..1 over the list.
        weight: of the attention ranking, 0 to 1; the first stage has the rest.
        retrieval_scores: first-stage scores in input order; "weighted" needs them.
    """
    read = [position for position, group in enumerate(scored.groups) if group >= 0]
    if method in ("none", "auto", "prior") or not read:
        return scored
    if method == "rrf":
        first_order = read
        if retrieval_scores is not None:
            first_order = sorted(read, key=lambda position: -retrieval_scores[position])
        fused = [
            weight / (RRF_CONSTANT + own + 1) + (1 - weight) / (RRF_CONSTANT + first + 1)
            for own, first in zip(
                _places(scored.order, read), _places(first_order, read), strict=True
            )
        ]
    else:
        if retrieval_scores is None:
            raise InputError(
                "fusion='weighted' needs the first stage's scores; pass retrieval_scores=, or "
                "set fusion='rrf', which needs none"
            )
        own = _scaled([scored.scores[position] for position in read])
        first = _scaled([retrieval_scores[position] for position in read])
        fused = [weight * a + (1 - weight) * b for a, b in zip(own, first, strict=True)]
    scores = [below(fused)] * len(scored.scores)
    for position, score in zip(read, fused, strict=True):
        scores[position] = score
    groups = [min(group, 0) for group in scored.groups]
    order = sorted(range(len(scores)), key=lambda i: (groups[i] < 0, -scores[i]))
    return replace(scored, order=order, scores=scores, groups=groups)


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


def unread(count: int) -> Scored:
    """Documents that were not read, because they are blank or it failed: input order, score 0."""
    return Scored(list(range(count)), [0.0] * count, [-1] * count)


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
    hits = tuple(RankedDocument(i, scores[i], documents[i]) for i in kept)
    return Ranking(hits, scores, tuple(scored.groups), usage, dict(scored.duplicates), error)


def _places(order: Sequence[int], positions: Sequence[int]) -> list[int]:
    place = {position: number for number, position in enumerate(order)}
    return [place[position] for position in positions]


def _scaled(values: Sequence[float]) -> list[float]:
    """Onto 0..1; all 0.5 where they are equal, which favours nobody."""
    low, high = min(values), max(values)
    return [0.5 if high == low else (value - low) / (high - low) for value in values]


def standardised(values: Sequence[float]) -> list[float]:
    """z-scores; all 0 where they are equal."""
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    return [0.0 if deviation == 0 else (value - mean) / deviation for value in values]


def _softmax(values: Sequence[float]) -> list[float]:
    largest = max(values)
    powers = [math.exp(value - largest) for value in values]
    total = math.fsum(powers)
    return [power / total for power in powers]
