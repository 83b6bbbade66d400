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
from icr_rag.model.runner import BatchResult
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
        return self.read_pairs([query_ids], [documents], [cost])[0]

    def read_pairs(
        self, queries: Sequence[Ids], lists: Sequence[Sequence[Ids]], costs: Sequence[Cost]
    ) -> list[torch.Tensor]:
        """See `icr_rag.scoring.base.ReadsPairs`: per list [document]."""
        if self.nulls is None:
            return self._likelihoods(queries, lists, costs)
        beside = self.nulls.run_beside(
            queries, lists, lambda given: self._likelihoods(queries, given, costs)
        )
        return [explained_share(values, null) for values, null in beside]

    def scores_of(self, rows: Sequence[torch.Tensor]) -> list[float]:
        """See `icr_rag.scoring.base.InParts`."""
        values = torch.cat(list(rows))
        if self.nulls is not None:
            return as_scores(values)
        raw: list[float] = values.tolist()
        return raw

    def _likelihoods(
        self, queries: Sequence[Ids], lists: Sequence[Sequence[Ids]], costs: Sequence[Cost]
    ) -> list[torch.Tensor]:
        """Per list [document]."""
        started = time.perf_counter()
        # The query's last token is not run: its logits would say what follows the query.
        result = run_batch(
            self.engine,
            self.prompts.build_lists([query_ids[:-1] for query_ids in queries], lists),
            reduce=QueryLogLikelihood(of_each_pair(queries, lists)),
            chunk=self.config.prefill_chunk,
            keeping=over_kept(self.states, self.prompts, lists),
        )
        return [torch.stack(own.outputs) for own in count_lists(costs, result, lists, started)]

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
        return self.read_pairs([query_ids], [documents], [cost])[0]

    def read_pairs(
        self, queries: Sequence[Ids], lists: Sequence[Sequence[Ids]], costs: Sequence[Cost]
    ) -> list[torch.Tensor]:
        """See `icr_rag.scoring.base.ReadsPairs`: per list float64 [document]."""
        started = time.perf_counter()
        batch = self.prompts.build_lists(queries, lists, self._answers.tails)
        result = run_batch(
            self.engine, batch, reduce=self._answers, chunk=self.config.prefill_chunk
        )
        return [
            torch.tensor([float(yes - no) for yes, no in own.outputs], dtype=torch.float64)
            for own in count_lists(costs, result, lists, started)
        ]

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

    Args:
        queries: per prompt of the batch.
    """

    def __init__(self, queries: Sequence[Ids]) -> None:
        self.queries = queries

    def __call__(self, logits: torch.Tensor, prompts: Sequence[int]) -> torch.Tensor:
        """[prompt], from logits [prompt, 1 + tail tokens, vocabulary]."""
        queries = [list(self.queries[prompt]) for prompt in prompts]
        counts = torch.tensor([len(own) for own in queries], device=logits.device)
        most = max(map(len, queries))
        padded = [own + [0] * (most - len(own)) for own in queries]
        index = torch.tensor(padded, device=logits.device)[..., None]
        probabilities = logits[:, :most].log_softmax(dim=-1).gather(-1, index)[..., 0]
        # Behind a shorter query stands what the model makes of padding.
        behind = torch.arange(most, device=logits.device) >= counts[:, None]
        return probabilities.masked_fill(behind, 0.0).sum(dim=-1) / counts


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
    states: DocumentStates | None, prompts: QueryLikelihoodPrompts, lists: Sequence[Sequence[Ids]]
) -> MakeRunner | None:
    """What `run_batch` is to run these lists by: over what is kept of them, if anything is."""
    documents = [ids for documents in lists for ids in documents]
    return over_states(states, bodies_of(prompts, documents), prompts.stem)


def of_each_pair(queries: Sequence[Ids], lists: Sequence[Sequence[Ids]]) -> list[Ids]:
    """The query of each document of each list."""
    return [
        query_ids
        for query_ids, documents in zip(queries, lists, strict=True)
        for _ in range(len(documents))
    ]


def count_batch(cost: Cost, tokens: int, prompts: int, started: float) -> None:
    """Add one batch of prompts to the cost of a call."""
    cost.tokens += tokens
    cost.calls += prompts
    cost.windows += 1
    cost.seconds["forward"] += time.perf_counter() - started


def count_lists(
    costs: Sequence[Cost], result: BatchResult, lists: Sequence[Sequence[Ids]], started: float
) -> list[BatchResult]:
    """What each list's prompts gave; each list's cost is its own tokens, and time by tokens.

    Args:
        costs: one per list, added to.
        result: of all lists' prompts, list after list.
        started: when, by `time.perf_counter`.
    """
    seconds = time.perf_counter() - started
    found = result.of_lists([len(documents) for documents in lists])
    for cost, own, documents in zip(costs, found, lists, strict=True):
        cost.tokens += own.tokens
        cost.calls += len(documents)
        cost.windows += 1
        share = own.tokens / result.tokens if result.tokens else 1 / len(lists)
        cost.seconds["forward"] += seconds * share
    return found
