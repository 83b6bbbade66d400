"""What all scorers by attention share: what is read, the null query, and how scores come of it.

ICR (arXiv 2410.02642) adds up all heads of all layers; Selective-ICR (arXiv 2602.22591) does the
same in a window of middle layers and stops the forward pass there. With a profile, chosen heads
are weighted instead. How prompts are built and run is up to the scorers that derive from this.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from icr_rag.config import RerankerConfig
from icr_rag.methods import WITH_NULL
from icr_rag.model.engine import Engine
from icr_rag.scoring.base import Scorer
from icr_rag.scoring.basis import of_heads
from icr_rag.scoring.calibration import document_log_ratios, document_scores
from icr_rag.scoring.head_scores import HeadScores
from icr_rag.scoring.selection import select_heads
from icr_rag.types import Span


class AttentionScorer(Scorer):
    """The base of scorers that read attention.

    Attributes:
        selection: layers and heads that are read, and their weights.
        weigh: makes scores of heads' readings; None: attention is added up as ICR does.
    """

    def __init__(self, engine: Engine, config: RerankerConfig, framework: str) -> None:
        super().__init__(engine, config, framework)
        self.selection = select_heads(config, engine.text_config)
        self.layers = self.selection.layers
        self.first_stage_weight = self.selection.first_stage_weight
        self.scores_weight = self.selection.scores_weight
        self.weigh: HeadScores | None = None
        if self.selection.weights is not None:
            heads = engine.text_config.num_attention_heads
            self.weigh = HeadScores(self.selection.weights, self.selection.heads, heads)

    def basis(self) -> dict[str, str]:
        """What is read of heads; see `icr_rag.scoring.base.Scorer.basis`."""
        return of_heads(self.selection, self.config, self.compared_null_query)

    @property
    def null_query(self) -> str | None:
        """The content-free query to run beside the query; None: there is none."""
        return self.config.null_query if self.config.calibration == "null" else None

    @property
    def compared_null_query(self) -> str | None:
        """The same, but None where no reading that is used compares with it."""
        return None if WITH_NULL.isdisjoint(self.selection.readings) else self.null_query

    def published_scores(
        self, query: torch.Tensor, null: torch.Tensor | None, spans: Sequence[Span]
    ) -> list[float]:
        """ICR's scores (arXiv 2410.02642, section 3), or with ``score_mode="lift"`` log ratios.

        Args:
            query: float32 [token], added up over the layers and heads that are read.
            null: likewise, of the null query.
            spans: one per document.
        """
        mask = self.config.token_mask
        if self.config.score_mode == "lift" and null is not None:
            return document_log_ratios(query, null, spans, mask)
        return document_scores(query, null, spans, mask, self.config.aggregation)
