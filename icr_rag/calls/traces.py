"""What traces say of a ranking, of several together, and of encoding.

One ranking is one span, whichever call, adapter or server it came by. Its attributes follow two
conventions, as far as they go:

- OpenInference's for re-rankers (``openinference.span.kind=RERANKER``, ``reranker.*``), which
  Phoenix, Arize, Langfuse and others show;
- OpenTelemetry's for generative AI (``gen_ai.*``). As of version 0.66b2 these are drafts that know
  the operations chat, generate_content, text_completion, embeddings, retrieval and those of agents,
  and nothing about re-ranking; another name may stand for what is not among them, so that it is
  "rerank" here. Model and tokens are named as there.

All else begins with ``icr_rag.``. Texts (queries, documents, messages of errors) are in a span with
``traces="texts"`` only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Concatenate, ParamSpec

from icr_rag.config import RerankerConfig
from icr_rag.telemetry import Value, spanned
from icr_rag.types import Document, Encoded, Ranking

if TYPE_CHECKING:
    from icr_rag.calls.request import Request
    from icr_rag.scoring.base import Scorer

_P = ParamSpec("_P")

#: Documents of each list that a span names: SDKs keep 128 attributes of a span and drop others.
MOST_DOCUMENTS = 16


def traced_ranking(
    config: RerankerConfig, request: Request, rank: Callable[[], Ranking]
) -> Ranking:
    """What ``rank`` gives, in a span.

    Args:
        config: the reranker's, with traces on.
        request: what is ranked.
        rank: ranks it.
    """
    texts = config.traces == "texts"
    beginning: dict[str, Value | None] = {
        **_model(config, "rerank"),
        "openinference.span.kind": "RERANKER",
        "reranker.model_name": config.model,
        "reranker.top_k": request.top_n,
        "reranker.query": request.query if texts and isinstance(request.query, str) else None,
        "icr_rag.documents.in": len(request.documents),
    }
    with spanned(f"rerank {config.model}", beginning, texts=texts) as span:
        ranking = rank()
        if span.wanted:
            for number, document in enumerate(request.documents[:MOST_DOCUMENTS]):
                about = _document(document, number, texts=texts)
                span.say({f"reranker.input_documents.{number}.{k}": v for k, v in about.items()})
            for number, hit in enumerate(ranking.hits[:MOST_DOCUMENTS]):
                about = _document(hit.document, hit.index, texts=texts)
                about["document.score"] = hit.score
                span.say({f"reranker.output_documents.{number}.{k}": v for k, v in about.items()})
            span.say(_outcome(config, request, ranking, texts=texts))
        if ranking.error is not None:
            # "Type: message"; the message may repeat a text.
            span.wrong(ranking.error.partition(":")[0])
        return ranking


def traced_lists(
    rank: Callable[Concatenate[RerankerConfig, _P], list[Ranking]],
) -> Callable[Concatenate[RerankerConfig, _P], list[Ranking]]:
    """Puts a span around the spans of rankings that are made together, where traces are on."""

    @functools.wraps(rank)
    def traced(config: RerankerConfig, /, *args: _P.args, **kwargs: _P.kwargs) -> list[Ranking]:
        if config.traces == "none":
            return rank(config, *args, **kwargs)
        beginning: dict[str, Value | None] = {
            **_model(config, "rerank"), "openinference.span.kind": "CHAIN"
        }  # fmt: skip
        name = f"rerank_many {config.model}"
        with spanned(name, beginning, texts=config.traces == "texts") as span:
            rankings = rank(config, *args, **kwargs)
            span.say(
                {
                    "icr_rag.queries": len(rankings),
                    "gen_ai.usage.input_tokens": sum(own.usage.tokens for own in rankings),
                }
            )
            return rankings

    return traced


def traced_encoding(
    encode: Callable[Concatenate[Callable[[], Scorer], RerankerConfig, _P], Encoded],
) -> Callable[Concatenate[Callable[[], Scorer], RerankerConfig, _P], Encoded]:
    """Puts a span around encoding documents ahead of time, where traces are on."""

    @functools.wraps(encode)
    def traced(
        make_scorer: Callable[[], Scorer],
        config: RerankerConfig,
        /,
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> Encoded:
        if config.traces == "none":
            return encode(make_scorer, config, *args, **kwargs)
        beginning: dict[str, Value | None] = {
            **_model(config, "encode"), "openinference.span.kind": "CHAIN"
        }  # fmt: skip
        with spanned(f"encode {config.model}", beginning, texts=config.traces == "texts") as span:
            done = encode(make_scorer, config, *args, **kwargs)
            span.say(
                {
                    "gen_ai.usage.input_tokens": done.tokens,
                    "icr_rag.documents.kept": done.documents,
                    "icr_rag.documents.new": done.new,
                    "icr_rag.documents.truncated": len(done.truncated),
                    "icr_rag.states.evicted": done.evicted,
                    "icr_rag.seconds.total": done.seconds,
                }
            )
            return done

    return traced


def _model(config: RerankerConfig, operation: str) -> dict[str, Value | None]:
    return {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "icr_rag",
        "gen_ai.request.model": config.model,
    }


def _document(document: Document, index: int, *, texts: bool) -> dict[str, Value | None]:
    return {
        "document.id": index if document.id is None else document.id,
        "document.content": document.content if texts else None,
    }


def _outcome(
    config: RerankerConfig, request: Request, ranking: Ranking, *, texts: bool
) -> Mapping[str, Value | None]:
    """What came of it, in numbers."""
    usage = ranking.usage
    return {
        # Again, so that they are the last to go where a span holds too much.
        "openinference.span.kind": "RERANKER",
        "reranker.model_name": config.model,
        "reranker.query": request.query if texts else None,
        "gen_ai.usage.input_tokens": usage.tokens,
        "gen_ai.usage.output_tokens": usage.generated_tokens,
        "icr_rag.scoring": usage.scoring or None,
        "icr_rag.framework": config.framework,
        "icr_rag.score_mode": config.score_mode,
        "icr_rag.documents.out": len(ranking.hits),
        "icr_rag.documents.truncated": len(usage.truncated),
        "icr_rag.documents.unscored": len(usage.unscored),
        "icr_rag.documents.duplicates": len(ranking.duplicates),
        "icr_rag.prompts": usage.calls,
        "icr_rag.windows": usage.windows,
        "icr_rag.passages": usage.passages or None,
        "icr_rag.states.evicted": usage.states_evicted,
        "icr_rag.degraded": ranking.degraded,
        "icr_rag.answerable": ranking.answerable,
        "icr_rag.abstained": ranking.abstained or None,
        # Its caller was given another answer already, at the deadline.
        "icr_rag.abandoned": request.answered or None,
        **{f"icr_rag.seconds.{phase}": own for phase, own in usage.seconds.items()},
    }
