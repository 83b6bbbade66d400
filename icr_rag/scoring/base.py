"""What scorers share: the cost of a call, and the prompts that inputs are measured by.

A *scorer* judges documents by one mechanism. Which of these methods it has depends on the
framework it is for; all take token ids as its ``prompts`` encode them and add to a `Cost`:

- ``score_each(query_ids, documents, cost)``: pointwise; one score per document, higher is better;
- ``score(query_ids, documents, cost)``: listwise; one per document of one window;
- ``pick(query_ids, sets, cost)``: setwise; per set, the place of its most relevant document;
- ``prefer(query_ids, pairs, cost)``: pairwise; per pair, a margin, above 0 for the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from icr_rag.model.engine import Engine

#: A query or a document as token ids.
Ids = Sequence[int]


@dataclass
class Cost:
    """What one ranking cost so far; see `icr_rag.types.Usage`."""

    tokens: int = 0
    windows: int = 0
    calls: int = 0
    generated_tokens: int = 0
    repairs: int = 0
    seconds: dict[str, float] = field(
        default_factory=lambda: {"prompt": 0.0, "forward": 0.0, "score": 0.0}
    )


class Prompts(Protocol):
    """How a scorer's prompts take up tokens."""

    def encode_query(self, query: str) -> list[int]:
        """Token ids of the query's text."""

    def encode_documents(self, contents: Sequence[str]) -> list[list[int]]:
        """Token ids of each document's text."""

    def overhead(self, query_ids: Ids) -> int:
        """Most tokens of a prompt that are not documents."""

    def document_cost(self, document_ids: Ids, count: int) -> int:
        """Tokens that a document takes up as one of ``count``."""


class Scorer(Protocol):
    """What every scorer has.

    Attributes:
        engine: the model.
        framework: what it is for, "auto" replaced.
        prompts: its prompts.
        layers: the layers whose attention is read, ascending; empty where none is.
        first_stage_weight: of the given order in the ranking; 0: none.
        together: how many documents must fit in one prompt.
    """

    engine: Engine
    framework: str
    prompts: Any
    layers: list[int]
    first_stage_weight: float
    together: int


def evictions(scorer: Any) -> int:
    """How many documents' kept states had to make room so far; 0 where none are kept."""
    states = getattr(scorer, "states", None)
    return 0 if states is None else int(states.evictions)
