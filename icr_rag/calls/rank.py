"""One query and its documents, from texts to an order: the steps, in their order."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

from icr_rag.calls.candidates import Candidates
from icr_rag.calls.cascade import read_again
from icr_rag.calls.degraded import NOT_COMPARED, embedding, left_out_of, sentence
from icr_rag.calls.passages import fold, split_documents
from icr_rag.calls.request import FirstStage, Request
from icr_rag.config import RerankerConfig
from icr_rag.config_scores import counts_first_stage
from icr_rag.deadline import OutOfTime, Timing, expected, step, timed
from icr_rag.frameworks.combine import combine, rule_of
from icr_rag.frameworks.run import rank_windows
from icr_rag.ranking import Scored, compares_texts, present
from icr_rag.scoring.base import Cost, Scorer, evictions
from icr_rag.types import Usage

#: What is measured of the steps around the model, by the characters of the documents.
_PROMPT, _COMPARE = "prompt", "near-duplicates"


@dataclass(frozen=True)
class Ranked:
    """What came of a call.

    Attributes:
        scored: what to return in which order, and every document's score.
        usage: what it cost.
        context: of the model, in tokens; None if it is unknown or nothing was read.
        degraded: what a deadline left out, or how late it is; see `icr_rag.types.Ranking`.
    """

    scored: Scored
    usage: Usage
    context: int | None = None
    degraded: str | None = None


def rank(
    scorer: Scorer,
    second: Scorer | None,
    config: RerankerConfig,
    request: Request,
    first_stage: FirstStage,
    seconds_to_load: float,
    why: str = "",
    answered: Scorer | None = None,
) -> Ranked:
    """Split, encode, rank, fold, combine with the first stage, read the best again, present.

    Args:
        scorer: of ``config``. second: of its second reading; None: there is none.
        request: a checked query, and documents in first-stage order.
        first_stage: its scores, checked; empty where there are none, or they do not count.
        seconds_to_load: how long the scorers took.
        why: what has taken most of the time until a deadline already, as a clause; "": nothing.
        answered: a scorer that knows the answers already; None: ``scorer`` is asked.

    Raises:
        OutOfTime: if there is not even time to split or to tokenise.
    """
    started = time.perf_counter()
    query, documents, due = request.query, request.read, request.due
    most = request.max_tokens_per_doc
    before = evictions(scorer)
    cost = Cost()
    left_out: list[str] = []
    characters = sum(len(document.content) for document in documents)

    def own_time(of: Scorer) -> Timing:
        return Timing(of.pace, due, request.clock)

    with ExitStack() as timing:
        timing.enter_context(timed(own_time(scorer)))
        if due is not None and compares_texts(config):
            timing.enter_context(due.keep_back(expected(_COMPARE, characters)))
        passages = split_documents(scorer, documents, most)
        with step(_PROMPT, characters):
            candidates = Candidates(scorer, query, passages.documents, most=most)
        cost.seconds["load"] = seconds_to_load
        cost.seconds["prompt"] = time.perf_counter() - started

        columns = {**first_stage.columns}
        if first_stage.embedder is not None:
            begin = 0.0 if due is None else due.elapsed
            try:
                columns |= first_stage.embedder.column(query, documents, columns, config, cost)
            except OutOfTime:
                left_out.append("the embedder was not asked")
            why = why or embedding(due, begin)

        query_ids, token_ids = candidates.query_ids, candidates.token_ids
        asked = answered or scorer
        with timed(own_time(asked)):
            read = rank_windows(asked, query_ids, token_ids, candidates.fits, cost)
        folded = fold(passages, candidates, read, documents, config.passages)

        rule = rule_of(
            config.fusion if counts_first_stage(config) else "none",
            config.fusion_weight,
            scorer.first_stage_weight,
            {name: candidates.gather(own, folded.owner) for name, own in columns.items()},
            scores_weight=scorer.scores_weight,
            asked=dict(config.first_stage_weights or ()),
        )
        ranked = combine(folded.ranked, rule)

        truncated = {*passages.truncated, *(passages.owner[at] for at in candidates.truncated)}
        count = config.cascade
        if second is not None and count is not None:
            try:
                if ranked.unscored:
                    raise OutOfTime
                with timed(own_time(second)):
                    ranked, cut = read_again(second, ranked, query, folded, count, cost, most)
                truncated |= cut
            except OutOfTime:
                left_out.append(f"the best {count} were not read again")

    spread = candidates.spread(ranked, absolute=scorer.judge is not None, owner=folded.owner)
    spread = replace(spread, passages=_in_texts(folded.spans, request))
    if scorer.judge is not None:
        shown = scorer.judge.shown(spread.scores, spread.groups)
        # Of a part of the list nobody can say whether the rest has an answer.
        likely = None if spread.unscored else scorer.judge.answerable(ranked.scores)
        # Novelty is weighed against what was measured, which a calibration may flatten.
        spread = replace(spread, scores=shown, answerable=likely, relevance=spread.scores)
    if spread.unscored:
        left_out += left_out_of(config)
    try:
        compared = compares_texts(config, whole=not spread.unscored)
        compares = own_time(scorer) if compared else None
        with timed(compares), step(_COMPARE, characters):
            scored = present(spread, documents, config, request.top_n)
    except OutOfTime:
        left_out.append(NOT_COMPARED)
        scored = present(spread, documents, config, compare=False)
    cost.seconds["total"] = seconds_to_load + cost.shared + time.perf_counter() - started
    if due is not None:
        cost.seconds["total"] = due.elapsed
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
        unscored=tuple(sorted(spread.unscored)),
        scoring=scorer.config.scoring,
        scoring_reason=scorer.reason,
        # What has no score was not combined with anything.
        fused={} if len(ranked.unscored) == len(ranked.scores) else rule.fused,
    )
    if due is None:
        return Ranked(scored, usage, candidates.context)
    degraded = sentence(due, spread, candidates.owner.count(None), left_out, why)
    return Ranked(scored, usage, candidates.context, degraded)


def _in_texts(spans: Mapping[int, tuple[int, int]], request: Request) -> dict[int, tuple[int, int]]:
    """Spans of those documents whose own text was split, not a composition of their fields."""
    return {
        index: span
        for index, span in spans.items()
        if request.documents[index].text == request.read[index].text
    }
