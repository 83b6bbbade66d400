"""What a ranking tells in the log, for those who see neither `Usage` nor the settings."""

from __future__ import annotations

import logging

from icr_rag.config import RerankerConfig
from icr_rag.types import Usage

logger = logging.getLogger(__name__)

#: So many positions are named; a list may hold thousands.
_NAMED = 5


def tell_degraded(degraded: str) -> None:
    """Tell, in one line per call, what a deadline left out or how late the answer is."""
    logger.warning("%s", degraded)


def tell_cuts(
    usage: Usage, count: int, config: RerankerConfig, context: int | None, most: int | None = None
) -> None:
    """Tell, in one line per call, which documents were cut and what decides it.

    Args:
        usage: truncated, query_truncated.
        count: of documents given.
        config: max_document_tokens, max_query_tokens, token_budget.
        context: the model's, in tokens; None if unknown.
        most: tokens of a document, where the call limits them.
    """
    told = []
    if cut := usage.truncated:
        named = ", ".join(map(str, cut[:_NAMED])) + (", ..." if len(cut) > _NAMED else "")
        told.append(
            f"{len(cut)} of {count} documents were cut (positions {named}); "
            f"max_document_tokens={config.max_document_tokens}, "
            + ("" if most is None else f"max_tokens_per_doc={most}, ")
            + f"token_budget={config.token_budget} and the model's context "
            f"({'unknown' if context is None else context}) decide"
        )
    if usage.query_truncated:
        told.append(f"the query was cut to max_query_tokens={config.max_query_tokens}")
    if told:
        logger.warning("%s", "; ".join(told))
