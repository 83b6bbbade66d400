"""Haystack rankers under the contract."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Sequence
from typing import Any

from components import PLENTY, Component, Hit, Item
from haystack import Document, component, default_from_dict, default_to_dict
from haystack.components import rankers
from haystack.dataclasses import ChatMessage
from haystack.utils import ComponentDevice
from scripted import answer_json

#: Haystack 3 builds what is not its own only if told to; before, there was nothing to tell.
_SECURITY = "haystack.core.serialization_security"

_EVENTS = "Haystack's pipeline traces its components; they send nothing themselves"


def allow(module: str) -> None:
    """Let Haystack build that module's classes from settings."""
    if importlib.util.find_spec(_SECURITY) is not None:
        importlib.import_module(_SECURITY).allow_deserialization_module(module)


class Ranker(Component):
    """What all rankers have in common. The subject is (ranker, the call's ``top_k``)."""

    distributions: tuple[str, ...] = ("haystack-ai",)
    not_defined = {
        "duplicate_ids": "to Haystack an id is the document: rankers drop all but one on purpose",
        "events_paired": _EVENTS,
        "events_paired_on_error": _EVENTS,
    }

    def ranker(self) -> Any:
        """The ranker itself, warmed up."""
        raise NotImplementedError

    def make(self, top_n: int | None = PLENTY) -> Any:
        return self.ranker(), top_n

    def documents(self, items: Sequence[Item]) -> list[Document]:
        made = [Document(id=item.id, content="", meta=dict(item.metadata)) for item in items]
        for document, item in zip(made, items, strict=True):
            # Past the validation, as a document that some converter made might be.
            document.__dict__["content"] = item.text
        return made

    def run(self, subject: Any, documents: list[Any], query: Any) -> Any:
        ranker, top_k = subject
        return ranker.run(query=query, documents=documents, top_k=top_k)["documents"]

    async def arun(self, subject: Any, documents: list[Any], query: Any) -> Any:
        ranker, top_k = subject
        if not hasattr(ranker, "run_async"):
            return await super().arun(subject, documents, query)
        return (await ranker.run_async(query=query, documents=documents, top_k=top_k))["documents"]

    def read(self, result: Any, items: Sequence[Item]) -> list[Hit]:
        return [
            Hit(document.id, document.content, document.score, document.meta) for document in result
        ]

    def plain(self, result: Any) -> Any:
        return [document.to_dict() for document in result]

    def restore(self, plain: Any) -> Any:
        return [Document.from_dict(data) for data in plain]

    def reconfigured(self, subject: Any) -> Any:
        ranker, top_k = subject
        return type(ranker).from_dict(json.loads(json.dumps(ranker.to_dict()))), top_k


class SimilarityRanker(Ranker):
    """Haystack's ranker around a sentence-transformers cross-encoder."""

    title = "Haystack `SentenceTransformersSimilarityRanker`"
    distributions = ("haystack-ai", "sentence-transformers-haystack", "sentence-transformers")

    def ranker(self) -> Any:
        from haystack_integrations.components.rankers.sentence_transformers import (
            SentenceTransformersSimilarityRanker,
        )

        return SentenceTransformersSimilarityRanker(
            model=self.folders.cross_encoder,
            device=ComponentDevice.from_str("cpu"),
            token=None,
        )


@component
class ScriptedGenerator:
    """Answers the ranking prompt with the JSON that it asks for."""

    @component.output_types(replies=list[ChatMessage])
    def run(self, messages: list[ChatMessage]) -> dict[str, list[ChatMessage]]:
        documents = [{"index": index} for index in answer_json(messages[0].text or "")]
        return {"replies": [ChatMessage.from_assistant(json.dumps({"documents": documents}))]}

    def to_dict(self) -> dict[str, Any]:
        return default_to_dict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ScriptedGenerator:
        return default_from_dict(cls, data)


class LLMRanker(Ranker):
    """Haystack's ranker that asks a language model."""

    title = "Haystack `LLMRanker`"
    has_scores = False
    not_defined = {
        **Ranker.not_defined,
        "query_blank": "documented: it logs a warning and keeps the order given",
        "query_none": "documented: it logs a warning and keeps the order given",
    }

    def reconfigured(self, subject: Any) -> Any:
        # As a user would for a generator of their own.
        allow(__name__)
        return super().reconfigured(subject)

    def ranker(self) -> Any:
        return rankers.LLMRanker(chat_generator=ScriptedGenerator())


class ICRRanker(Ranker):
    """Ours."""

    title = "icr_rag `ICRRanker` for Haystack"

    def ranker(self) -> Any:
        from icr_rag.integrations.haystack import ICRRanker

        # Keeps the weights that all of ours share.
        _ = self.folders.reranker
        return ICRRanker(**self.folders.settings)

    def reconfigured(self, subject: Any) -> Any:
        # As a pipeline that is loaded from YAML asks for, outside Haystack's own packages.
        allow("icr_rag")
        return super().reconfigured(subject)
