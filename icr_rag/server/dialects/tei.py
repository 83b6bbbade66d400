"""Hugging Face text-embeddings-inference: texts in, a bare list out, best first.

https://huggingface.github.io/text-embeddings-inference/
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, RootModel, WithJsonSchema

from icr_rag.server.call import RerankAnswer, RerankCall
from icr_rag.server.dialects.asked import Asked, Query, TopN, places
from icr_rag.server.dialects.documents import Documents, read
from icr_rag.server.dialects.refused import Refused


def _lower(value: object) -> object:
    """Its older releases say "Right", newer ones "right"."""
    return value.lower() if isinstance(value, str) else value


class Rank(BaseModel):
    """One text: its place in the request, its score, higher is better."""

    index: int
    score: float
    text: str | None = None


class TEIAnswer(RootModel[list[Rank]]):
    """The texts, best first."""


class TEIProblem(BaseModel):
    """An error as its clients read it."""

    error: str
    error_type: str


class TEIAsked(Asked):
    """A request of a client of text-embeddings-inference.

    Attributes:
        raw_scores: log-odds instead of probabilities, where scores are probabilities.
        truncate: False: refuse texts that are too long; not sent, or True: cut them.
        top_n: of this server, and of LiteLLM, which sends it although TEI does not know it.
    """

    name: ClassVar[str] = "text-embeddings-inference"
    example: ClassVar[dict[str, object]] = {
        "query": "What melts first?",
        "texts": ["Tin melts at 232 degrees.", "Iron melts late."],
        "raw_scores": False,
    }

    query: Query
    texts: Documents
    raw_scores: bool = False
    return_text: bool = False
    truncate: bool | None = None
    truncation_direction: Annotated[
        Literal["left", "right"] | None,
        BeforeValidator(_lower),
        # "left" is known, and refused in words of its own.
        WithJsonSchema({"enum": ["right", "Right", None]}),
    ] = None
    top_n: TopN | None = None

    def to_call(self) -> RerankCall:
        """As `Asked.to_call`."""
        if self.truncation_direction == "left":
            raise Refused(
                'truncation_direction is "left"; texts are cut at their end: send "right"'
            )
        return RerankCall(
            self.query,
            read(self.texts, field="texts"),
            model=self.model,
            deadline_ms=self.deadline_ms,
        )

    def render(self, call: RerankCall, answer: RerankAnswer, request_id: str) -> TEIAnswer:
        """As `Asked.render`."""
        if self.truncate is False and answer.truncated:
            raise Refused(
                f"texts[{answer.truncated[0]}] is too long, and truncate is false; send "
                '"truncate": true to have it cut',
                413,
            )
        return TEIAnswer(
            [
                Rank(
                    index=place,
                    score=answer.logit(place) if self.raw_scores else answer.scores[place],
                    text=call.documents[place].content if self.return_text else None,
                )
                for place in places(answer, self.top_n)
            ]
        )

    @classmethod
    def problem(cls, status: int, message: str, request_id: str) -> TEIProblem:
        """As `Asked.problem`."""
        kinds = {429: "Overloaded", 503: "Unhealthy"}
        return TEIProblem(
            error=message,
            error_type=kinds.get(status, "Validation" if status < 500 else "Backend"),
        )
