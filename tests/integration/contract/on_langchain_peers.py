"""LangChain's own re-ranking compressors under the contract, with and without our parts."""

from __future__ import annotations

import functools
from typing import Any

from components import PLENTY
from langchain_classic.retrievers import document_compressors
from langchain_classic.retrievers.document_compressors.cross_encoder import BaseCrossEncoder
from langchain_core.language_models import SimpleChatModel
from langchain_core.runnables import RunnableLambda
from on_langchain import Compressor
from scripted import answer_listwise


class SentenceTransformersEncoder(BaseCrossEncoder):
    """A sentence-transformers cross-encoder as LangChain's community package wraps it."""

    def __init__(self, model: str) -> None:
        from sentence_transformers import CrossEncoder

        self.client = CrossEncoder(model, device="cpu")

    def score(self, text_pairs: list[tuple[str, str]]) -> Any:
        return self.client.predict(text_pairs)


class CrossEncoderReranker(Compressor):
    """LangChain's re-ranker, around a sentence-transformers cross-encoder."""

    title = "LangChain `CrossEncoderReranker`"
    distributions = ("langchain-classic", "sentence-transformers")

    @functools.cached_property
    def model(self) -> Any:
        return SentenceTransformersEncoder(self.folders.cross_encoder)

    def make(self, top_n: int | None = PLENTY) -> Any:
        return document_compressors.CrossEncoderReranker(model=self.model, top_n=top_n)


class ICRCrossEncoder(CrossEncoderReranker):
    """Ours, in LangChain's re-ranker."""

    title = "icr_rag `ICRCrossEncoder` in LangChain's `CrossEncoderReranker`"
    not_defined = dict.fromkeys(
        ("events_paired", "events_paired_on_error"),
        "ours is the model inside, whose interface has no callbacks; LangChain's class around it "
        "sends nothing either, which is a cross in its own column",
    )

    @functools.cached_property
    def model(self) -> Any:
        from icr_rag.integrations.langchain import ICRCrossEncoder

        # Keeps the weights that all of ours share.
        _ = self.folders.reranker
        return ICRCrossEncoder(**self.folders.settings)


class ScriptedChat(SimpleChatModel):
    """Answers the listwise prompt, in the structure that it is asked for."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _call(self, messages: Any, *_: Any, **__: Any) -> str:
        raise NotImplementedError

    def with_structured_output(self, schema: Any, **_: Any) -> Any:
        return RunnableLambda(functools.partial(_answer, schema))


def _answer(schema: Any, prompt: Any) -> Any:
    return schema(ranked_document_ids=answer_listwise(prompt))


class LLMListwiseRerank(Compressor):
    """LangChain's re-ranker that asks a language model."""

    title = "LangChain `LLMListwiseRerank`"

    def make(self, top_n: int | None = PLENTY) -> Any:
        return document_compressors.LLMListwiseRerank.from_llm(ScriptedChat(), top_n=top_n)
