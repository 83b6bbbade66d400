"""What adapters write into metadata, where they are asked to tell what was cut or left out."""

from __future__ import annotations

from icr_rag.types import Ranking

#: Metadata key of a document of which the model read the beginning only.
TRUNCATED = "truncated"
#: Metadata key, in all documents, of a query that was read in part.
QUERY_TRUNCATED = "query_truncated"
#: Metadata key, in all documents, of what a deadline left out, as `Ranking.degraded` says it.
DEGRADED = "rerank_degraded"


def cut_metadata(ranking: Ranking, index: int) -> dict[str, bool | str]:
    """Metadata for the document at an input position: keys that are true, none for a whole one, and
    what a deadline left out, if it did."""
    told: dict[str, bool | str | None] = {
        TRUNCATED: index in ranking.usage.truncated,
        QUERY_TRUNCATED: ranking.usage.query_truncated,
        DEGRADED: ranking.degraded,
    }
    return {name: cut for name, cut in told.items() if cut}
