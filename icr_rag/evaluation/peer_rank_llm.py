"""castorini/rank_llm: listwise generation on vllm (RankZephyr, arXiv 2312.02724)."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from icr_rag.config import RerankerConfig
from icr_rag.evaluation.peer_base import NotRunHere, ranking_of
from icr_rag.model.loading import resolve_source
from icr_rag.types import Document, Ranking, Usage


class RankLLMPeer:
    """rank_llm's `RankListwiseOSLLM`, one query at a time.

    Written to rank_llm 0.25, whose causal LMs run on vllm only; it has not been run with real
    weights where this was developed.

    Args:
        config: which model.
        context_size: tokens that one prompt may have.
        window_size, stride: documents per prompt, and how far windows slide.
        **options: further arguments of `RankListwiseOSLLM`.

    Raises:
        NotRunHere: where rank_llm or what it needs (vllm, an accelerator) is missing.
    """

    def __init__(
        self,
        config: RerankerConfig,
        context_size: int = 4096,
        window_size: int = 20,
        stride: int = 10,
        **options: object,
    ) -> None:
        try:
            self._data = importlib.import_module("rank_llm.data")
            listwise = importlib.import_module("rank_llm.rerank.listwise")
            rerank = importlib.import_module("rank_llm.rerank")
        except ImportError as error:
            raise NotRunHere(
                f"rank_llm cannot be imported ({error}); pip install rank-llm, which needs vllm "
                "and an accelerator"
            ) from error
        agent = listwise.RankListwiseOSLLM(
            model=resolve_source(config),
            context_size=context_size,
            window_size=window_size,
            stride=stride,
            **options,
        )
        self._reranker = rerank.Reranker(agent)

    def rank(self, query: str, documents: Sequence[Document]) -> Ranking:
        """All documents, best first."""
        data = self._data
        candidates = [
            # Scores fall, as a first stage's do; ids are positions.
            data.Candidate(
                docid=str(place), score=float(-place), doc={"text": d.text, "title": d.title or ""}
            )
            for place, d in enumerate(documents)
        ]
        request = data.Request(query=data.Query(text=query, qid="0"), candidates=candidates)
        result = self._reranker.rerank(
            request, rank_end=len(documents), populate_invocations_history=True
        )
        history = result.invocations_history
        usage = Usage(
            tokens=sum(call.input_token_count for call in history),
            calls=len(history),
            windows=len(history),
            generated_tokens=sum(call.output_token_count for call in history),
        )
        return ranking_of([int(hit.docid) for hit in result.candidates], documents, usage)

    def close(self) -> None:
        """Let go of the weights."""
        self._reranker = None
