"""Label likelihood: which label would the model answer with? (arXiv 2310.09497, section 3.2.)

The model is asked for the most relevant of several labelled documents; instead of generating, the
probabilities of the labels as the next tokens are compared. Setwise picks the likeliest; pairwise
compares two documents in both orders, because models favour a place; listwise ranks a whole
window by the labels' likelihoods in one pass (FIRST, arXiv 2406.15657, section 3).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from icr_rag.config import RerankerConfig
from icr_rag.model.batch import run_batch
from icr_rag.model.engine import Engine
from icr_rag.prompts.comparison import ComparisonPrompts
from icr_rag.scoring.base import Cost, Ids, Scorer
from icr_rag.scoring.label_tokens import LabelTokens
from icr_rag.scoring.likelihood import count_batch


class LabelLikelihoodScorer(Scorer):
    """Compares documents by the likelihood of their labels: pairwise, setwise or listwise."""

    def __init__(self, engine: Engine, config: RerankerConfig, framework: str) -> None:
        super().__init__(engine, config, framework)
        self.together = config.set_size if framework == "setwise" else 2
        self._labels: dict[int, LabelTokens] = {}
        with engine.lock:
            self.prompts: ComparisonPrompts = ComparisonPrompts(
                engine.tokenizer, framework, instruction=config.instruction
            )

    def score(self, query_ids: Ids, documents: Sequence[Ids], cost: Cost) -> list[float]:
        """Each document's label as the answer: its log-likelihood, comparable in this window."""
        scores: list[float] = self._likelihoods(query_ids, [documents], cost)[0].tolist()
        return scores

    def pick(self, query_ids: Ids, sets: Sequence[Sequence[Ids]], cost: Cost) -> list[int]:
        """Per set, the place of the document whose label is likeliest; ties: the first."""
        found: dict[int, int] = {}
        # Sets of one size have the same labels and go together.
        for size in sorted({len(documents) for documents in sets}):
            members = [place for place, documents in enumerate(sets) if len(documents) == size]
            likelihoods = self._likelihoods(query_ids, [sets[place] for place in members], cost)
            for place, values in zip(members, likelihoods, strict=True):
                found[place] = int(values.argmax())
        return [found[place] for place in range(len(sets))]

    def prefer(self, query_ids: Ids, pairs: Sequence[tuple[Ids, Ids]], cost: Cost) -> list[float]:
        """Per pair, the log-odds of the first document's label, mean of both orders."""
        orders = [order for a, b in pairs for order in ([a, b], [b, a])]
        likelihoods = self._likelihoods(query_ids, orders, cost)
        margins = []
        for forth, back in zip(likelihoods[::2], likelihoods[1::2], strict=True):
            margins.append(float((forth[0] - forth[1] + back[1] - back[0]) / 2))
        return margins

    def _likelihoods(
        self, query_ids: Ids, sets: Sequence[Sequence[Ids]], cost: Cost
    ) -> list[torch.Tensor]:
        """Per set [label]; all sets have the same size."""
        if not sets:
            return []
        started = time.perf_counter()
        count = len(sets[0])
        if count not in self._labels:
            self._labels[count] = LabelTokens(
                self.prompts, self.prompts.labels(count), self.prompts.lead
            )
        labels = self._labels[count]
        batch = self.prompts.build(query_ids, sets, labels.tails)
        result = run_batch(self.engine, batch, reduce=labels, chunk=self.config.prefill_chunk)
        count_batch(cost, batch.tokens, len(sets), started)
        return result.outputs
