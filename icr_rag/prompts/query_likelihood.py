"""The prompt of query likelihood and pointwise attention, UPR (arXiv 2204.07496, section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from icr_rag.prompts.encoding import Encoder
from icr_rag.prompts.layout import Ids, PromptBatch, Tail
from icr_rag.types import Span

#: instruction name -> what stands between the passage and the query.
INSTRUCTIONS = {
    "retrieval": "\nPlease write a question based on this passage.\nQuestion:",
    "question_answering": "\nPlease write a question that this passage answers.\nQuestion:",
}


class QueryLikelihoodPrompts(Encoder):
    """``Passage: <document> / Please write a question based on this passage. / Question: <query>``.

    A plain text without chat header: the model continues it with the query.

    Args:
        tokenizer: a transformers tokenizer.
        null_query: the content-free query beside the query, for attention; None: none.
        instruction: a key of `INSTRUCTIONS` or a sentence of the user's own, which stands in
            place of "Please write a question based on this passage."

    Attributes:
        stem: tokens between a document and the query that are run with each query. What is kept
            of a document (`kept`) is the same whatever the instruction.
    """

    def __init__(
        self, tokenizer: Any, null_query: str | None = None, instruction: str = "retrieval"
    ) -> None:
        super().__init__(tokenizer)
        self._head_ids = self.start_ids() + self.encode(["Passage:"])[0]
        # What is kept of documents has been behind these words since there were no others.
        self._kept_after_ids = self.encode([INSTRUCTIONS["retrieval"]])[0]
        after = INSTRUCTIONS.get(instruction, f"\n{instruction}\nQuery:")
        self._after_ids = self.encode([after])[0]
        same = self._after_ids == self._kept_after_ids
        self.stem = 1 if same else max(1, len(self._after_ids))
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
        after = len(self._after_ids) + max(len(query_ids), null)
        # What is kept of a document must fit, too.
        return len(self._head_ids) + max(after, len(self._kept_after_ids))

    def document_cost(self, document_ids: Ids, count: int) -> int:
        """A document's own tokens."""
        return len(document_ids)

    def build(self, query_ids: Ids, documents: Sequence[Ids]) -> PromptBatch:
        """One prompt per document; the first tail is the query."""
        bodies = [self.body(ids) for ids in documents]
        spans = [[Span(0, len(ids))] for ids in documents]
        return PromptBatch(self._head_ids, bodies, spans, self._tails(query_ids))

    def build_lists(self, queries: Sequence[Ids], lists: Sequence[Sequence[Ids]]) -> PromptBatch:
        """`build` of each query and its list in one batch, list after list."""
        if len(queries) == 1:
            return self.build(queries[0], lists[0])
        together = self.build((), [ids for documents in lists for ids in documents])
        own = [
            tails
            for query_ids, documents in zip(queries, lists, strict=True)
            for tails in [self._tails(query_ids)] * len(documents)
        ]
        return replace(together, tails=(), own_tails=own)

    def _tails(self, query_ids: Ids) -> list[Tail]:
        """The query and, for attention, the null query."""
        tails = [Tail(list(query_ids), slice(0, len(query_ids)))]
        if self._null_ids is not None:
            tails.append(Tail(self._null_ids, slice(0, len(self._null_ids))))
        return tails

    @property
    def head_ids(self) -> list[int]:
        """What stands before every document."""
        return self._head_ids

    def body(self, document_ids: Ids) -> list[int]:
        """A document and what stands between it and the query."""
        return [*document_ids, *self._after_ids]

    def kept(self, document_ids: Ids) -> list[int]:
        """What is encoded and kept of a document. `body` without its last ``stem`` tokens is it,
        or its beginning."""
        return [*document_ids, *self._kept_after_ids[:-1]]
