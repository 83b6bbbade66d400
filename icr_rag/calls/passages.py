"""Long documents: passages are read in their place, and what comes of it is folded back.

With ``passages="none"`` each document is its own only passage, and nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from icr_rag.calls.candidates import Candidates
from icr_rag.frameworks.result import WindowedScores
from icr_rag.frameworks.unscored import placed
from icr_rag.prompts.passages import passage
from icr_rag.scoring.base import Scorer
from icr_rag.types import Document


@dataclass(frozen=True)
class Passages:
    """What is read in place of documents.

    Attributes:
        documents: passages, and documents that are not split as they are; those of one document
            stand side by side.
        owner: of each, the position of the document that it is of.
        spans: of each, where it is in that document's text; None for a document not split.
        truncated: positions of documents of which no passage covers the end.
    """

    documents: Sequence[Document]
    owner: Sequence[int]
    spans: Sequence[tuple[int, int] | None]
    truncated: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Folded:
    """A ranking of documents, made of one of passages.

    Attributes:
        ranked: the distinct documents, numbered in input order; the group of each is that of its
            best passage.
        owner: per input document, its item in ``ranked``; None for a blank one.
        best: per item, its best passage, as a document.
        spans: position of an input document that was split -> where its best passage is.
    """

    ranked: WindowedScores
    owner: list[int | None]
    best: list[Document]
    spans: dict[int, tuple[int, int]]


def split_documents(
    scorer: Scorer, documents: Sequence[Document], most: int | None = None
) -> Passages:
    """The passages of documents, as the scorer's settings ask for them.

    Args:
        scorer: by whose prompts texts are measured.
        documents: in input order. Not changed; spans are of their ``text``.
        most: tokens of a document, where the call limits them beside ``max_document_tokens``.

    Raises:
        InputError: if a title leaves no room for the text.
        MissingDependencyError: if the library that finds sentences is not installed.
        OutOfTime: if a deadline comes before all are split; the splits made so far are remembered.
    """
    config = scorer.config
    if config.passages == "none":
        return Passages(documents, range(len(documents)), [None] * len(documents))
    limit = min((n for n in (config.max_document_tokens, most) if n is not None), default=None)
    found: list[Document] = []
    owner: list[int] = []
    spans: list[tuple[int, int] | None] = []
    truncated = set()
    for index, document in enumerate(documents):
        own: Sequence[tuple[int, int]] = ()
        if document.content.strip():
            # Who waits for the model waits for one document, not for all.
            with scorer.engine.lock:
                split = scorer.splitter.split(document, limit, f"document {index}")
            own = split.spans
            if own and split.cut:
                truncated.add(index)
        found += [passage(document, span) for span in own] or [document]
        spans += own or [None]
        owner += [index] * max(1, len(own))
    return Passages(found, owner, spans, frozenset(truncated))


def fold(
    passages: Passages,
    candidates: Candidates,
    ranked: WindowedScores,
    documents: Sequence[Document],
    how: str,
) -> Folded:
    """Documents in the order that their passages give them.

    Args:
        passages: of ``documents``.
        candidates: made of them.
        ranked: the distinct passages.
        documents: in input order.
        how: the setting ``passages``. "max": a document is as good as its best passage. "top2":
            as the mean of its best two, of those that were read in one window. "none": nothing
            was split, and passages are documents.
    """
    if how == "none":
        firsts = {item: documents[n] for n, item in reversed([*enumerate(candidates.owner)])}
        best_of = [firsts[item] for item in range(len(ranked.order))]
        return Folded(ranked, candidates.owner, best_of, {})
    place = {item: number for number, item in enumerate(ranked.order)}
    of: list[list[int]] = [[] for _ in documents]
    for number, index in enumerate(passages.owner):
        if candidates.owner[number] is not None:
            of[index].append(number)

    def place_of(number: int) -> int:
        item = candidates.owner[number]
        return len(place) if item is None else place[item]

    distinct: dict[str, int] = {}
    owner: list[int | None] = []
    best: list[int] = []
    scores: list[float] = []
    spans = {}
    for index, document in enumerate(documents):
        if not of[index]:
            owner.append(None)
            continue
        unique = distinct.setdefault(document.content, len(distinct))
        owner.append(unique)
        first = min(of[index], key=place_of)
        if unique == len(best):
            best.append(first)
            items = sorted({place_of(number) for number in of[index]})
            scores.append(_score(ranked, [ranked.order[own] for own in items], how))
        span = passages.spans[first]
        if span is not None:
            spans[index] = span
    places = [place_of(number) for number in best]
    groups = [ranked.groups[ranked.order[own]] for own in places]
    order = _order(places, scores, groups, how)
    folded = WindowedScores(order, scores, groups)
    if ranked.unscored:
        of_item: list[set[int]] = [set() for _ in best]
        for index, item in enumerate(owner):
            if item is not None:
                of_item[item].update(ranked.order[place_of(number)] for number in of[index])
        folded = _without_unscored(folded, of_item, ranked)
        spans = {index: own for index, own in spans.items() if owner[index] not in folded.unscored}
    return Folded(folded, owner, [passages.documents[number] for number in best], spans)


def _without_unscored(
    folded: WindowedScores, of_item: Sequence[set[int]], ranked: WindowedScores
) -> WindowedScores:
    """The ranking of documents of which every passage has a score, with the others around them.

    A document of which a deadline left a passage unread may be better than what was read of it.

    Args:
        folded: all documents. of_item: the distinct passages of each. ranked: the passages.
    """
    high = set(takewhile(ranked.unscored.__contains__, ranked.order))
    lacking = {item for item, own in enumerate(of_item) if own & ranked.unscored}
    whole = [item for item in range(len(of_item)) if item not in lacking]
    number = {item: place for place, item in enumerate(whole)}
    part = WindowedScores(
        [number[item] for item in folded.order if item in number],
        [folded.scores[item] for item in whole],
        [folded.groups[item] for item in whole],
    )
    above = sorted(item for item in lacking if of_item[item] & high)
    return placed(part, whole, above, sorted(lacking.difference(above)))


def _score(ranked: WindowedScores, items: Sequence[int], how: str) -> float:
    """A document's score.

    Args:
        items: its distinct passages, best first.
    """
    group = ranked.groups[items[0]]
    # Scores of different windows do not compare, and so have no mean.
    same = [ranked.scores[item] for item in items if ranked.groups[item] == group]
    counted = same[: 2 if how == "top2" else 1]
    return math.fsum(counted) / len(counted)


def _order(
    places: Sequence[int], scores: Sequence[float], groups: Sequence[int], how: str
) -> list[int]:
    """Documents, best first; equal ones in input order.

    Args:
        places: of their best passages among all. scores, groups: one per document.
    """
    if how != "top2":
        return sorted(range(len(places)), key=lambda item: places[item])
    # A window stands above another as a whole, and so do means over its scores.
    tops = {group: min(p for p, g in zip(places, groups, strict=True) if g == group)
            for group in set(groups)}  # fmt: skip
    return sorted(range(len(places)), key=lambda item: (tops[groups[item]], -scores[item]))
