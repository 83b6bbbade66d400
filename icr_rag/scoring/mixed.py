"""Mixed scoring: query likelihood and attention, from one pass over each document.

The pass that gives the query's probability also gives how its tokens attend to the document, at
no cost; the two make different mistakes. Both are standardised over the candidates and added up
with the weights of the profile.

With ``score_mode="explained"`` both are shares of a surprise, as likelihood's is, and so are of one
scale without a look at the candidates: -log of the attention that a document gets is the surprise
at which of all tokens a query's token attends to. What is left of it where the document has content
is measured head by head.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from icr_rag.config import RerankerConfig
from icr_rag.errors import ConfigError
from icr_rag.model.engine import Engine
from icr_rag.model.reading import READINGS
from icr_rag.scoring.base import Cost, Ids
from icr_rag.scoring.head_scores import standardise
from icr_rag.scoring.likelihood import QueryLogLikelihood, keep_all_layers, of_each_pair
from icr_rag.scoring.null_documents import as_scores, explained_share
from icr_rag.scoring.pointwise_attention import PointwiseAttentionScorer
from icr_rag.states.document_states import DocumentStates

#: Readings that are mean logarithms of probabilities, of which a share can be explained.
LOGARITHMS = frozenset({"log_mass", "max"})


class MixedScorer(PointwiseAttentionScorer):
    """Scores each document by query likelihood and attention together."""

    def __init__(self, engine: Engine, config: RerankerConfig, framework: str) -> None:
        super().__init__(engine, config, framework)
        others = sorted(self.selection.readings - LOGARITHMS)
        if self.nulls is not None and others:
            raise ConfigError(
                f"score_mode={config.score_mode!r} with scoring='mixed' adds up shares of "
                "logarithms, and "
                f"{', '.join(others)}, which is read of heads here, is none; use "
                "reading='log_mass' or 'max', scoring='likelihood', or another score_mode"
            )

    def _keep_states(self) -> DocumentStates | None:
        return keep_all_layers(self.engine, self.config, self.prompts)

    def score_each(self, query_ids: Ids, documents: Sequence[Ids], cost: Cost) -> list[float]:
        """One score per document, higher is better, relative to these documents.

        With ``score_mode="explained"`` the weighted mean of the shares that likelihood and
        attention explain, by the document alone: 0 for one without content.
        """
        return self.scores_of([self.read_each(query_ids, documents, cost)])

    def read_each(self, query_ids: Ids, documents: Sequence[Ids], cost: Cost) -> torch.Tensor:
        """See `icr_rag.scoring.base.InParts`: likelihood, then the readings, one after the other;
        or absolute values [document]."""
        return self.read_pairs([query_ids], [documents], [cost])[0]

    def read_pairs(
        self, queries: Sequence[Ids], lists: Sequence[Sequence[Ids]], costs: Sequence[Cost]
    ) -> list[torch.Tensor]:
        """See `icr_rag.scoring.base.ReadsPairs`; per list as `read_each`."""
        needed = self.selection.readings
        if self.nulls is None:
            return [
                torch.cat((likelihoods[:, None], readings.flatten(1)), dim=1)
                for likelihoods, readings in self._read(queries, lists, costs, needed)
            ]
        weigh = self.weigh

        def run(given: Sequence[Sequence[Ids]]) -> list[torch.Tensor]:
            """Per list [document, likelihood and weighted readings]."""
            found = []
            for likelihoods, readings in self._read(queries, given, costs, needed):
                columns = [likelihoods.double()[:, None]]
                found.append(
                    torch.cat(columns if weigh is None else [*columns, weigh.weighted(readings)], 1)
                )
            return found

        return [
            self._explained(values, null)
            for values, null in self.nulls.run_beside(queries, lists, run)
        ]

    def scores_of(self, rows: Sequence[torch.Tensor]) -> list[float]:
        """See `icr_rag.scoring.base.InParts`."""
        values = torch.cat(list(rows))
        if self.nulls is not None:
            return as_scores(values)
        likelihoods = values[:, 0]
        readings = values[:, 1:].reshape(len(values), -1, len(READINGS))
        own = standardise(likelihoods.double()) * self.selection.likelihood_weight
        if self.weigh is None:
            return [float(value) for value in own]
        attention = standardise(torch.tensor(self.weigh(readings), dtype=torch.float64))
        return [float(value) for value in own + attention]

    def _explained(self, values: torch.Tensor, null: torch.Tensor) -> torch.Tensor:
        """[document]: the weighted mean of what is explained of likelihood and of attention."""
        shares = explained_share(values, null)
        if self.weigh is None:
            return shares[:, 0]
        weight = self.selection.likelihood_weight
        both = weight * shares[:, 0] + self.weigh.mean(shares[:, 1:])
        return both / (abs(weight) + 1)

    def read(
        self,
        query_ids: Ids,
        documents: Sequence[Ids],
        cost: Cost,
        needed: Collection[str] = READINGS,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Query likelihoods [document] and readings [document, layer and head, reading], 0 where
        not ``needed``."""
        return self._read([query_ids], [documents], [cost], needed)[0]

    def _read(
        self,
        queries: Sequence[Ids],
        lists: Sequence[Sequence[Ids]],
        costs: Sequence[Cost],
        needed: Collection[str],
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Per list as `read`."""
        reduce = QueryLogLikelihood(of_each_pair(queries, lists))
        results = self._run(queries, lists, costs, reduce, needed)
        return [(torch.stack(own.outputs), torch.cat(own.readings)) for own in results]
