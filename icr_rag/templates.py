"""Prompts of likelihood and generation: one document, or several under labels.

Sources: query likelihood, UPR (arXiv 2204.07496, section 2.2); pairwise, PRP (arXiv 2306.17563,
figure 2); setwise (arXiv 2310.09497, figure 1); listwise permutation, RankGPT (arXiv 2304.09542,
appendix A). The wording follows them; texts are tokenised by segment, as in `icr_rag.prompts`.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

from icr_rag.encoding import Encoder
from icr_rag.model.batch import PromptBatch
from icr_rag.model.forward import Tail
from icr_rag.types import Span

Ids = Sequence[int]


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


class YesNoPrompts(Encoder):
    """Asks of one document whether it is relevant; ``labels`` are the two answers.

    Args:
        tokenizer: a transformers tokenizer.
        template: "chat", in the model's own format; "qwen3_reranker", the format that
            Qwen3-Reranker models were trained with (its model card, "yes" and "no" after an
            empty thought).
    """

    _SYSTEM = (
        "Judge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".'
    )
    _TASK = "Given a web search query, retrieve relevant passages that answer the query"

    def __init__(self, tokenizer: Any, template: str) -> None:
        super().__init__(tokenizer)
        self._query_first = template == "qwen3_reranker"
        if self._query_first:
            self.labels = ("yes", "no")
            header = self.encode_template(
                f"<|im_start|>system\n{self._SYSTEM}<|im_end|>\n<|im_start|>user\n"
            )
            self._footer_ids = self.encode_template(
                "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
            )
            self._header_ids = header + self.encode([f"<Instruct>: {self._TASK}\n<Query>:"])[0]
            self._middle_ids = self.encode(["\n<Document>:"])[0]
            self._question_ids: list[int] = []
        else:
            self.labels = ("Yes", "No")
            header, self._footer_ids = self.chat_layout()
            self._header_ids = header + self.encode(["Passage:"])[0]
            self._middle_ids = self.encode(["\n\nQuery:"])[0]
            self._question_ids = self.encode(
                ["\n\nDoes the passage answer the query? Answer with Yes or No."]
            )[0]

    def encode_query(self, query: str) -> list[int]:
        """Token ids of the query's text."""
        return self.encode([" " + query])[0]

    def encode_documents(self, contents: Sequence[str]) -> list[list[int]]:
        """Token ids of each document's text."""
        return self.encode([" " + content for content in contents])

    def overhead(self, query_ids: Ids) -> int:
        """Tokens of a prompt that are not its document; a few for the answer included."""
        parts = (self._header_ids, self._middle_ids, self._question_ids, self._footer_ids)
        return sum(map(len, parts)) + len(query_ids) + 8

    def document_cost(self, document_ids: Ids, count: int) -> int:
        """A document's own tokens."""
        return len(document_ids)

    def build(
        self, query_ids: Ids, documents: Sequence[Ids], tails: Sequence[Tail] = ()
    ) -> PromptBatch:
        """One prompt per document, ended by the answers that are compared."""
        query = list(query_ids)
        if self._query_first:
            head = [*self._header_ids, *query, *self._middle_ids]
            bodies = [[*ids, *self._footer_ids] for ids in documents]
        else:
            head = list(self._header_ids)
            end = [*self._middle_ids, *query, *self._question_ids, *self._footer_ids]
            bodies = [[*ids, *end] for ids in documents]
        return PromptBatch(head, bodies, tails=tails)


class ComparisonPrompts(Encoder):
    """Several documents under labels, and the question which is the most relevant.

    Letters label up to 26 documents, bracketed numbers more.

    Args:
        tokenizer: a transformers tokenizer.
        framework: "pairwise", "setwise", "listwise".
        permutation: ask for all labels in order (listwise) instead of for the best.
    """

    def __init__(self, tokenizer: Any, framework: str, permutation: bool = False) -> None:
        super().__init__(tokenizer)
        self.permutation = permutation
        two = framework == "pairwise"
        header, footer = self.chat_layout()
        if permutation:
            opening, self._closing = "Rank the passages below by their relevance to the query", ""
        else:
            kind = "which of the following two passages is more relevant to the query?"
            opening = "Given the query"
            self._closing = (
                kind if two else "which of the following passages is the most relevant one to it?"
            )
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
                '\n\nQuery: "',
                f'"\nRank the {count} passages above by their relevance to the query. List all '
                "identifiers in descending order of relevance. The output format is [] > [], "
                "e.g., [2] > [1]. Only respond with the ranking, do not explain.",
            ]
        )
        return [*first, *query_ids, *last]
