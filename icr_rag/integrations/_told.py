"""What adapters write into metadata, where they are asked to tell what was cut or what was best."""

from __future__ import annotations

from icr_rag.types import Document, RankedDocument, Ranking

#: Metadata key of a document of which the model read the beginning only.
TRUNCATED = "truncated"
#: Metadata key, in all documents, of a query that was read in part.
QUERY_TRUNCATED = "query_truncated"
#: Metadata keys of a document that was split: where its best passage is in its text, in characters.
PASSAGE_START, PASSAGE_END = "passage_start", "passage_end"


def cut_metadata(ranking: Ranking, index: int) -> dict[str, bool]:
    """Metadata for the document at an input position: keys that are true, none for a whole one."""
    told = {
        TRUNCATED: index in ranking.usage.truncated,
        QUERY_TRUNCATED: ranking.usage.query_truncated,
    }
    return {name: cut for name, cut in told.items() if cut}


def passage_metadata(hit: RankedDocument, text: str) -> dict[str, int]:
    """Metadata for a hit: where its best passage is in ``text``; none for a document not split.

    Args:
        text: the document's own, which the text that was read begins with, or has somewhere.
    """
    if hit.passage is None:
        return {}
    own = text.rstrip()
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
