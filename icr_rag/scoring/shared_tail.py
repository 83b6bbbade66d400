"""Attention over independent documents: one tail that sees all of them.

The prompt is ICR's without the documents' numbers. No document sees another, so that the order of
the candidates cannot show in the scores; that all are in the softmax together makes scores
relative to the list. With kept states a query costs one short pass, however many documents there
are. A blind tail (``document_states="blind"``) is cheaper still: the query's tokens run by
themselves, and only what is read of them meets the documents.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

import torch

from icr_rag.config import RerankerConfig
from icr_rag.model.blind_tail import DocumentKeys, run_blind_tail
from icr_rag.model.document_states import DocumentStates
from icr_rag.model.engine import Engine
from icr_rag.model.forward import SMALLEST_CHUNK, check_finite, input_device, within_memory
from icr_rag.model.reading import READINGS, WITH_NULL, DocumentReader, TokenReader
from icr_rag.model.shared_tail import IndependentPrompt, run_shared_tail
from icr_rag.prompts import IndependentPrompts
from icr_rag.scoring.base import Cost
from icr_rag.scoring.calibration import document_lifts, document_scores
from icr_rag.scoring.head_scores import HeadScores
from icr_rag.scoring.kept_states import keep_keys, keep_states
from icr_rag.selection import select_heads

#: Tokens of documents that one tail sees at most; longer lists go through windows.
CAPACITY = 65_536


class SharedTailScorer:
    """Scores a list of documents by how much the query's tokens attend to them.

    Args:
        engine: the model.
        config: what to read and how to calibrate it.
    """

    #: Documents do not share positions: each must fit by itself.
    together = 1

    def __init__(self, engine: Engine, config: RerankerConfig) -> None:
        self.engine = engine
        self.config = config
        self.selection = select_heads(config, engine.text_config)
        self.framework = self.selection.framework
        self.layers = self.selection.layers
        self.first_stage_weight = self.selection.first_stage_weight
        self.capacity = CAPACITY if config.token_budget is None else config.token_budget
        weights = self.selection.weights
        # The null query's rows are run only where a reading compares with them.
        compares = not WITH_NULL.isdisjoint(self.selection.readings)
        null_query = config.null_query if config.calibration == "null" and compares else None
        with engine.lock:
            self.prompts = IndependentPrompts(
                engine.tokenizer, config.instruction, config.double_query, null_query
            )
            head_ids = self.prompts.head_ids
            if config.document_states == "blind":
                self.states: DocumentStates = keep_keys(
                    engine, config, head_ids, self.selection.heads
                )
            else:
                self.states = keep_states(engine, config, head_ids, self.layers[-1])
        self._weigh: HeadScores | None = None
        if weights is not None:
            heads = engine.text_config.num_attention_heads
            self._weigh = HeadScores(weights, self.selection.heads, heads)

    def score(
        self, query_ids: Sequence[int], documents: Sequence[Sequence[int]], cost: Cost
    ) -> list[float]:
        """One score per document, higher is better, comparable within this call only."""
        return self.score_queries([query_ids], documents, cost)[0]

    def score_queries(
        self,
        queries: Sequence[Sequence[int]],
        documents: Sequence[Sequence[int]],
        cost: Cost,
    ) -> list[list[float]]:
        """`score` of each query over the same documents: one pass for all of them."""
        started = time.perf_counter()
        prompt = self.prompts.build_independent(queries, documents)
        built = time.perf_counter()
        if self._weigh is None:
            scores = self._published(prompt, len(queries), cost)
        else:
            found = self._read(prompt, len(queries), cost, self.selection.readings)
            scores = [self._weigh(own) for own in found]
        cost.windows += len(queries)
        cost.calls += 1
        cost.seconds["prompt"] += built - started
        cost.seconds["forward"] += time.perf_counter() - built
        return scores

    def build(
        self, query_ids: Sequence[int], documents: Sequence[Sequence[int]]
    ) -> IndependentPrompt:
        """The prompt, with spans in the order of ``documents``."""
        return self.prompts.build_independent([query_ids], documents)

    def read_documents(self, prompt: IndependentPrompt, cost: Cost | None = None) -> torch.Tensor:
        """`icr_rag.model.reading.READINGS`: float32 [document, layer and head, reading]."""
        return self._read(prompt, 1, cost, READINGS)[0]

    def _read(
        self,
        prompt: IndependentPrompt,
        queries: int,
        cost: Cost | None,
        needed: Collection[str],
    ) -> list[torch.Tensor]:
        """Readings of every query, 0 where not ``needed``."""
        reader = DocumentReader(
            self.selection.heads,
            [prompt.spans],
            self.config.token_mask,
            queries,
            needed,
        )
        self._run(prompt, reader, cost)
        result = []
        for number in range(queries):
            found = [reader.readings[layer][number] for layer in self.layers]
            check_finite(found, self.engine.decoder, self.layers)
            result.append(torch.cat(found, dim=1))
        return result

    def bodies(self, documents: Sequence[Sequence[int]]) -> list[list[int]]:
        """What is kept of documents, as `DocumentStates` takes it."""
        return [self.prompts.body(ids) for ids in documents]

    def _published(self, prompt: IndependentPrompt, queries: int, cost: Cost) -> list[list[float]]:
        """ICR's scores (arXiv 2410.02642) of every query."""
        reader = TokenReader(self.selection.heads, sum_heads=True)
        self._run(prompt, reader, cost)
        summed = []
        for number in range(len(prompt.tails)):
            readings = [reader.readings[layer][number] for layer in self.layers]
            check_finite(readings, self.engine.decoder, self.layers)
            summed.append(torch.stack(readings).sum(dim=0)[: prompt.length])
        null = summed[queries] if len(summed) > queries else None
        mask = self.config.token_mask
        if self.config.score_mode == "lift" and null is not None:
            return [document_lifts(query, null, prompt.spans, mask) for query in summed[:queries]]
        kind = self.config.aggregation
        return [
            document_scores(query, null, prompt.spans, mask, kind) for query in summed[:queries]
        ]

    def _run(
        self, prompt: IndependentPrompt, reader: TokenReader | DocumentReader, cost: Cost | None
    ) -> None:
        def call(_: int) -> int:
            if isinstance(self.states, DocumentKeys):
                return run_blind_tail(self.engine, self.states, prompt, self.layers, reader)
            return run_shared_tail(self.engine, self.states, prompt, self.layers, reader)

        what = f"a tail over {prompt.length} tokens of documents, {self.layers[-1] + 1} layers"
        with self.engine.settled():
            device = input_device(self.engine.decoder)
            # A tail is not run in chunks: what does not fit is an error that says so.
            tokens, _ = within_memory(call, SMALLEST_CHUNK, what, device)
        if cost is not None:
            cost.tokens += tokens
