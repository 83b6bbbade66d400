"""Pointwise likelihood: of the query given a document, or of "yes" against "no".

- Query likelihood (UPR, arXiv 2204.07496, section 2.2): the mean over the query's tokens of their
  log-probability when the model is to write a question to the document.
- Yes/no (arXiv 2310.14122, section 3; Qwen3-Reranker, arXiv 2506.05176): the log-probability of
  "yes" minus that of "no" as the answer to whether the document is relevant.

Scores depend on the query and the document alone, not on other candidates. Higher is better.
With ``score_mode="explained"`` they also compare across queries: log P says mostly how common the
query's words are, and that goes out in the ratio to what the query has without a document.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from icr_rag.config import RerankerConfig
from icr_rag.model.batch import MakeRunner, run_batch
from icr_rag.model.engine import Engine
from icr_rag.prompts.query_likelihood import QueryLikelihoodPrompts
from icr_rag.prompts.yes_no import YesNoPrompts
from icr_rag.scoring.base import Cost, Ids, Scorer
from icr_rag.scoring.basis import of_continued, of_yes_no
from icr_rag.scoring.label_tokens import LabelTokens
from icr_rag.scoring.null_documents import as_scores, explained_share, null_documents
from icr_rag.states.document_states import DocumentStates
from icr_rag.states.opening import keep_states
from icr_rag.states.per_document import over_states


class QueryLikelihoodScorer(Scorer):
    """Scores each document by the likelihood of the query after it."""

    def __init__(self, engine: Engine, config: RerankerConfig, framework: str) -> None:
        super().__init__(engine, config, framework)
        with engine.lock:
            self.prompts: QueryLikelihoodPrompts = QueryLikelihoodPrompts(
                engine.tokenizer, instruction=config.instruction
            )
            self.states = keep_all_layers(engine, config, self.prompts)
            self.nulls = null_documents(engine, config, self.prompts)
        if self.nulls is not None:
            self.least = self.nulls.longest

    def score_each(self, query_ids: Ids, documents: Sequence[Ids], cost: Cost) -> list[float]:
        """Mean log-probability of the query's tokens, in nats per token, at most 0.

        With ``score_mode="explained"`` 1 minus its ratio to that without a document, at most 1.
        """
        return self.scores_of([self.read_each(query_ids, documents, cost)])

    def read_each(self, query_ids: Ids, documents: Sequence[Ids], cost: Cost) -> torch.Tensor:
        """See `icr_rag.scoring.base.InParts`: [document]."""
        if self.nulls is None:
            return self._likelihoods(query_ids, documents, cost)
        return explained_share(
            *self.nulls.run_beside(
                query_ids, documents, lambda run: self._likelihoods(query_ids, run, cost)
            )
        )

    def scores_of(self, rows: Sequence[torch.Tensor]) -> list[float]:
        """See `icr_rag.scoring.base.InParts`."""
        values = torch.cat(list(rows))
        if self.nulls is not None:
            return as_scores(values)
        raw: list[float] = values.tolist()
        return raw

    def _likelihoods(self, query_ids: Ids, documents: Sequence[Ids], cost: Cost) -> torch.Tensor:
        """[document]"""
        started = time.perf_counter()
        # The query's last token is not run: its logits would say what follows the query.
        batch = self.prompts.build(query_ids[:-1], documents)
        result = run_batch(
            self.engine,
            batch,
            reduce=QueryLogLikelihood(query_ids),
            chunk=self.config.prefill_chunk,
            keeping=over_kept(self.states, self.prompts, documents),
        )
        count_batch(cost, result.tokens, len(documents), started)
        return torch.stack(result.outputs)

    def basis(self) -> dict[str, str]:
        """See `icr_rag.scoring.base.Scorer.basis`."""
        return of_continued(self.prompts)

    def bodies(self, documents: Sequence[Ids]) -> list[Ids]:
        """What is kept of documents; see `bodies_of`."""
        return bodies_of(self.prompts, documents)


class YesNoScorer(Scorer):
    """Scores each document by how much likelier "yes" is than "no"."""

    def __init__(self, engine: Engine, config: RerankerConfig, framework: str) -> None:
        super().__init__(engine, config, framework)
        with engine.lock:
            self.prompts: YesNoPrompts = YesNoPrompts(
                engine.tokenizer, config.yes_no_template, config.instruction
            )
            self._answers = LabelTokens(self.prompts, self.prompts.labels)

    def score_each(self, query_ids: Ids, documents: Sequence[Ids], cost: Cost) -> list[float]:
        """log P(yes) - log P(no): 0 is undecided.

        With ``score_mode="explained"`` the probability of yes against no: .5 is undecided.
        """
        return self.scores_of([self.read_each(query_ids, documents, cost)])

    def read_each(self, query_ids: Ids, documents: Sequence[Ids], cost: Cost) -> torch.Tensor:
        """See `icr_rag.scoring.base.InParts`: float64 [document]."""
        started = time.perf_counter()
        batch = self.prompts.build(query_ids, documents, self._answers.tails)
        result = run_batch(
            self.engine, batch, reduce=self._answers, chunk=self.config.prefill_chunk
        )
        count_batch(cost, batch.tokens, len(documents), started)
        return torch.tensor([float(yes - no) for yes, no in result.outputs], dtype=torch.float64)

    def scores_of(self, rows: Sequence[torch.Tensor]) -> list[float]:
        """See `icr_rag.scoring.base.InParts`."""
        margins = torch.cat(list(rows))
        if self.config.absolute:
            margins = margins.sigmoid()
        scores: list[float] = margins.tolist()
        return scores

    def basis(self) -> dict[str, str]:
        """See `icr_rag.scoring.base.Scorer.basis`."""
        return of_yes_no(self.config, self.engine.tokenizer.chat_template)


class QueryLogLikelihood:
    """Makes of logits the mean log-probability of the query's tokens.

    The row of the last token before the query gives its first token, and so on.
    """

    def __init__(self, query_ids: Ids) -> None:
        self.query_ids = query_ids

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """[prompt], from logits [prompt, 1 + tail tokens, vocabulary]."""
        count = len(self.query_ids)
        targets = torch.tensor(list(self.query_ids), device=logits.device)
        probabilities = logits[:, :count].log_softmax(dim=-1)
        index = targets[None, :, None].expand(len(logits), -1, 1)
        return probabilities.gather(-1, index)[..., 0].mean(dim=-1)


def keep_all_layers(
    engine: Engine, config: RerankerConfig, prompts: QueryLikelihoodPrompts
) -> DocumentStates | None:
    """Where document states are kept for likelihood, which needs all layers; None: nowhere."""
    if config.document_states == "joint":
        return None
    return keep_states(engine, config, prompts.head_ids, None)


def bodies_of(prompts: QueryLikelihoodPrompts, documents: Sequence[Ids]) -> list[Ids]:
    """What is kept of documents, as `DocumentStates` takes it.

    A body's last token is run with the query, because its logits give the query's first token.
    """
    return [prompts.kept(ids) for ids in documents]


def over_kept(
    states: DocumentStates | None, prompts: QueryLikelihoodPrompts, documents: Sequence[Ids]
) -> MakeRunner | None:
    """What `run_batch` is to run these documents by: over what is kept of them, if anything is."""
    return over_states(states, bodies_of(prompts, documents), prompts.stem)


def count_batch(cost: Cost, tokens: int, prompts: int, started: float) -> None:
    """Add one batch of prompts to the cost of a call."""
    cost.tokens += tokens
    cost.calls += prompts
    cost.windows += 1
    cost.seconds["forward"] += time.perf_counter() - started
