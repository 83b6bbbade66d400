"""What adapters write into metadata, where they are asked to tell more than a score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from icr_rag.types import Ranking

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


@dataclass(frozen=True)
class Told:
    """What metadata are to tell.

    Attributes:
        truncation: what was cut or, by a deadline, left out.
        answerable: the probability that the list has an answer.
    """

    truncation: bool = False
    answerable: bool = False

    def of(self, ranking: Ranking, index: int) -> dict[str, object]:
        """Metadata for the document at an input position; nothing that is not known."""
        told: dict[str, object] = {}
        if self.truncation:
            told |= cut_metadata(ranking, index)
        if self.answerable and ranking.answerable is not None:
            told[ANSWERABLE] = ranking.answerable
        return told


def cut_metadata(ranking: Ranking, index: int) -> dict[str, bool | str]:
    """Metadata for the document at an input position: keys that are true, none for a whole one, and
    what a deadline left out, if it did."""
    told: dict[str, bool | str | None] = {
        TRUNCATED: index in ranking.usage.truncated,
        QUERY_TRUNCATED: ranking.usage.query_truncated,
        DEGRADED: ranking.degraded,
    }
    return {name: cut for name, cut in told.items() if cut}
