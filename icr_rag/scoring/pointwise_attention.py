"""Pointwise attention: each document alone with the query.

The prompt is query likelihood's, a document and then the query, and nothing is generated or
predicted: the pass ends in the last layer that is read. No document sees another, so that the
order of the candidates cannot show in the scores, and lists of any length need no windows. On a
small model this ranks far better than reading all documents in one prompt; docs/study.md.

Without weights a document's score is ICR's (arXiv 2410.02642), added up over the heads that are
read; with a profile, readings are standardised over the candidates, weighted and added up.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

import torch

from icr_rag.config import RerankerConfig
from icr_rag.model.batch import run_batch
from icr_rag.model.engine import Engine
from icr_rag.model.reading import READINGS
from icr_rag.model.runner import BatchResult, Reduce
from icr_rag.prompts.query_likelihood import QueryLikelihoodPrompts
from icr_rag.scoring.attention import AttentionScorer
from icr_rag.scoring.base import Cost, Ids
from icr_rag.scoring.basis import of_continued
from icr_rag.scoring.likelihood import bodies_of, count_lists, over_kept
from icr_rag.scoring.null_documents import as_scores, null_documents
from icr_rag.states.document_states import DocumentStates
from icr_rag.states.opening import keep_states


class PointwiseAttentionScorer(AttentionScorer):
    """Scores each document by how much the query's tokens attend to it."""

    def __init__(self, engine: Engine, config: RerankerConfig, framework: str) -> None:
        super().__init__(engine, config, framework)
        with engine.lock:
            # The null query's rows are run only where a reading compares with them.
            self.prompts: QueryLikelihoodPrompts = QueryLikelihoodPrompts(
                engine.tokenizer, self.compared_null_query, config.instruction
            )
            self.states = self._keep_states()
            self.nulls = null_documents(engine, config, self.prompts)
        if self.nulls is not None:
            self.least = self.nulls.longest

    def score_each(self, query_ids: Ids, documents: Sequence[Ids], cost: Cost) -> list[float]:
        """One score per document, higher is better.

        With weights relative to these documents; without, by itself. With
        ``score_mode="explained"`` the attention that a document gets beyond that of documents
        without content, which is 0: with weights a weighted mean of the readings, most of which
        are logarithms, without weights ICR's sum.
        """
        return self.scores_of([self.read_each(query_ids, documents, cost)])

    def read_each(self, query_ids: Ids, documents: Sequence[Ids], cost: Cost) -> torch.Tensor:
        """See `icr_rag.scoring.base.InParts`: readings, or absolute values [document]."""
        return self.read_pairs([query_ids], [documents], [cost])[0]

    def read_pairs(
        self, queries: Sequence[Ids], lists: Sequence[Sequence[Ids]], costs: Sequence[Cost]
    ) -> list[torch.Tensor]:
        """See `icr_rag.scoring.base.ReadsPairs`; per list as `read_each`."""

        def read(given: Sequence[Sequence[Ids]]) -> list[torch.Tensor]:
            results = self._run(queries, given, costs, readings=self.selection.readings)
            return [torch.cat(own.readings) for own in results]

        if self.nulls is None:
            return read(lists)
        beside = self.nulls.run_beside(
            queries, lists, lambda given: [self._alone(own) for own in read(given)]
        )
        return [values - null for values, null in beside]

    def scores_of(self, rows: Sequence[torch.Tensor]) -> list[float]:
        """See `icr_rag.scoring.base.InParts`."""
        readings = torch.cat(list(rows))
        if self.nulls is not None:
            return as_scores(readings)
        if self.weigh is not None:
            return self.weigh(readings)
        scores: list[float] = self._alone(readings).tolist()
        return scores

    def _alone(self, readings: torch.Tensor) -> torch.Tensor:
        """[document]: of each document's readings what does not depend on the others."""
        if self.weigh is not None:
            return self.weigh.mean(self.weigh.weighted(readings))
        return readings[:, :, READINGS.index("calibrated")].sum(dim=1)

    def read_documents(
        self,
        query_ids: Ids,
        documents: Sequence[Ids],
        cost: Cost,
        needed: Collection[str] = READINGS,
    ) -> torch.Tensor:
        """See `icr_rag.scoring.base.ReadsAttention`."""
        return torch.cat(self._run([query_ids], [documents], [cost], readings=needed)[0].readings)

    def _run(
        self,
        queries: Sequence[Ids],
        lists: Sequence[Sequence[Ids]],
        costs: Sequence[Cost],
        reduce: Reduce | None = None,
        readings: Collection[str] = READINGS,
    ) -> list[BatchResult]:
        """Per list."""
        started = time.perf_counter()
        result = run_batch(
            self.engine,
            self.prompts.build_lists(queries, lists),
            heads=self.selection.heads,
            token_mask=self.config.token_mask,
            readings=readings,
            reduce=reduce,
            chunk=self.config.prefill_chunk,
            keeping=over_kept(self.states, self.prompts, lists),
        )
        return count_lists(costs, result, lists, started)

    def basis(self) -> dict[str, str]:
        """See `icr_rag.scoring.base.Scorer.basis`."""
        return {**super().basis(), **of_continued(self.prompts)}

    def bodies(self, documents: Sequence[Ids]) -> list[Ids]:
        """What is kept of documents; see `bodies_of`."""
        return bodies_of(self.prompts, documents)

    def _keep_states(self) -> DocumentStates | None:
        if self.config.document_states == "joint":
            return None
        return keep_states(self.engine, self.config, self.prompts.head_ids, self.layers[-1])
