"""Mixed scoring: query likelihood and attention, from one pass over each document.

The pass that gives the query's probability also gives how its tokens attend to the document, at
no cost; the two make different mistakes. Both are standardised over the candidates and added up
with the weights of the profile.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from icr_rag.model.reading import READINGS
from icr_rag.scoring.base import Cost, Ids
from icr_rag.scoring.head_scores import standardise
from icr_rag.scoring.likelihood import QueryLogLikelihood, keep_all_layers
from icr_rag.scoring.pointwise_attention import PointwiseAttentionScorer
from icr_rag.states.document_states import DocumentStates


class MixedScorer(PointwiseAttentionScorer):
    """Scores each document by query likelihood and attention together."""

    def _keep_states(self) -> DocumentStates | None:
        return keep_all_layers(self.engine, self.config, self.prompts)

    def score_each(self, query_ids: Ids, documents: Sequence[Ids], cost: Cost) -> list[float]:
        """One score per document, higher is better, relative to these documents."""
        likelihoods, readings = self.read(query_ids, documents, cost, self.selection.readings)
        own = standardise(likelihoods.double()) * self.selection.likelihood_weight
        if self.weigh is None:
            return [float(value) for value in own]
        attention = standardise(torch.tensor(self.weigh(readings), dtype=torch.float64))
        return [float(value) for value in own + attention]

    def read(
        self,
        query_ids: Ids,
        documents: Sequence[Ids],
        cost: Cost,
        needed: Collection[str] = READINGS,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Query likelihoods [document] and readings [document, layer and head, reading], 0 where
        not ``needed``."""
        result = self._run(query_ids, documents, cost, QueryLogLikelihood(query_ids), needed)
        return torch.stack(result.outputs), torch.cat(result.readings)
