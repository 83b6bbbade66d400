"""The attention that ranking adds up, token by token, for one prompt with all documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from icr_rag.arguments import check_query
from icr_rag.calls.candidates import Candidates
from icr_rag.config import RerankerConfig
from icr_rag.errors import ConfigError, InputError, PromptTooLongError
from icr_rag.scoring.base import Scorer
from icr_rag.scoring.joint_attention import JointAttentionScorer
from icr_rag.types import AttentionReading, Document, Span


def read_attention(
    make_scorer: Callable[[], Scorer],
    config: RerankerConfig,
    query: str,
    documents: Sequence[Document],
) -> AttentionReading:
    """See `icr_rag.Reranker.read_attention`.

    Args:
        make_scorer: called once the input is found to be in order, for it may load the model.
        config: the reranker's.
        documents: what the model reads of each.
    """
    check_query(query)
    given = documents
    if config.passages != "none":
        raise ConfigError(
            f"read_attention reads whole documents, and ranking with passages={config.passages!r} "
            "does not; give it the passages themselves on with_config(passages='none', "
            "passage_tokens=256, passage_overlap=0), or on switched(passages='none')"
        )
    if not any(document.content.strip() for document in given):
        raise InputError("read_attention needs at least one document that is not blank")
    scorer = make_scorer()
    if not isinstance(scorer, JointAttentionScorer):
        layers = (scorer.layers[0], scorer.layers[-1]) if scorer.layers else "all"
        changed = config.switched(
            scoring="attention",
            framework="listwise",
            document_states="joint",
            cascade=None,
            profile=None,
            layers=layers,
            heads="all",
            reading="auto",
        )
        scorer = JointAttentionScorer(scorer.engine, changed, "listwise")
    inputs = Candidates(scorer, query, given, within_reach=False)
    everything = range(len(inputs.token_ids))
    if not inputs.fits(everything):
        raise PromptTooLongError(
            f"{len(given)} documents need {inputs.cost(everything)} tokens, but one prompt "
            f"holds {inputs.budget}; give fewer documents or set max_document_tokens"
        )
    prompt = scorer.build(inputs.query_ids, inputs.token_ids)
    readings = scorer.read(prompt, sum_heads=False)
    token_ids = prompt.token_ids(prompt.query)
    spans = [prompt.spans[unique] if unique is not None else Span(0, 0) for unique in inputs.owner]
    null_tail = prompt.null
    return AttentionReading(
        token_ids=token_ids,
        spans=spans,
        query_rows=prompt.rows(prompt.query),
        layers=list(scorer.layers),
        query=_fit_columns(readings[0], len(token_ids), len(token_ids)),
        null=None
        if null_tail is None
        else _fit_columns(readings[1], len(token_ids), len(prompt.prefix_ids)),
        null_token_ids=[] if null_tail is None else prompt.token_ids(null_tail),
        null_query_rows=slice(0, 0) if null_tail is None else prompt.rows(null_tail),
    )


def _fit_columns(reading: torch.Tensor, columns: int, kept: int) -> torch.Tensor:
    """A reading on a token axis of ``columns``, of which the first ``kept`` are taken over."""
    result = torch.zeros(*reading.shape[:-1], columns)
    kept = min(kept, reading.shape[-1])
    result[..., :kept] = reading[..., :kept]
    return result
