"""Prompts with several documents under labels.

Sources: pairwise, PRP (arXiv 2306.17563, figure 2); setwise (arXiv 2310.09497, figure 1); listwise
permutation, RankGPT (arXiv 2304.09542, appendix A). The wording follows them.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

from icr_rag.prompts.encoding import Encoder
from icr_rag.prompts.layout import Ids, PromptBatch, Tail


class ComparisonPrompts(Encoder):
    """Several documents under labels, and the question which is the most relevant.

    Letters label up to 26 documents, bracketed numbers more.

    Args:
        tokenizer: a transformers tokenizer.
        framework: "pairwise", "setwise", "listwise".
        permutation: ask for all labels in order (listwise) instead of for the best.
        instruction: "retrieval", "question_answering", or a sentence of the user's own, which
            stands before all else.
    """

    def __init__(
        self,
        tokenizer: Any,
        framework: str,
        permutation: bool = False,
        instruction: str = "retrieval",
    ) -> None:
        super().__init__(tokenizer)
        self.permutation = permutation
        two = framework == "pairwise"
        header, footer = self.chat_layout()
        asks = instruction == "question_answering"
        self._query = "Question" if asks else "Query"
        self._by = "how well they answer the question" if asks else "their relevance to the query"
        if permutation:
            opening, self._closing = f"Rank the passages below by {self._by}", ""
        else:
            opening = f"Given the {self._query.lower()}"
            self._closing = _asked(two, asks)
        if instruction not in ("retrieval", "question_answering"):
            opening = f"{instruction}\n\n{opening}"
        self._header_ids = header + self.encode([f'{opening} "'])[0]
        self._closing_ids = self.encode([f'", {self._closing}' if self._closing else '".'])[0]
        if two:
            end = "\n\nOutput Passage A or Passage B."
        elif permutation:
            end = ""
        else:
            end = "\n\nOutput only the label of the most relevant passage."
        self._end_ids = self.encode([end])[0] if end else []
        #: The answer is begun, so that the label is the very next thing.
        self.lead = "" if permutation else "Passage"
        self._footer_ids = footer + (self.encode([self.lead])[0] if self.lead else [])
        self._marker_costs: dict[int, int] = {}

    def labels(self, count: int) -> list[str]:
        """What ``count`` documents are called, as it stands in the answer."""
        if self.permutation or count > len(string.ascii_uppercase):
            return [f"[{number}]" for number in range(1, count + 1)]
        return [f" {letter}" for letter in string.ascii_uppercase[:count]]

    def encode_query(self, query: str) -> list[int]:
        """Token ids of the query's text."""
        return self.encode([query])[0]

    def encode_documents(self, contents: Sequence[str]) -> list[list[int]]:
        """Token ids of each document's text."""
        return self.encode([" " + content for content in contents])

    def overhead(self, query_ids: Ids) -> int:
        """Tokens of a prompt that are not documents or their labels."""
        fixed = (self._header_ids, self._closing_ids, self._end_ids, self._footer_ids)
        # The permutation's instruction repeats the query and says how many documents there are.
        repeated = len(self._end(query_ids, 99_999)) if self.permutation else 0
        return sum(map(len, fixed)) + len(query_ids) + repeated + 8

    def document_cost(self, document_ids: Ids, count: int) -> int:
        """A document's tokens and its label's, in the prompt and in an answer."""
        # Asked for each document of each window that might fit: encoded once.
        marker = self._marker_costs.get(count)
        if marker is None:
            last = self.labels(max(1, count))[-1]
            marker = self._marker_costs[count] = len(self.encode([self._marker(last)])[0])
        answer = marker + 4 if self.permutation else 0
        return len(document_ids) + marker + answer

    def build(
        self, query_ids: Ids, sets: Sequence[Sequence[Ids]], tails: Sequence[Tail] = ()
    ) -> PromptBatch:
        """One prompt per set of documents."""
        head = [*self._header_ids, *query_ids, *self._closing_ids]
        bodies = []
        for documents in sets:
            body: list[int] = []
            markers = self.encode([self._marker(x) for x in self.labels(len(documents))])
            for marker, ids in zip(markers, documents, strict=True):
                body += [*marker, *ids]
            bodies.append([*body, *self._end(query_ids, len(documents)), *self._footer_ids])
        return PromptBatch(head, bodies, tails=tails)

    def _marker(self, label: str) -> str:
        return f"\n\n{label}" if self.permutation else f"\n\nPassage{label}:"

    def _end(self, query_ids: Ids, count: int) -> list[int]:
        if not self.permutation:
            return self._end_ids
        first, last = self.encode(
            [
                f'\n\n{self._query}: "',
                f'"\nRank the {count} passages above by {self._by}. List all '
                "identifiers in descending order of relevance. The output format is [] > [], "
                "e.g., [2] > [1]. Only respond with the ranking, do not explain.",
            ]
        )
        return [*first, *query_ids, *last]


def _asked(two: bool, answers: bool) -> str:
    """What is asked of two passages, or of several: which is relevant, or which answers."""
    if two:
        what = "answers it better?" if answers else "is more relevant to the query?"
        return f"which of the following two passages {what}"
    what = "answers it best?" if answers else "is the most relevant one to it?"
    return f"which of the following passages {what}"
