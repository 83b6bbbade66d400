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
from icr_rag.model.engine import Engine
from icr_rag.model.passes import SMALLEST_CHUNK, check_finite, input_device, within_memory
from icr_rag.model.reading import READINGS, DocumentReader, TokenReader
from icr_rag.prompts.independent import IndependentPrompts
from icr_rag.prompts.layout import Ids, IndependentPrompt
from icr_rag.scoring.attention import AttentionScorer
from icr_rag.scoring.base import Cost
from icr_rag.states.blind_tail import DocumentKeys, run_blind_tail
from icr_rag.states.document_states import DocumentStates
from icr_rag.states.opening import keep_keys, keep_states
from icr_rag.states.shared_tail import run_shared_tail

#: Tokens of documents that one tail sees at most; longer lists go through windows.
CAPACITY = 65_536


class IndependentAttentionScorer(AttentionScorer):
    """Scores a list of documents by how much the query's tokens attend to them."""

    #: Documents do not share positions: each must fit by itself.
    together = 1

    def __init__(self, engine: Engine, config: RerankerConfig, framework: str) -> None:
        super().__init__(engine, config, framework)
        self.capacity = CAPACITY if config.token_budget is None else config.token_budget
        with engine.lock:
            # The null query's rows are run only where a reading compares with them.
            self.prompts: IndependentPrompts = IndependentPrompts(
                engine.tokenizer,
                config.instruction,
                config.double_query,
                self.compared_null_query,
            )
            head_ids = self.prompts.head_ids
            if config.document_states == "blind":
                self.states: DocumentStates = keep_keys(
                    engine, config, head_ids, self.selection.heads
                )
            else:
                self.states = keep_states(engine, config, head_ids, self.layers[-1])

    def score(self, query_ids: Ids, documents: Sequence[Ids], cost: Cost) -> list[float]:
        """One score per document, higher is better, comparable within this call only."""
        return self.score_queries([query_ids], documents, cost)[0]

    def score_queries(
        self,
        queries: Sequence[Ids],
        documents: Sequence[Ids],
        cost: Cost,
    ) -> list[list[float]]:
        """`score` of each query over the same documents: one pass for all of them."""
        started = time.perf_counter()
        prompt = self.prompts.build_independent(queries, documents)
        built = time.perf_counter()
        if self.weigh is None:
            scores = self._published(prompt, len(queries), cost)
        else:
            found = self._read(prompt, len(queries), cost, self.selection.readings)
            scores = [self.weigh(own) for own in found]
        cost.windows += len(queries)
        cost.calls += 1
        cost.seconds["prompt"] += built - started
        cost.seconds["forward"] += time.perf_counter() - built
        return scores

    def read_documents(
        self,
        query_ids: Ids,
        documents: Sequence[Ids],
        cost: Cost,
        needed: Collection[str] = READINGS,
    ) -> torch.Tensor:
        """See `icr_rag.scoring.base.ReadsAttention`."""
        prompt = self.prompts.build_independent([query_ids], documents)
        return self._read(prompt, 1, cost, needed)[0]

    def _read(
        self, prompt: IndependentPrompt, queries: int, cost: Cost, needed: Collection[str]
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

    def bodies(self, documents: Sequence[Ids]) -> list[list[int]]:
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
        return [self.published_scores(own, null, prompt.spans) for own in summed[:queries]]

    def _run(
        self, prompt: IndependentPrompt, reader: TokenReader | DocumentReader, cost: Cost
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
        cost.tokens += tokens
