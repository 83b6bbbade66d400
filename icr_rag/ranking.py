"""From scores to what is shown: score modes, near-duplicates, thresholds, hits.

Works on numbers and texts; it holds no model code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from icr_rag.config import RerankerConfig
from icr_rag.diversity import diversified
from icr_rag.duplicates import near_duplicates
from icr_rag.order import UNREAD, standardised
from icr_rag.types import Document, RankedDocument, Ranking, Usage


@dataclass(frozen=True)
class Scored:
    """A ranked list, by input position.

    Attributes:
        order: input positions, best first; a permutation.
        scores: one float per input position; higher is better, never rising along ``order`` but
            with ``diversity``.
        groups: one integer per input position; scores compare within a group, -1 is unread.
        duplicates: a near-duplicate's position -> that of the better document that it repeats.
        answerable: as `Ranking` has it.
        abstained: likewise; ``order`` is empty then.
        unscored: positions that a deadline left without a score; no blank ones.
        relevance: what ``diversity`` weighs against novelty, one per input position; None:
            ``scores``.
        passages: position of a document that was split -> where its best passage is in its text.
    """

    order: list[int]
    scores: list[float]
    groups: list[int]
    duplicates: Mapping[int, int] = field(default_factory=dict)
    answerable: float | None = None
    abstained: bool = False
    unscored: frozenset[int] = frozenset()
    relevance: Sequence[float] | None = None
    passages: Mapping[int, tuple[int, int]] = field(default_factory=dict)


def present(
    scored: Scored,
    documents: Sequence[Document],
    config: RerankerConfig,
    top_n: int | None = None,
    *,
    compare: bool = True,
) -> Scored:
    """Show scores as asked for, leave out what the configuration leaves out, and spread the rest.

    Args:
        scored: the ranking of all documents.
        documents: what the model reads of each, in input order.
        config: score_mode, near_duplicates, score_threshold, min_answerable, diversity. What a
            deadline left without a score has none that could be below the threshold, and stays;
            and while it may be the answer, nobody abstains, nor is anything spread.
        top_n: how many places ``diversity`` decides; documents behind them keep their order.
        compare: whether there is time to compare texts, for near-duplicates and diversity.
    """
    relevance = scored.scores if scored.relevance is None else scored.relevance
    scored = replace(scored, scores=shown_scores(scored, config.score_mode))
    if config.near_duplicates is not None and compare:
        texts = [documents[position].content for position in scored.order]
        repeats = near_duplicates(texts, config.near_duplicates)
        duplicates = {scored.order[place]: scored.order[of] for place, of in repeats.items()}
        kept = [position for position in scored.order if position not in duplicates]
        scored = replace(scored, order=kept, duplicates=duplicates)
    if config.score_threshold is not None:
        least = config.score_threshold
        kept = [
            position
            for position in scored.order
            if scored.scores[position] >= least or position in scored.unscored
        ]
        scored = replace(scored, order=kept)
    if config.min_answerable is not None and not scored.unscored:
        # Of a list in which nothing can be read nothing answers.
        likely = scored.answerable
        if likely is None or likely < config.min_answerable:
            scored = replace(scored, order=[], abstained=True)
    if config.diversity is not None and compare and not scored.unscored:
        order = _spread(scored, relevance, documents, config.diversity, top_n)
        scored = replace(scored, order=order)
    return scored


def compares_texts(config: RerankerConfig, *, whole: bool = True) -> bool:
    """Whether `present` compares texts with each other, which takes time too.

    Args:
        whole: whether all documents have scores; else nothing is spread.
    """
    return config.near_duplicates is not None or (whole and config.diversity is not None)


def _spread(
    scored: Scored,
    relevance: Sequence[float],
    documents: Sequence[Document],
    weight: float,
    top_n: int | None,
) -> list[int]:
    """The order by maximal marginal relevance; what was not read stays behind.

    Args:
        relevance: scores as the ranking had them, which ``score_mode`` does not change.
    """
    read = [position for position in scored.order if scored.groups[position] >= 0]
    rest = [position for position in scored.order if scored.groups[position] < 0]
    order = diversified(
        [relevance[position] for position in read],
        [documents[position].content for position in read],
        weight,
        top_n,
    )
    return [*(read[place] for place in order), *rest]


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


def unread_score(config: RerankerConfig) -> float:
    """The score of a document that was not read, where none of the list was."""
    return UNREAD if config.score_mode == "explained" else 0.0


def unread(count: int, score: float = 0.0) -> Scored:
    """Documents that were not read, because they are blank or it failed: input order, one score."""
    return Scored(list(range(count)), [score] * count, [-1] * count)


def make_ranking(
    documents: Sequence[Document],
    scored: Scored,
    usage: Usage,
    top_n: int | None,
    error: str | None = None,
    degraded: str | None = None,
) -> Ranking:
    """Put a ranking together.

    Args:
        documents: in input order.
        scored: what to return, best first, and the scores of all.
        usage: what it cost.
        top_n: how many hits to keep; None: all.
        error: why the input order is returned instead of a ranking, if it is.
        degraded: what a deadline left out, if it did.
    """
    kept = scored.order if top_n is None else scored.order[:top_n]
    scores = tuple(float(score) for score in scored.scores)
    hits = tuple(RankedDocument(i, scores[i], documents[i], scored.passages.get(i)) for i in kept)
    return Ranking(
        hits,
        scores,
        tuple(scored.groups),
        usage,
        dict(scored.duplicates),
        error,
        scored.answerable,
        scored.abstained,
        degraded,
    )


def _softmax(values: Sequence[float]) -> list[float]:
    largest = max(values)
    powers = [math.exp(value - largest) for value in values]
    total = math.fsum(powers)
    return [power / total for power in powers]
