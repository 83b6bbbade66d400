"""The prompt of `icr_rag.prompts.joint` for documents that are encoded independently."""

from __future__ import annotations

from collections.abc import Sequence

from icr_rag.prompts.joint import JointPrompts
from icr_rag.prompts.layout import IndependentPrompt
from icr_rag.types import Span


class IndependentPrompts(JointPrompts):
    """The same prompt for documents that are encoded independently: without numbers."""

    @property
    def head_ids(self) -> list[int]:
        """What stands before every document."""
        return self._header_ids

    def document_cost(self, document_ids: Sequence[int], count: int) -> int:
        """Tokens that a document takes up."""
        return len(document_ids) + len(self._separator_ids)

    def overhead(self, query_ids: Sequence[int]) -> int:
        """Tokens of the prompt that are not documents; both tails are run at once."""
        return super().overhead(query_ids) + len(self._separator_ids)

    def body(self, document_ids: Sequence[int]) -> list[int]:
        """What is encoded of a document."""
        return [*document_ids, *self._separator_ids]

    def build_independent(
        self, queries: Sequence[Sequence[int]], documents: Sequence[Sequence[int]]
    ) -> IndependentPrompt:
        """The prompt; its spans are in the order of ``documents``, its tails in the queries'."""
        # By content, so that the order in which they come changes not a bit.
        order = sorted(range(len(documents)), key=lambda i: list(documents[i]))
        spans = [Span(0, 0)] * len(documents)
        place = len(self._header_ids)
        for i in order:
            spans[i] = Span(place, place + len(documents[i]))
            place += len(documents[i]) + len(self._separator_ids)
        stem = self._label_ids if self.double_query else self._instruction_ids
        tails = [self._tail(query_ids) for query_ids in queries]
        if self._null_ids is not None:
            tails.append(self._tail(self._null_ids))
        bodies = [self.body(documents[i]) for i in order]
        return IndependentPrompt(self._header_ids, bodies, spans, stem, tails)
