"""One call of `Reranker.rank`, as it was given."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from icr_rag.arguments import RetrievalScores
from icr_rag.deadline import Clock, Deadline
from icr_rag.types import Document


@dataclass(frozen=True)
class Request:
    """What a ranking is asked for.

    Attributes:
        query: may be wrong yet: it is checked where a failure may be passed through.
        documents: checked, in first-stage order.
        top_n: how many hits to return; None: all.
        retrieval_scores: the first stage's, unchecked.
        due: when the answer is; None: there is no deadline.
        clock: by which work is measured.
        given_up: whether there is no time left to even begin.
    """

    query: str
    documents: Sequence[Document]
    top_n: int | None = None
    retrieval_scores: RetrievalScores | None = None
    due: Deadline | None = None
    clock: Clock = time.perf_counter
    given_up: bool = False

    @property
    def answered(self) -> bool:
        """Whether somebody was given another answer already, so that nobody sees this one."""
        return self.due is not None and self.due.abandoned and not self.given_up
