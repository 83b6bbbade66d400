"""Attention scoring of documents that share a prompt: ICR and what was made of it.

Listwise it scores a window of documents; setwise it picks the best of a few.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

import torch

from icr_rag.config import RerankerConfig
from icr_rag.model.anatomy import Anatomy
from icr_rag.model.engine import Engine
from icr_rag.model.forward import read_documents, read_tails
from icr_rag.model.passes import in_time, input_device, within_memory
from icr_rag.model.reading import READINGS
from icr_rag.prompts.joint import JointPrompts
from icr_rag.prompts.layout import Ids, Prompt
from icr_rag.scoring.attention import AttentionScorer
from icr_rag.scoring.base import Cost


class JointAttentionScorer(AttentionScorer):
    """Scores one window of documents by how much the query's tokens attend to them."""

    def __init__(self, engine: Engine, config: RerankerConfig, framework: str) -> None:
        super().__init__(engine, config, framework)
        # Windows could not slide with fewer than two.
        self.together = config.set_size if framework == "setwise" else 2
        with engine.lock:
            self.prompts: JointPrompts = JointPrompts(
                engine.tokenizer, config.instruction, config.double_query, self.null_query
            )

    def score(self, query_ids: Ids, documents: Sequence[Ids], cost: Cost) -> list[float]:
        """One score per document, higher is better, comparable within this call only.

        Args:
            query_ids: as `JointPrompts.encode_query` gives them.
            documents: token ids per document, in first-stage order, best first.
            cost: added to.
        """
        started = time.perf_counter()
        prompt = self.build(query_ids, documents)
        built = time.perf_counter()
        if self.weigh is None:
            readings = self.read(prompt, sum_heads=True)
            read = time.perf_counter()
            scores = self._added_up(prompt, readings)
        else:
            by_head = self._read_documents(prompt, self.selection.readings)
            read = time.perf_counter()
            scores = self.weigh(by_head)
        self._count(prompt, cost)
        cost.seconds["prompt"] += built - started
        cost.seconds["forward"] += read - built
        cost.seconds["score"] += time.perf_counter() - read
        return scores

    def pick(self, query_ids: Ids, sets: Sequence[Sequence[Ids]], cost: Cost) -> list[int]:
        """Per set of documents, the place of the one with the highest score."""
        places = []
        for documents in sets:
            scores = self.score(query_ids, documents, cost)
            places.append(max(range(len(scores)), key=lambda place: (scores[place], -place)))
        return places

    def _added_up(self, prompt: Prompt, readings: Sequence[torch.Tensor]) -> list[float]:
        """Scores from readings [layer, token] of the query and the null query."""
        summed = [reading.sum(dim=0) for reading in readings]
        length = len(prompt.prefix_ids)
        null = summed[1][:length] if len(summed) > 1 else None
        return self.published_scores(summed[0][:length], null, prompt.spans)

    def build(self, query_ids: Ids, documents: Sequence[Ids]) -> Prompt:
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
                chunk=in_time(chunk, self.layers[-1]),
                sum_heads=sum_heads,
                anatomy=self._anatomy(),
            )

        return self._within_memory(call, prompt)

    def read_documents(
        self,
        query_ids: Ids,
        documents: Sequence[Ids],
        cost: Cost,
        needed: Collection[str] = READINGS,
    ) -> torch.Tensor:
        """See `icr_rag.scoring.base.ReadsAttention`."""
        prompt = self.build(query_ids, documents)
        found = self._read_documents(prompt, needed)
        self._count(prompt, cost)
        return found

    def _read_documents(self, prompt: Prompt, needed: Collection[str]) -> torch.Tensor:
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
                chunk=in_time(chunk, self.layers[-1]),
                anatomy=self._anatomy(),
            )

        return torch.cat(self._within_memory(call, prompt), dim=1)

    def _count(self, prompt: Prompt, cost: Cost) -> None:
        cost.windows += 1
        cost.calls += 1
        cost.tokens += len(prompt.prefix_ids) + sum(int(tail.rows.stop) for tail in prompt.tails)

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
