"""One query and its documents, from texts to an order: the steps, in their order."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from icr_rag.calls.candidates import Candidates
from icr_rag.calls.cascade import read_again
from icr_rag.calls.passages import fold, split_documents
from icr_rag.config import RerankerConfig
from icr_rag.config_scores import counts_first_stage
from icr_rag.frameworks.combine import combine, rule_of
from icr_rag.frameworks.run import rank_windows
from icr_rag.ranking import Scored, present
from icr_rag.scoring.base import Cost, Scorer, evictions
from icr_rag.types import Document, Usage


@dataclass(frozen=True)
class Ranked:
    """What came of a call.

    Attributes:
        scored: what to return in which order, and every document's score.
        usage: what it cost.
        context: of the model, in tokens; None if it is unknown or nothing was read.
    """

    scored: Scored
    usage: Usage
    context: int | None = None


def rank(
    scorer: Scorer,
    second: Scorer | None,
    config: RerankerConfig,
    query: str,
    documents: Sequence[Document],
    first_stage: Sequence[float] | None,
    seconds_to_load: float,
    answered: Scorer | None = None,
    most: int | None = None,
) -> Ranked:
    """Split, encode, rank, fold, combine with the first stage, read the best again, present.

    Args:
        scorer: of ``config``. second: of its second reading; None: there is none.
        query: checked. documents: likewise, in first-stage order.
        first_stage: its scores, checked; None: there are none, or they do not count.
        seconds_to_load: how long the scorers took.
        answered: a scorer that knows the answers already; None: ``scorer`` is asked.
        most: tokens of a document, where the call limits them.
    """
    started = time.perf_counter()
    before = evictions(scorer)
    cost = Cost()

    passages = split_documents(scorer, documents, most)
    candidates = Candidates(scorer, query, passages.documents, most=most)
    cost.seconds["load"] = seconds_to_load
    cost.seconds["prompt"] = time.perf_counter() - started

    query_ids, token_ids = candidates.query_ids, candidates.token_ids
    asked = answered or scorer
    read = rank_windows(asked, query_ids, token_ids, candidates.fits, cost)
    folded = fold(passages, candidates, read, documents, config.passages)

    fusion = config.fusion if counts_first_stage(config) else "none"
    weight = scorer.first_stage_weight
    rule = rule_of(fusion, config.fusion_weight, weight, first_stage is not None)
    ranked = combine(folded.ranked, candidates.gather(first_stage, folded.owner), rule)

    truncated = {*passages.truncated, *(passages.owner[place] for place in candidates.truncated)}
    if second is not None and config.cascade is not None:
        ranked, cut = read_again(second, ranked, query, folded, config.cascade, cost, most)
        truncated |= cut

    absolute = config.score_mode == "explained"
    scored = candidates.spread(ranked, absolute=absolute, owner=folded.owner)
    scored = present(replace(scored, passages=folded.spans), documents, config)
    cost.seconds["total"] = seconds_to_load + time.perf_counter() - started
    usage = Usage(
        tokens=cost.tokens,
        layers=tuple(sorted({*scorer.layers, *(second.layers if second else ())})),
        windows=cost.windows,
        truncated=tuple(sorted(truncated)),
        query_truncated=candidates.query_truncated,
        calls=cost.calls,
        generated_tokens=cost.generated_tokens,
        repairs=cost.repairs,
        states_evicted=evictions(scorer) - before + cost.states_evicted,
        passages=0 if config.passages == "none" else len(token_ids),
        seconds=cost.seconds,
    )
    return Ranked(scored, usage, candidates.context)
