"""What is served, as clients ask for it: OpenAI's list of models, TEI's information."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class Model(BaseModel):
    """A model in OpenAI's list."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "icr_rag"


class ModelList(BaseModel):
    """OpenAI's list of models."""

    object: Literal["list"] = "list"
    data: list[Model]


class Labels(BaseModel):
    """The one label of a re-ranker."""

    id2label: dict[str, str]
    label2id: dict[str, int]


class ModelType(BaseModel):
    """That it is a re-ranker."""

    reranker: Labels


class ModelInfo(BaseModel):
    """What TEI's clients look for before they send a batch."""

    model_id: str
    model_type: ModelType
    auto_truncate: bool = True
    max_client_batch_size: int | None
    version: str


def model_list(model: str) -> ModelList:
    """The list of the one model that is served."""
    return ModelList(data=[Model(id=model)])


def model_info(model: str, version: str, max_documents: int | None) -> ModelInfo:
    """What is served, in TEI's shape.

    Args:
        model: its name.
        version: of icr_rag.
        max_documents: most documents of a request; None: no limit.
    """
    labels = Labels(id2label={"0": "relevance"}, label2id={"relevance": 0})
    return ModelInfo(
        model_id=model,
        model_type=ModelType(reranker=labels),
        max_client_batch_size=max_documents,
        version=version,
    )
