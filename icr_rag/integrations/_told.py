"""What adapters write into metadata, where they are asked to tell more than a score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from icr_rag.types import Document, RankedDocument, Ranking

#: Is given each ranking that an adapter makes results of.
OnRanking = Callable[[Ranking], None]

#: Metadata key, in all documents, of the probability that one of the list answers the query.
ANSWERABLE = "answerable"

#: Metadata key of a document of which the model read the beginning only.
TRUNCATED = "truncated"
#: Metadata key, in all documents, of a query that was read in part.
QUERY_TRUNCATED = "query_truncated"
#: Metadata key, in all documents, of what a deadline left out, as `Ranking.degraded` says it.
DEGRADED = "rerank_degraded"
#: Metadata keys of a document that was split: where its best passage is in its text, in characters.
PASSAGE_START, PASSAGE_END = "passage_start", "passage_end"


@dataclass(frozen=True)
class Told:
    """What metadata are to tell.

    Attributes:
        truncation: what was cut or, by a deadline, left out.
        answerable: the probability that the list has an answer.
        passage: where a document's best passage is in its text.
    """

    truncation: bool = False
    answerable: bool = False
    passage: bool = False

    def of(self, ranking: Ranking, index: int) -> dict[str, object]:
        """Metadata for the document at an input position; nothing that is not known."""
        told: dict[str, object] = {}
        if self.truncation:
            told |= cut_metadata(ranking, index)
        if self.answerable and ranking.answerable is not None:
            told[ANSWERABLE] = ranking.answerable
        return told

    def passage_of(self, hit: RankedDocument, text: str) -> dict[str, int]:
        """Metadata for a hit whose own text this is."""
        return passage_metadata(hit, text) if self.passage else {}


def cut_metadata(ranking: Ranking, index: int) -> dict[str, bool | str]:
    """Metadata for the document at an input position: keys that are true, none for a whole one, and
    what a deadline left out, if it did."""
    told: dict[str, bool | str | None] = {
        TRUNCATED: index in ranking.usage.truncated,
        QUERY_TRUNCATED: ranking.usage.query_truncated,
        DEGRADED: ranking.degraded,
    }
    return {name: cut for name, cut in told.items() if cut}


def passage_metadata(hit: RankedDocument, text: str) -> dict[str, int]:
    """Metadata for a hit: where its best passage is in ``text``; none for a document not split.

    Args:
        text: the document's own, which the text that was read begins with, or has somewhere.
    """
    own = text.rstrip()
    if hit.passage is None or not own:
        return {}
    before = hit.document.text.find(own)
    start, end = (max(0, min(len(own), place - before)) for place in hit.passage)
    # It may lie in what was read beside the text.
    return {PASSAGE_START: start, PASSAGE_END: end} if before >= 0 and start < end else {}


def under_title(before: str, text: str) -> Document:
    """A text with what is read before it, to be split: that is repeated before each passage.

    What is read of it as a whole is ``before + text``, character by character.
    """
    title = before.removesuffix("\n")
    return Document(text, title) if title and title != before else Document(before + text)
