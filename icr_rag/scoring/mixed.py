"""Mixed scoring: query likelihood and attention, from one pass over each document.

The prompt is query likelihood's. The pass that gives the query's probability also gives how its
tokens attend to the document, for nothing; the two make different mistakes. Both are standardised
over the candidates and added up with the weights of the profile.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from icr_rag.config import RerankerConfig
from icr_rag.model.batch import run_batch
from icr_rag.model.loading import Engine
from icr_rag.scoring.base import Cost, Ids
from icr_rag.scoring.head_scores import HeadScores, standardise
from icr_rag.scoring.likelihood import count_batch, query_log_likelihood
from icr_rag.selection import select_heads
from icr_rag.templates import QueryLikelihoodPrompts


class MixedScorer:
    """Scores each document by query likelihood and attention together.

    Args:
        engine: the model, with its LM head.
        config: what is read, null_query.
    """

    together = 1

    def __init__(self, engine: Engine, config: RerankerConfig) -> None:
        self.engine = engine
        self.config = config
        self.selection = select_heads(config, engine.text_config)
        self.layers = self.selection.layers
        with engine.lock:
            self.prompts = QueryLikelihoodPrompts(
                engine.tokenizer, config.null_query if config.calibration == "null" else None
            )
        self._weigh = HeadScores(
            self.selection.weights or (),
            self.selection.heads,
            engine.text_config.num_attention_heads,
        )

    def score_each(self, query_ids: Ids, documents: Sequence[Ids], cost: Cost) -> list[float]:
        """One score per document, higher is better, relative to these documents."""
        likelihoods, readings = self.read(query_ids, documents, cost)
        weight = self.selection.likelihood_weight
        own = (standardise(likelihoods.double()) * weight).tolist()
        attention = self._weigh(readings)
        return [a + b for a, b in zip(own, attention, strict=True)]

    def read(
        self, query_ids: Ids, documents: Sequence[Ids], cost: Cost
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Query likelihoods [document] and readings [document, layer and head, reading]."""
        started = time.perf_counter()
        batch = self.prompts.build(query_ids, documents)
        result = run_batch(
            self.engine,
            batch,
            heads=self.selection.heads,
            token_mask=self.config.token_mask,
            reduce=query_log_likelihood(query_ids),
            chunk=self.config.prefill_chunk,
        )
        count_batch(cost, batch.tokens, len(documents), started)
        return torch.stack(result.outputs), torch.cat(result.readings)
