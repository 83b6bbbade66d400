"""Pointwise attention: each document alone in the prompt with the query.

The prompt is ICR's with one document and no number. No document sees another, so that the order
of the candidates cannot show in the scores. Without weights a document's score is ICR's, summed
over the heads that are read; with a profile the readings are standardised over the candidates,
weighted and added up.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from icr_rag.config import RerankerConfig
from icr_rag.model.batch import PromptBatch, run_batch
from icr_rag.model.loading import Engine
from icr_rag.model.reading import READINGS
from icr_rag.prompts import PromptBuilder
from icr_rag.scoring.base import Cost, Ids
from icr_rag.scoring.head_scores import HeadScores
from icr_rag.scoring.likelihood import count_batch
from icr_rag.selection import select_heads


class PointwiseAttentionScorer:
    """Scores each document by how much the query's tokens attend to it.

    Args:
        engine: the model.
        config: what to read and how to calibrate it.
    """

    together = 1

    def __init__(self, engine: Engine, config: RerankerConfig) -> None:
        self.engine = engine
        self.config = config
        self.selection = select_heads(config, engine.text_config)
        self.layers = self.selection.layers
        with engine.lock:
            self.prompts = PromptBuilder(
                engine.tokenizer,
                config.instruction,
                config.double_query,
                config.null_query if config.calibration == "null" else None,
            )
        self._weigh: HeadScores | None = None
        if self.selection.weights is not None:
            self._weigh = HeadScores(
                self.selection.weights,
                self.selection.heads,
                engine.text_config.num_attention_heads,
            )

    def score_each(self, query_ids: Ids, documents: Sequence[Ids], cost: Cost) -> list[float]:
        """One score per document, higher is better."""
        readings = self.read_documents(query_ids, documents, cost)
        if self._weigh is None:
            column = READINGS.index("calibrated")
            scores: list[float] = readings[:, :, column].sum(dim=1).tolist()
            return scores
        return self._weigh(readings)

    def read_documents(self, query_ids: Ids, documents: Sequence[Ids], cost: Cost) -> torch.Tensor:
        """`icr_rag.model.reading.READINGS`: float32 [document, layer and head, reading]."""
        import time

        started = time.perf_counter()
        batch: PromptBatch = self.prompts.build_single(query_ids, documents)
        result = run_batch(
            self.engine,
            batch,
            heads=self.selection.heads,
            token_mask=self.config.token_mask,
            chunk=self.config.prefill_chunk,
        )
        count_batch(cost, batch.tokens, len(documents), started)
        return torch.cat(result.readings)
