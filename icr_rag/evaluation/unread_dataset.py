"""A data set before its documents are read: what tells which of them are needed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from icr_rag.evaluation.datasets import Dataset, check_queries
from icr_rag.evaluation.first_stage import ScoredRun
from icr_rag.evaluation.runs import Run
from icr_rag.types import Document


@dataclass(frozen=True)
class UnreadDataset:
    """Queries, judgements and candidates; documents on demand, since there may be millions.

    Attributes:
        name: what the data set is called in a report.
        queries: query id -> text, in the source's order, uncut.
        judgements: query id -> document id -> graded relevance; above 0 is relevant.
        read_documents: called with the ids wanted, or None for all; gives those that there are.
        candidates: query id -> document ids, best first; None if the source brings none.
        scores: query id -> document id -> the first stage's score; None if there are none.
        excluded: query id -> documents that may not be found for it.
        notes: what a reader of the numbers should know, a sentence each.
    """

    name: str
    queries: dict[str, str]
    judgements: dict[str, dict[str, int]]
    read_documents: Callable[[Collection[str] | None], dict[str, Document]]
    candidates: Run | None = None
    scores: ScoredRun | None = None
    excluded: Mapping[str, frozenset[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def check(self, place: str) -> None:
        """Refuse what `check_queries` refuses; ``place`` is for messages."""
        check_queries(Dataset(self.name, {}, self.queries, self.judgements), place)
