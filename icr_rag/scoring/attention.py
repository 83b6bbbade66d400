"""Attention scoring: ICR (arXiv 2410.02642) and Selective-ICR (arXiv 2602.22591).

ICR adds up all heads of all layers; Selective-ICR does the same in a window of middle layers and
stops the forward pass there. Both are this one scorer with different layers.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from icr_rag.config import RerankerConfig
from icr_rag.model.forward import read_tails_within_memory
from icr_rag.model.loading import Engine, resolve_layers
from icr_rag.prompts import Prompt, PromptBuilder
from icr_rag.scoring.calibration import document_lifts, document_scores


@dataclass
class Cost:
    """What the windows of one call cost so far."""

    tokens: int = 0
    windows: int = 0
    seconds: dict[str, float] = field(
        default_factory=lambda: {"prompt": 0.0, "forward": 0.0, "score": 0.0}
    )


class AttentionScorer:
    """Scores one window of documents by how much the query's tokens attend to them.

    Args:
        engine: the model.
        config: what to read and how to calibrate it.
    """

    def __init__(self, engine: Engine, config: RerankerConfig) -> None:
        self.engine = engine
        self.config = config
        self.layers = resolve_layers(config, engine.text_config)
        with engine.lock:
            self.prompts = PromptBuilder(
                engine.tokenizer,
                config.instruction,
                config.double_query,
                config.null_query if config.calibration == "null" else None,
            )
        self._heads: dict[int, list[int] | None] | None = None
        if config.heads is not None:
            chosen = config.heads
            self._heads = {
                layer: [head for at, head in chosen if at == layer] for layer in self.layers
            }

    def score(
        self, query_ids: Sequence[int], documents: Sequence[Sequence[int]], cost: Cost
    ) -> list[float]:
        """One score per document, higher is better, comparable within this call only.

        Args:
            query_ids: as `PromptBuilder.encode_query` gives them.
            documents: token ids per document, in first-stage order, best first.
            cost: added to.
        """
        started = time.perf_counter()
        prompt = self.build(query_ids, documents)
        built = time.perf_counter()
        readings = self.read(prompt, sum_heads=True)
        read = time.perf_counter()
        summed = [reading.sum(dim=0) for reading in readings]
        length = len(prompt.prefix_ids)
        query = summed[0][:length]
        null = summed[1][:length] if len(summed) > 1 else None
        mask = self.config.token_mask
        if self.config.score_mode == "lift" and null is not None:
            scores = document_lifts(query, null, prompt.spans, mask)
        else:
            scores = document_scores(query, null, prompt.spans, mask, self.config.aggregation)
        cost.windows += 1
        cost.tokens += length + sum(
            tail.rows.stop for tail in (prompt.query, prompt.null) if tail is not None
        )
        cost.seconds["prompt"] += built - started
        cost.seconds["forward"] += read - built
        cost.seconds["score"] += time.perf_counter() - read
        return scores

    def build(self, query_ids: Sequence[int], documents: Sequence[Sequence[int]]) -> Prompt:
        """The prompt, with spans in the order of ``documents`` whatever their place in it.

        ``order="best_last"`` puts the first candidate last, nearest to the query.
        """
        if self.config.order == "given":
            return self.prompts.build(query_ids, documents)
        prompt = self.prompts.build(query_ids, documents[::-1])
        return Prompt(prompt.prefix_ids, prompt.spans[::-1], prompt.query, prompt.null)

    def read(self, prompt: Prompt, sum_heads: bool) -> list[torch.Tensor]:
        """Readings of the query's tail and, if there is one, of the null tail.

        Each is float32 [layer, head, token], or [layer, token] with ``sum_heads``.
        """
        tails = [prompt.query] if prompt.null is None else [prompt.query, prompt.null]
        with self.engine.lock:
            chunk = self.config.prefill_chunk
            readings, worked = read_tails_within_memory(
                self.engine.decoder,
                prompt.prefix_ids,
                tails,
                self.layers,
                heads=self._heads,
                kernel=self.engine.kernel,
                chunk=self.engine.chunk if chunk is None else chunk,
                sum_heads=sum_heads,
            )
            if chunk is None:
                self.engine.chunk = min(self.engine.chunk, worked)
        return readings
