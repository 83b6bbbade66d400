"""One call of `Reranker.rank`, as it was given."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from icr_rag.arguments import (
    RetrievalScores,
    check_deadline,
    check_instruction,
    check_max_tokens,
    check_top_n,
)
from icr_rag.config import RerankerConfig
from icr_rag.deadline import Clock, Deadline, begun
from icr_rag.fields import check_given
from icr_rag.types import Document, DocumentLike


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
        instruction: checked; None: that of the settings.
        fields: what the model reads of each document where that is not the document as it is.
        max_tokens_per_doc: most tokens of a document that are read; None: as the settings say.
    """

    query: str
    documents: Sequence[Document]
    top_n: int | None = None
    retrieval_scores: RetrievalScores | None = None
    due: Deadline | None = None
    clock: Clock = time.perf_counter
    given_up: bool = False
    instruction: str | None = None
    fields: Sequence[Document] | None = None
    max_tokens_per_doc: int | None = None

    @classmethod
    def of(
        cls,
        config: RerankerConfig,
        clock: Clock,
        query: str,
        documents: Sequence[DocumentLike],
        top_n: int | None,
        retrieval_scores: RetrievalScores | None,
        deadline_ms: float | None,
        instruction: str | None,
        max_tokens_per_doc: int | None,
    ) -> Request:
        """What a caller gave, and what the configuration says where nothing was.

        Raises:
            InputError: for documents, a ``top_n``, a ``deadline_ms``, an ``instruction`` or a
                ``max_tokens_per_doc`` that cannot be.
        """
        # First of all, for the time that checks take counts.
        due = begun(check_deadline(deadline_ms, config.deadline_ms), clock)
        given = check_given(documents, config.rank_fields, config.rank_fields_format)
        return cls(
            query,
            given.documents,
            check_top_n(top_n, config.top_n),
            retrieval_scores,
            due,
            clock,
            instruction=check_instruction(instruction),
            fields=given.read,
            max_tokens_per_doc=check_max_tokens(max_tokens_per_doc),
        )

    @property
    def answered(self) -> bool:
        """Whether somebody was given another answer already, so that nobody sees this one."""
        return self.due is not None and self.due.abandoned and not self.given_up

    @property
    def read(self) -> Sequence[Document]:
        """What the model reads of each document."""
        return self.documents if self.fields is None else self.fields
