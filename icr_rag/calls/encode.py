"""Encode documents before anyone asks: at indexing time, or from the command line."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from icr_rag.calls.passages import split_documents
from icr_rag.calls.traces import traced_encoding
from icr_rag.config import RerankerConfig
from icr_rag.errors import ConfigError
from icr_rag.scoring.base import KeepsStates, Scorer
from icr_rag.states.store import state_key
from icr_rag.types import Document, Encoded

#: Documents between two reports of progress.
_BATCH = 16


@traced_encoding
def encode_ahead(
    make_scorer: Callable[[], Scorer],
    config: RerankerConfig,
    documents: Sequence[Document],
    progress: Callable[[int, int], None] | None = None,
) -> Encoded:
    """Store the states of documents that are not stored yet.

    Documents are split, tokenised and cut as in a ranking, so that a ranking finds them.

    Raises:
        ConfigError: if the scorer keeps nothing.

    Args:
        make_scorer: called once the settings are found to be in order, for it may load the model;
            its scorer's settings say how documents are cut.
        config: the reranker's.
        documents: what the model reads of each. Not changed.
        progress: called with (finished, all) distinct documents.
    """
    scorer = None if config.document_states == "joint" else make_scorer()
    started = time.perf_counter()
    if not isinstance(scorer, KeepsStates) or scorer.states is None:
        raise ConfigError(
            "encode needs document_states='independent'; with 'joint' nothing can be kept"
        )
    states = scorer.states
    passages = split_documents(scorer, documents)
    owners: dict[str, list[int]] = {}
    for index, document in zip(passages.owner, passages.documents, strict=True):
        if document.content.strip():
            owners.setdefault(document.content, []).append(index)
    contents = list(owners)
    limit = _longest(scorer)
    new = tokens = 0
    known = states.evictions
    keys: set[str] = set()
    truncated = set(passages.truncated)
    for begin in range(0, len(contents), _BATCH):
        part = contents[begin : begin + _BATCH]
        with scorer.engine.lock:
            ids = scorer.prompts.encode_documents(part)
        for content, own in zip(part, ids, strict=True):
            if len(own) > limit:
                truncated.update(owners[content])
        # Characters that the tokenizer lacks leave nothing to encode.
        found = [own[:limit] for own in ids if own]
        bodies = scorer.bodies(found)
        keys.update(map(state_key, bodies))
        with scorer.engine.settled():
            added, run = states.encode(bodies)
        new, tokens = new + added, tokens + run
        if progress is not None:
            progress(begin + len(part), len(contents))
    with scorer.engine.lock:
        kept = states.kept(keys)
    return Encoded(
        documents=kept,
        new=new,
        tokens=tokens,
        truncated=tuple(sorted(truncated)),
        seconds=time.perf_counter() - started,
        evicted=states.evictions - known,
    )


def _longest(scorer: Scorer) -> int:
    """Tokens of a document that fit beside a short query; rankings may have to cut deeper."""
    config = scorer.config
    limits = [n for n in (config.token_budget, scorer.reach) if n is not None]
    around: int = scorer.prompts.overhead([]) + scorer.prompts.document_cost([], 1)
    room = (min(limits) if limits else 2**31) - around
    if config.max_document_tokens is None:
        return max(1, room)
    return max(1, min(room, config.max_document_tokens))
