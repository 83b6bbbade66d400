"""From a query and documents to token ids, document spans and query rows.

The prompt, as published for ICR (arXiv 2410.02642), between the chat template's headers::

    Here are some paragraphs:

    [1] <document>

    [2] <document>

    Please find information that is relevant to the following query in the paragraphs above.

    Query: <query>

Every segment is tokenised by itself and the ids are concatenated, so that spans are exact by
construction; tokenising the whole string would merge characters across segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from icr_rag.errors import ConfigError
from icr_rag.prompts.encoding import Encoder
from icr_rag.prompts.layout import Prompt, Tail
from icr_rag.types import Span

#: instruction name -> (sentence, label before the query)
INSTRUCTIONS = {
    "retrieval": (
        "Please find information that is relevant to the following query in the paragraphs above.",
        "Query:",
    ),
    "question_answering": (
        "Please answer the following question based on the information in the paragraphs above.",
        "Question:",
    ),
}

_OPENING = "Here are some paragraphs:\n\n"


class JointPrompts(Encoder):
    """Builds prompts for one tokenizer and one set of prompt settings.

    Args:
        tokenizer: a transformers tokenizer. Its state is not changed. Not safe under threads.
        instruction: a key of `INSTRUCTIONS` or a sentence of the user's own.
        double_query: documents, query, instruction, query; the second copy is read.
        null_query: the content-free query, or None for no null tail.
    """

    def __init__(
        self, tokenizer: Any, instruction: str, double_query: bool, null_query: str | None
    ) -> None:
        super().__init__(tokenizer)
        self.double_query = double_query
        self._sentence, self._label = INSTRUCTIONS.get(instruction, (instruction, "Query:"))
        header, footer = self.chat_layout()
        self._header_ids = header + self.encode([_OPENING])[0]
        self._footer_ids = footer
        self._separator_ids = self.encode(["\n\n"])[0]
        self._instruction_ids = self.encode([f"{self._sentence}\n\n{self._label}"])[0]
        self._label_ids = self.encode([self._label])[0]
        self._null_ids = None if null_query is None else self.encode_query(null_query)
        if self._null_ids == []:
            raise ConfigError(
                f"null_query={null_query!r} has no character that the tokenizer knows; the usual "
                "one is 'N/A'"
            )
        self._markers: list[list[int]] = []

    def encode_query(self, query: str) -> list[int]:
        """Token ids of the query's text: the query rows."""
        return self.encode([" " + query])[0]

    def encode_documents(self, contents: Sequence[str]) -> list[list[int]]:
        """Token ids of each document's text, which its span covers."""
        return self.encode([" " + content for content in contents])

    def overhead(self, query_ids: Sequence[int]) -> int:
        """Tokens of the prompt that are not documents or their markers."""
        queries = (2 if self.double_query else 1) * len(query_ids)
        fixed = len(self._header_ids) + len(self._instruction_ids) + len(self._footer_ids)
        if self.double_query:
            fixed += len(self._label_ids) + len(self._separator_ids)
        longest = max(queries, len(self._null_ids or ()) * (2 if self.double_query else 1))
        return fixed + longest

    def document_cost(self, document_ids: Sequence[int], count: int) -> int:
        """Tokens that a document takes up as one of ``count`` documents."""
        return len(document_ids) + len(self._marker(count - 1)) + len(self._separator_ids)

    def build(self, query_ids: Sequence[int], documents: Sequence[Sequence[int]]) -> Prompt:
        """The prompt for documents in the order in which they are to stand."""
        prefix = list(self._header_ids)
        spans = []
        for number, ids in enumerate(documents):
            prefix += self._marker(number)
            spans.append(Span(len(prefix), len(prefix) + len(ids)))
            prefix += ids
            prefix += self._separator_ids
        # What both tails begin with is run once, as part of the prefix.
        prefix += self._label_ids if self.double_query else self._instruction_ids
        null = None if self._null_ids is None else self._tail(self._null_ids)
        return Prompt(prefix, spans, self._tail(query_ids), null)

    def _tail(self, query_ids: Sequence[int]) -> Tail:
        before: list[int] = []
        if self.double_query:
            before = [*query_ids, *self._separator_ids, *self._instruction_ids]
        rows = slice(len(before), len(before) + len(query_ids))
        return Tail([*before, *query_ids, *self._footer_ids], rows)

    def _marker(self, number: int) -> list[int]:
        while len(self._markers) <= number:
            start = len(self._markers)
            self._markers += self.encode([f"[{start + i + 1}]" for i in range(64)])
        return self._markers[number]
