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
from icr_rag.model.batch import BatchResult, Reduce, run_batch
from icr_rag.model.document_states import DocumentStates
from icr_rag.model.engine import Engine
from icr_rag.model.reading import READINGS, WITH_NULL
from icr_rag.scoring.base import Cost, Ids
from icr_rag.scoring.head_scores import HeadScores
from icr_rag.scoring.likelihood import bodies_of, count_batch
from icr_rag.selection import select_heads
from icr_rag.templates import QueryLikelihoodPrompts


class PointwiseAttentionScorer:
    """Scores each document by how much the query's tokens attend to it.

    Args:
        engine: the model.
        config: what to read and how to calibrate it.
    """

    framework = "pointwise"
    together = 1

    def __init__(self, engine: Engine, config: RerankerConfig) -> None:
        self.engine = engine
        self.config = config
        self.selection = select_heads(config, engine.text_config)
        self.layers = self.selection.layers
        self.first_stage_weight = self.selection.first_stage_weight
        weights = self.selection.weights
        self._weigh: HeadScores | None = None
        if weights is not None:
            heads = engine.text_config.num_attention_heads
            self._weigh = HeadScores(weights, self.selection.heads, heads)
        # The null query's rows are run only where a reading compares with them.
        compares = not WITH_NULL.isdisjoint(self.selection.readings)
        null_query = config.null_query if config.calibration == "null" and compares else None
        with engine.lock:
            self.prompts = QueryLikelihoodPrompts(engine.tokenizer, null_query)
            self.states = self._keep_states()

    def score_each(self, query_ids: Ids, documents: Sequence[Ids], cost: Cost) -> list[float]:
        """One score per document, higher is better.

        With weights relative to these documents; without, by itself.
        """
        readings = torch.cat(
            self._run(query_ids, documents, cost, readings=self.selection.readings).readings
        )
        if self._weigh is None:
            column = READINGS.index("calibrated")
            scores: list[float] = readings[:, :, column].sum(dim=1).tolist()
            return scores
        return self._weigh(readings)

    def read_documents(self, query_ids: Ids, documents: Sequence[Ids], cost: Cost) -> torch.Tensor:
        """`icr_rag.model.reading.READINGS`: float32 [document, layer and head, reading]."""
        return torch.cat(self._run(query_ids, documents, cost).readings)

    def _run(
        self,
        query_ids: Ids,
        documents: Sequence[Ids],
        cost: Cost,
        reduce: Reduce | None = None,
        readings: Collection[str] = READINGS,
    ) -> BatchResult:
        started = time.perf_counter()
        batch = self.prompts.build(query_ids, documents)
        result = run_batch(
            self.engine,
            batch,
            heads=self.selection.heads,
            token_mask=self.config.token_mask,
            readings=readings,
            reduce=reduce,
            chunk=self.config.prefill_chunk,
            states=self.states,
        )
        count_batch(cost, result.tokens, len(documents), started)
        return result

    def bodies(self, documents: Sequence[Ids]) -> list[Ids]:
        """What is kept of documents; see `bodies_of`."""
        return bodies_of(self.prompts, documents)

    def _keep_states(self) -> DocumentStates | None:
        if self.config.document_states == "joint":
            return None
        from icr_rag.scoring.kept_states import keep_states

        return keep_states(self.engine, self.config, self.prompts.head_ids, self.layers[-1])
