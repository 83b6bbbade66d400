"""The shape of Cohere, which Jina, vLLM and most others speak, in one request and one answer.

Their requests differ in fields that do not contradict each other, and each client reads the part of
the answer that it knows: ``id``, ``results`` and ``meta`` (Cohere), ``model`` and ``usage`` (Jina,
vLLM). ``document`` is there only if ``return_documents`` asks for it, as an object with "text".

https://docs.cohere.com/reference/rerank, https://api.jina.ai/redoc,
https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AliasChoices, BaseModel, Field, WithJsonSchema

from icr_rag.server.call import RerankAnswer, RerankCall
from icr_rag.server.dialects.asked import (
    Asked,
    Count,
    Limit,
    Query,
    TopN,
    Whole,
    places,
)
from icr_rag.server.dialects.documents import Documents, given_back, read
from icr_rag.server.dialects.refused import Refused
from icr_rag.types import Document


class Result(BaseModel):
    """One document: its place in the request, its score, higher is better."""

    index: int
    relevance_score: float
    document: dict[str, object] | str | None = None


class Tokens(BaseModel):
    """Tokens run through the model for this request; nothing is written."""

    input_tokens: int
    output_tokens: int = 0


class Version(BaseModel):
    """Which of Cohere's shapes this is."""

    version: str


class Meta(BaseModel):
    """How the answer came about.

    Attributes:
        warnings: fields that were not used, documents that were cut.
        truncated: places of documents that were cut.
        cached: scores that came from the score cache.
        degraded: what a deadline left out.
        seconds: by phase.
    """

    api_version: Version
    tokens: Tokens
    warnings: list[str] | None = None
    truncated: list[int] | None = None
    cached: int = 0
    degraded: str | None = None
    seconds: dict[str, float] | None = None


class Usage(BaseModel):
    """Tokens as Jina and vLLM count them."""

    prompt_tokens: int
    total_tokens: int


class StandardAnswer(BaseModel):
    """What Cohere's, Jina's and vLLM's clients read."""

    id: str
    model: str
    results: list[Result]
    usage: Usage
    meta: Meta


class ErrorDetail(BaseModel):
    """An error as OpenAI's clients, and vLLM's, read it."""

    message: str
    type: str
    code: int


class StandardProblem(BaseModel):
    """An error where each client looks: "message" (Cohere), "detail" (Jina), "error" (vLLM)."""

    id: str
    message: str
    detail: str
    error: ErrorDetail


class StandardAsked(Asked):
    """A request of Cohere v1 or v2, Jina or vLLM."""

    name: ClassVar[str] = "Cohere v1, Jina, vLLM"
    example: ClassVar[dict[str, object]] = {
        "model": "any",
        "query": "What melts first?",
        "documents": ["Tin melts at 232 degrees.", "Iron melts late."],
        "top_n": 1,
    }

    query: Query
    documents: Documents
    top_n: TopN | None = None
    return_documents: bool | None = None
    rank_fields: list[str] | None = Field(
        default=None, description="Fields of documents that are objects to read, in this order."
    )
    max_tokens_per_doc: Count | None = Field(
        default=None, description="Most tokens of a document to read; 0, or none: no limit."
    )
    truncate_prompt_tokens: Limit | None = Field(
        default=None, description="As max_tokens_per_doc; -1, or none: no limit."
    )
    truncation_side: Annotated[
        # "left" is known, and refused in words of its own.
        Literal["left", "right"] | None, WithJsonSchema({"enum": ["right", None]})
    ] = None
    instruction: str | None = Field(
        default=None, validation_alias=AliasChoices("instruction", "instruct")
    )
    max_chunks_per_doc: Whole | None = None
    max_tokens_per_query: Whole | None = None

    def to_call(self) -> RerankCall:
        """As `Asked.to_call`."""
        if self.truncation_side == "left":
            raise Refused('truncation_side is "left"; documents are cut at their end: send "right"')
        limits = [
            limit
            for limit in (self.max_tokens_per_doc, self.truncate_prompt_tokens)
            if limit is not None and limit > 0
        ]
        return RerankCall(
            self.query,
            read(self.documents, self.rank_fields or None),
            model=self.model,
            instruction=self.instruction or None,
            max_tokens_per_doc=min(limits, default=None),
            deadline_ms=self.deadline_ms,
        )

    def render(self, call: RerankCall, answer: RerankAnswer, request_id: str) -> StandardAnswer:
        """As `Asked.render`."""
        return StandardAnswer(
            id=request_id,
            model=answer.model,
            results=[
                Result(
                    index=place,
                    relevance_score=answer.scores[place],
                    document=self._document(place, call.documents[place]),
                )
                for place in places(answer, self.top_n)
            ],
            usage=Usage(prompt_tokens=answer.tokens, total_tokens=answer.tokens),
            meta=Meta(
                api_version=Version(version=self._version()),
                tokens=Tokens(input_tokens=answer.tokens),
                warnings=self.warnings(answer) or None,
                truncated=list(answer.truncated) or None,
                cached=answer.cached,
                degraded=answer.degraded,
                seconds=dict(answer.seconds) or None,
            ),
        )

    @classmethod
    def problem(cls, status: int, message: str, request_id: str) -> StandardProblem:
        """As `Asked.problem`."""
        kind = "invalid_request_error" if status < 500 else "server_error"
        return StandardProblem(
            id=request_id,
            message=message,
            detail=message,
            error=ErrorDetail(message=message, type=kind, code=status),
        )

    def _document(self, place: int, document: Document) -> dict[str, object] | str | None:
        return given_back(self.documents[place], document) if self.return_documents else None

    def _version(self) -> str:
        return "1"

    def warnings(self, answer: RerankAnswer) -> list[str]:
        """As `Asked.warnings`."""
        unused = [
            f"{name} is not used: {why}"
            for name, value, why in (
                ("max_chunks_per_doc", self.max_chunks_per_doc, "documents are not chunked"),
                ("max_tokens_per_query", self.max_tokens_per_query, "queries are not cut by it"),
            )
            if value is not None
        ]
        return unused + super().warnings(answer)


class CohereV2Asked(StandardAsked):
    """The same at ``/v2/rerank``, where ``max_tokens_per_doc`` took ``max_chunks_per_doc``'s
    place; the answer says that it is version 2."""

    name: ClassVar[str] = "Cohere v2"

    def _version(self) -> str:
        return "2"
