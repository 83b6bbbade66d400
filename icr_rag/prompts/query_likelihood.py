"""The prompt of query likelihood and pointwise attention, UPR (arXiv 2204.07496, section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from icr_rag.prompts.encoding import Encoder
from icr_rag.prompts.layout import Ids, PromptBatch, Tail
from icr_rag.types import Span


class QueryLikelihoodPrompts(Encoder):
    """``Passage: <document> / Please write a question based on this passage. / Question: <query>``.

    A plain text without chat header: the model continues it with the query.

    Args:
        tokenizer: a transformers tokenizer.
        null_query: the content-free query beside the query, for attention; None: none.
    """

    def __init__(self, tokenizer: Any, null_query: str | None = None) -> None:
        super().__init__(tokenizer)
        self._head_ids = self.start_ids() + self.encode(["Passage:"])[0]
        self._after_ids = self.encode(
            ["\nPlease write a question based on this passage.\nQuestion:"]
        )[0]
        self._null_ids = None if null_query is None else self.encode_query(null_query)

    def encode_query(self, query: str) -> list[int]:
        """Token ids of the query's text, as it is continued with."""
        return self.encode([" " + query])[0]

    def encode_documents(self, contents: Sequence[str]) -> list[list[int]]:
        """Token ids of each document's text."""
        return self.encode([" " + content for content in contents])

    def overhead(self, query_ids: Ids) -> int:
        """Tokens of a prompt that are not its document."""
        null = len(self._null_ids or ())
        return len(self._head_ids) + len(self._after_ids) + max(len(query_ids), null)

    def document_cost(self, document_ids: Ids, count: int) -> int:
        """A document's own tokens."""
        return len(document_ids)

    def build(self, query_ids: Ids, documents: Sequence[Ids]) -> PromptBatch:
        """One prompt per document; the first tail is the query."""
        tails = [Tail(list(query_ids), slice(0, len(query_ids)))]
        if self._null_ids is not None:
            tails.append(Tail(self._null_ids, slice(0, len(self._null_ids))))
        bodies = [self.body(ids) for ids in documents]
        return PromptBatch(self._head_ids, bodies, [[Span(0, len(d))] for d in documents], tails)

    @property
    def head_ids(self) -> list[int]:
        """What stands before every document."""
        return self._head_ids

    def body(self, document_ids: Ids) -> list[int]:
        """A document and what stands between it and the query."""
        return [*document_ids, *self._after_ids]
