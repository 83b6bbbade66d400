"""From token readings to document scores: the null query, the token mask, the sum.

ICR, arXiv 2410.02642, section 3: the reading of a content-free query is subtracted token by
token; inside each document, tokens at or below the mean minus two standard deviations of its
calibrated tokens are dropped; a document's score is the sum of the rest. Higher is better.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from icr_rag.types import Span


def calibrate(query: torch.Tensor, null: torch.Tensor | None) -> torch.Tensor:
    """Token scores: the query's reading minus the null query's, where there is one.

    Args:
        query: float32 [token], summed over the heads and layers that are read.
        null: the same for the null query, or None for ``calibration="none"``.
    """
    return query if null is None else query - null


def document_score(tokens: torch.Tensor, token_mask: bool, aggregation: str) -> float:
    """A document's score from its calibrated tokens.

    Args:
        tokens: float32 [token] of one document.
        token_mask: drop tokens at or below mean - 2 standard deviations (n - 1 in the
            denominator). Where nothing can be an outlier, in a document of one token or of
            equal tokens, nothing is dropped.
        aggregation: "sum" as published, or "mean" over the tokens kept.

    Returns:
        The score; 0.0 for a document without tokens.
    """
    if tokens.numel() == 0:
        return 0.0
    if token_mask:
        tokens = tokens[_kept(tokens)]
    total = tokens.sum() if aggregation == "sum" else tokens.mean()
    return float(total)


def document_log_ratio(query: torch.Tensor, null: torch.Tensor, token_mask: bool) -> float:
    """How much more a document is attended to for the query than for the null query.

    The logarithm of the ratio of both readings' sums over the tokens that `document_score` keeps:
    0 means as much, 0.69 twice as much. Unlike the sum it does not grow with a document's length.

    Args:
        query, null: float32 [token] of one document.

    Returns:
        The logarithm; 0.0 for a document without tokens.
    """
    if query.numel() == 0:
        return 0.0
    if token_mask:
        kept = _kept(query - null)
        query, null = query[kept], null[kept]
    # Attention underflows to 0 at worst, and its logarithm must stay finite.
    least = torch.finfo(torch.float32).tiny
    return float(torch.log(query.sum().clamp_min(least) / null.sum().clamp_min(least)))


def _kept(tokens: torch.Tensor) -> torch.Tensor:
    """The token mask: bool [token], false for low outliers. Never false for all."""
    everything = torch.ones_like(tokens, dtype=torch.bool)
    if tokens.numel() < 2:
        return everything
    deviation = tokens.std()
    return tokens > tokens.mean() - 2 * deviation if deviation > 0 else everything


def document_scores(
    query: torch.Tensor,
    null: torch.Tensor | None,
    spans: Sequence[Span],
    token_mask: bool,
    aggregation: str,
) -> list[float]:
    """One score per span; see `calibrate` and `document_score`."""
    tokens = calibrate(query, null)
    return [
        document_score(tokens[span.start : span.end], token_mask, aggregation) for span in spans
    ]


def document_log_ratios(
    query: torch.Tensor, null: torch.Tensor, spans: Sequence[Span], token_mask: bool
) -> list[float]:
    """One `document_log_ratio` per span."""
    return [
        document_log_ratio(query[span.start : span.end], null[span.start : span.end], token_mask)
        for span in spans
    ]
