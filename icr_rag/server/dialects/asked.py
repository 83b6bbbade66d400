"""What all shapes of a request have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from icr_rag.server.call import RerankAnswer, RerankCall
from icr_rag.server.dialects.refused import names


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticCustomError("number", "must be a number, and is a boolean")
    return value


def _query(value: object) -> str:
    text = value.get("text") if isinstance(value, Mapping) else value
    if not isinstance(text, str):
        raise PydanticCustomError("query", 'must be a string, or an object with "text"')
    if not text.strip():
        raise PydanticCustomError("query", "is blank; give the question to rank for")
    return text


# Bounds stand next to the number, or the description of the API lacks them.
#: A whole number; strings of digits are taken as well, for some clients send them.
Whole = Annotated[int, BeforeValidator(_no_boolean)]
#: Milliseconds in which to answer; a boolean would be one of them, or none.
Milliseconds = Annotated[
    float,
    Field(
        gt=0,
        allow_inf_nan=False,
        description="Milliseconds in which to answer with what is done until then.",
    ),
    BeforeValidator(_no_boolean),
]
#: One that is 0 or more.
Count = Annotated[int, Field(ge=0), BeforeValidator(_no_boolean)]
#: One of tokens; -1 is none.
Limit = Annotated[int, Field(ge=-1), BeforeValidator(_no_boolean)]
#: How many results to give back, best first. 0, as vLLM's clients send by default, is all, and so
#: is any number larger than the list.
TopN = Annotated[Count, Field(description="Results to give back; 0, or none: all.")]
#: A query that is not blank, as a string; or, as Jina and NVIDIA have it, an object with "text".
Query = Annotated[
    str,
    BeforeValidator(_query),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"\S"},
                {
                    "type": "object",
                    "properties": {"text": {"type": "string", "pattern": r"\S"}},
                    "required": ["text"],
                },
            ]
        }
    ),
]


class Asked(BaseModel, ABC):
    """A request in one client's shape. Fields that are not known are kept, to be told of.

    Attributes:
        name: of the shape, as documentation has it.
        example: a request.
        model: any name; the model that is served answers, and its answer names it.
        deadline_ms: milliseconds in which to answer with what is done until then; of this server,
            in all shapes.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: ClassVar[str]
    example: ClassVar[dict[str, object]]

    model: str | None = None
    deadline_ms: Milliseconds | None = None

    @abstractmethod
    def to_call(self) -> RerankCall:
        """The call, with all documents in their order.

        Raises:
            Refused: naming the document that cannot be read.
        """

    @abstractmethod
    def render(self, call: RerankCall, answer: RerankAnswer, request_id: str) -> BaseModel:
        """What the client reads; None in it stands for a field that is left out.

        Raises:
            Refused: if the client asked for an error in a case that has come about.
        """

    @classmethod
    @abstractmethod
    def problem(cls, status: int, message: str, request_id: str) -> BaseModel:
        """An error as the client reads it."""

    def warnings(self, answer: RerankAnswer) -> list[str]:
        """What was not done as it might have been meant: fields that mean nothing here, documents
        that were cut, what a deadline left out. Names and numbers, no texts."""
        told = not_used(self)
        if answer.truncated:
            count = len(answer.truncated)
            told.append(f"cut to fit: {count} of {len(answer.scores)} documents")
        return told + ([answer.degraded] if answer.degraded else [])


def not_used(given: BaseModel) -> list[str]:
    """A warning of the fields that are not known; none if all are."""
    return [f"not used: {names(given.model_extra)}"] if given.model_extra else []


def places(answer: RerankAnswer, top_n: int | None) -> Sequence[int]:
    """The documents to show, by their places in the client's order, best first."""
    return answer.order[:top_n] if top_n else answer.order
