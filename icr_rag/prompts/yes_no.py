"""The prompt that asks whether one document is relevant (arXiv 2310.14122, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from icr_rag.prompts.encoding import Encoder
from icr_rag.prompts.layout import Ids, PromptBatch, Tail

#: instruction name -> what stands before the query, and what is asked of the passage.
INSTRUCTIONS = {
    "retrieval": ("\n\nQuery:", "Does the passage answer the query?"),
    "question_answering": ("\n\nQuestion:", "Does the passage answer the question?"),
}
#: instruction name -> the task, as Qwen3-Reranker models were trained with it.
TASKS = {
    "retrieval": "Given a web search query, retrieve relevant passages that answer the query",
    "question_answering": "Given a question, retrieve passages that answer the question",
}


class YesNoPrompts(Encoder):
    """Asks of one document whether it is relevant; ``labels`` are the two answers.

    Args:
        tokenizer: a transformers tokenizer.
        template: "chat", in the model's own format; "qwen3_reranker", the format that
            Qwen3-Reranker models were trained with (its model card, "yes" and "no" after an
            empty thought).
        instruction: a key of `INSTRUCTIONS` or a sentence of the user's own, which stands before
            the query; in "qwen3_reranker" behind ``<Instruct>:``.
    """

    _SYSTEM = (
        "Judge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".'
    )

    def __init__(self, tokenizer: Any, template: str, instruction: str = "retrieval") -> None:
        super().__init__(tokenizer)
        self._query_first = template == "qwen3_reranker"
        if self._query_first:
            self.labels = ("yes", "no")
            task = TASKS.get(instruction, instruction)
            header = self.encode_template(
                f"<|im_start|>system\n{self._SYSTEM}<|im_end|>\n<|im_start|>user\n"
            )
            self._footer_ids = self.encode_template(
                "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
            )
            self._header_ids = header + self.encode([f"<Instruct>: {task}\n<Query>:"])[0]
            self._middle_ids = self.encode(["\n<Document>:"])[0]
            self._question_ids: list[int] = []
        else:
            self.labels = ("Yes", "No")
            header, self._footer_ids = self.chat_layout()
            self._header_ids = header + self.encode(["Passage:"])[0]
            own = (
                f"\n\nInstruction: {instruction}\nQuery:",
                "Does the passage meet the requirements of the instruction and the query?",
            )
            middle, question = INSTRUCTIONS.get(instruction, own)
            self._middle_ids = self.encode([middle])[0]
            self._question_ids = self.encode([f"\n\n{question} Answer with Yes or No."])[0]

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

    def build_lists(
        self, queries: Sequence[Ids], lists: Sequence[Sequence[Ids]], tails: Sequence[Tail] = ()
    ) -> PromptBatch:
        """`build` of each query and its list in one batch, list after list. The prompts are the
        same; where the query stands first it is run with each document, for heads are shared."""
        if len(queries) == 1:
            return self.build(queries[0], lists[0], tails)
        bodies = [
            [*batch.head_ids[len(self._header_ids) :], *body]
            for query_ids, documents in zip(queries, lists, strict=True)
            for batch in [self.build(query_ids, documents)]
            for body in batch.bodies
        ]
        return PromptBatch(list(self._header_ids), bodies, tails=tails)
