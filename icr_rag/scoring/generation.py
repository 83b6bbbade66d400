"""Generation: the model writes an answer, and the answer is parsed.

Pointwise it says yes or no, pairwise A or B (PRP, arXiv 2306.17563, in both orders), setwise a
label (arXiv 2310.09497), listwise all labels in order (RankGPT, arXiv 2304.09542). Whatever it
writes, no document is lost, repeated or invented; what had to be mended is counted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from icr_rag.config import RerankerConfig
from icr_rag.model.engine import Engine
from icr_rag.model.greedy import generate
from icr_rag.prompts.comparison import ComparisonPrompts
from icr_rag.prompts.layout import PromptBatch
from icr_rag.prompts.yes_no import YesNoPrompts
from icr_rag.scoring.base import Cost, Ids, Scorer
from icr_rag.scoring.likelihood import count_batch
from icr_rag.scoring.parsing import parse_choice, parse_permutation, parse_yes_no

#: A label or a yes, with some room for "The answer is".
_SHORT_ANSWER = 8


class GenerationScorer(Scorer):
    """Judges documents by what the model writes about them, in any framework."""

    def __init__(self, engine: Engine, config: RerankerConfig, framework: str) -> None:
        super().__init__(engine, config, framework)
        self.together = {"pointwise": 1, "setwise": config.set_size}.get(framework, 2)
        with engine.lock:
            self.prompts: YesNoPrompts | ComparisonPrompts = (
                YesNoPrompts(engine.tokenizer, config.yes_no_template, config.instruction)
                if framework == "pointwise"
                else ComparisonPrompts(
                    engine.tokenizer, framework, framework == "listwise", config.instruction
                )
            )

    def score_each(self, query_ids: Ids, documents: Sequence[Ids], cost: Cost) -> list[float]:
        """1.0 for yes, 0.0 for no, 0.5 for an answer that is neither."""
        return self.scores_of([self.read_each(query_ids, documents, cost)])

    def read_each(self, query_ids: Ids, documents: Sequence[Ids], cost: Cost) -> torch.Tensor:
        """See `icr_rag.scoring.base.InParts`: [document]."""
        batch = self._yes_no.build(query_ids, documents)
        answers = [parse_yes_no(text) for text in self._write(batch, _SHORT_ANSWER, cost)]
        cost.repairs += answers.count(None)
        return torch.tensor([0.5 if answer is None else float(answer) for answer in answers])

    def scores_of(self, rows: Sequence[torch.Tensor]) -> list[float]:
        """See `icr_rag.scoring.base.InParts`."""
        scores: list[float] = torch.cat(list(rows)).tolist()
        return scores

    def score(self, query_ids: Ids, documents: Sequence[Ids], cost: Cost) -> list[float]:
        """The places in the list that the model wrote, as scores: n for the first, 1 the last."""
        batch = self._comparison.build(query_ids, [documents])
        labels = self._comparison.labels(len(documents))
        # As long as a complete answer and a little more.
        complete = self._comparison.encode([" > ".join(labels)])[0]
        text = self._write(batch, len(complete) + _SHORT_ANSWER, cost)[0]
        permutation = parse_permutation(text, len(documents))
        cost.repairs += permutation.repairs.total
        scores = [0.0] * len(documents)
        for place, document in enumerate(permutation.order):
            scores[document] = float(len(documents) - place)
        return scores

    def pick(self, query_ids: Ids, sets: Sequence[Sequence[Ids]], cost: Cost) -> list[int]:
        """Per set, the place of the document whose label was written; if none was, the first."""
        batch = self._comparison.build(query_ids, sets)
        places = []
        for text, documents in zip(self._write(batch, _SHORT_ANSWER, cost), sets, strict=True):
            place = self._choice(text, len(documents))
            cost.repairs += place is None
            places.append(0 if place is None else place)
        return places

    def prefer(self, query_ids: Ids, pairs: Sequence[tuple[Ids, Ids]], cost: Cost) -> list[float]:
        """Per pair: 1.0 if the first document won in both orders, -1.0 the second, else 0.0."""
        orders = [order for a, b in pairs for order in ([a, b], [b, a])]
        batch = self._comparison.build(query_ids, orders)
        places = [self._choice(text, 2) for text in self._write(batch, _SHORT_ANSWER, cost)]
        cost.repairs += places.count(None)
        margins = []
        for forth, back in zip(places[::2], places[1::2], strict=True):
            first, second = (forth, back) == (0, 1), (forth, back) == (1, 0)
            margins.append(float(first) - float(second))
        return margins

    @property
    def _yes_no(self) -> YesNoPrompts:
        if not isinstance(self.prompts, YesNoPrompts):
            raise TypeError("this scorer was made for another framework")
        return self.prompts

    @property
    def _comparison(self) -> ComparisonPrompts:
        if not isinstance(self.prompts, ComparisonPrompts):
            raise TypeError("this scorer was made for another framework")
        return self.prompts

    def _choice(self, text: str, count: int) -> int | None:
        labels = [label.strip() for label in self._comparison.labels(count)]
        return parse_choice(text, labels)

    def _write(self, batch: PromptBatch, new_tokens: int, cost: Cost) -> list[str]:
        if not batch.bodies:
            return []
        started = time.perf_counter()
        generated = generate(self.engine, batch, new_tokens, self.config.prefill_chunk)
        # Every prompt is run whole: `generate` shares no beginning.
        tokens = sum(len(batch.head_ids) + len(body) for body in batch.bodies)
        count_batch(cost, tokens, len(batch.bodies), started)
        cost.generated_tokens += generated.tokens
        return generated.texts
