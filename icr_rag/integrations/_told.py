"""What adapters write into metadata, where they are asked to tell what was cut."""

from __future__ import annotations

from icr_rag.types import Ranking

#: Metadata key of a document of which the model read the beginning only.
TRUNCATED = "truncated"
#: Metadata key, in all documents, of a query that was read in part.
QUERY_TRUNCATED = "query_truncated"


def cut_metadata(ranking: Ranking, index: int) -> dict[str, bool]:
    """Metadata for the document at an input position: keys that are true, none for a whole one."""
    told = {
        TRUNCATED: index in ranking.usage.truncated,
        QUERY_TRUNCATED: ranking.usage.query_truncated,
    }
    return {name: cut for name, cut in told.items() if cut}
