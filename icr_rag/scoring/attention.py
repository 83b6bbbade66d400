"""Attention scoring of documents that share a prompt: ICR and what was made of it.

ICR (arXiv 2410.02642) adds up all heads of all layers; Selective-ICR (arXiv 2602.22591) does the
same in a window of middle layers and stops the forward pass there. With a profile, chosen heads
are weighted instead. All are this one scorer with different selections. Listwise it scores a
window of documents; setwise it picks the best of a few.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

import torch

from icr_rag.config import RerankerConfig
from icr_rag.model.anatomy import Anatomy
from icr_rag.model.engine import Engine
from icr_rag.model.forward import input_device, read_documents, read_tails, within_memory
from icr_rag.model.reading import READINGS
from icr_rag.prompts import Prompt, PromptBuilder
from icr_rag.scoring.base import Cost
from icr_rag.scoring.calibration import document_lifts, document_scores
from icr_rag.scoring.head_scores import HeadScores
from icr_rag.selection import select_heads


class AttentionScorer:
    """Scores one window of documents by how much the query's tokens attend to them.

    Args:
        engine: the model.
        config: what to read and how to calibrate it.
    """

    def __init__(self, engine: Engine, config: RerankerConfig) -> None:
        self.engine = engine
        self.config = config
        self.selection = select_heads(config, engine.text_config)
        self.framework = self.selection.framework
        self.layers = self.selection.layers
        self.first_stage_weight = self.selection.first_stage_weight
        # Windows could not slide with fewer than two.
        self.together = config.set_size if self.framework == "setwise" else 2
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
        if self._weigh is None:
            readings = self.read(prompt, sum_heads=True)
            read = time.perf_counter()
            scores = self._published(prompt, readings)
        else:
            by_head = self.read_documents(prompt, self.selection.readings)
            read = time.perf_counter()
            scores = self._weigh(by_head)
        cost.windows += 1
        cost.calls += 1
        cost.tokens += len(prompt.prefix_ids) + sum(
            tail.rows.stop for tail in (prompt.query, prompt.null) if tail is not None
        )
        cost.seconds["prompt"] += built - started
        cost.seconds["forward"] += read - built
        cost.seconds["score"] += time.perf_counter() - read
        return scores

    def pick(
        self,
        query_ids: Sequence[int],
        sets: Sequence[Sequence[Sequence[int]]],
        cost: Cost,
    ) -> list[int]:
        """Per set of documents, the place of the one with the highest score."""
        places = []
        for documents in sets:
            scores = self.score(query_ids, documents, cost)
            places.append(max(range(len(scores)), key=lambda place: (scores[place], -place)))
        return places

    def _published(self, prompt: Prompt, readings: Sequence[torch.Tensor]) -> list[float]:
        """ICR's scores from readings [layer, token] of the query and the null query."""
        summed = [reading.sum(dim=0) for reading in readings]
        length = len(prompt.prefix_ids)
        query = summed[0][:length]
        null = summed[1][:length] if len(summed) > 1 else None
        mask = self.config.token_mask
        if self.config.score_mode == "lift" and null is not None:
            return document_lifts(query, null, prompt.spans, mask)
        return document_scores(query, null, prompt.spans, mask, self.config.aggregation)

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

        def call(chunk: int) -> list[torch.Tensor]:
            return read_tails(
                self.engine.decoder,
                prompt.prefix_ids,
                prompt.tails,
                self.layers,
                heads=self.selection.heads,
                kernel=self.engine.kernel,
                chunk=chunk,
                sum_heads=sum_heads,
                anatomy=self._anatomy(),
            )

        return self._within_memory(call, prompt)

    def read_documents(self, prompt: Prompt, needed: Collection[str] = READINGS) -> torch.Tensor:
        """`icr_rag.model.reading.READINGS`: float32 [document, layer and head, reading], 0
        where not ``needed``."""

        def call(chunk: int) -> list[torch.Tensor]:
            return read_documents(
                self.engine.decoder,
                prompt.prefix_ids,
                prompt.tails,
                prompt.spans,
                self.selection.heads,
                token_mask=self.config.token_mask,
                needed=needed,
                kernel=self.engine.kernel,
                chunk=chunk,
                anatomy=self._anatomy(),
            )

        return torch.cat(self._within_memory(call, prompt), dim=1)

    def _anatomy(self) -> Anatomy:
        anatomy = self.engine.anatomy(self.layers[-1])
        anatomy.check_readable(self.layers)
        return anatomy

    def _within_memory(
        self, call: Callable[[int], list[torch.Tensor]], prompt: Prompt
    ) -> list[torch.Tensor]:
        engine = self.engine
        given = self.config.prefill_chunk
        what = f"{len(prompt.prefix_ids)} prompt tokens, {self.layers[-1] + 1} layers"
        with engine.lock:
            result, worked = within_memory(
                call, engine.chunk if given is None else given, what, input_device(engine.decoder)
            )
            if given is None:
                engine.chunk = min(engine.chunk, worked)
        return result
