"""Language models with scripted answers: what a model that obeys its prompt perfectly would say.

They judge a document by the words that it shares with the query, so that their rankings are as
reproducible as those of a scoring model, and what is compared is the component around them.
"""

from __future__ import annotations

import re
from typing import Any


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def relevance(query: str, text: str) -> int:
    """From 1 to 10: how many words they share."""
    return min(10, 1 + 2 * len(words(query) & words(text)))


def ranked(query: str, texts: list[str]) -> list[tuple[int, int]]:
    """(position, relevance), best first; equal ones in their order."""
    judged = [(position, relevance(query, text)) for position, text in enumerate(texts)]
    return sorted(judged, key=lambda pair: -pair[1])


def answer_choice_select(prompt: Any) -> str:
    """The answer to LlamaIndex's choice-select prompt, in the format that it shows."""
    task = str(prompt).rsplit("Let's try this now:", 1)[1]
    listed, question = task.rsplit("\nQuestion: ", 1)
    query = question.rsplit("\nAnswer:", 1)[0]
    texts = re.split(r"(?:^|\n)Document \d+:\n", listed.strip(" "))[1:]
    return "\n".join(
        f"Doc: {position + 1}, Relevance: {score}" for position, score in ranked(query, texts)
    )


def answer_listwise(messages: Any) -> list[int]:
    """The document numbers that LangChain's listwise prompt asks for."""
    system, human = messages.to_messages()
    texts = re.findall(r"Document ID: \d+\n```(.*?)```\n\n", system.content, flags=re.DOTALL)
    return [position for position, _ in ranked(human.content, texts)]


def answer_json(prompt: str) -> list[int]:
    """The 1-based document numbers that Haystack's ranking prompt asks for."""
    query = prompt.rsplit("\nQuery:\n", 1)[1].split("\n\nDocuments:", 1)[0]
    texts = re.split(r"Document \d+:\ncontent: ", prompt.rsplit("\n\nDocuments:", 1)[1])[1:]
    return [position + 1 for position, _ in ranked(query, texts)]
