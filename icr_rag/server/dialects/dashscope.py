"""Aliyun's DashScope: ``input`` and ``parameters`` in, ``output`` out.

https://help.aliyun.com/zh/model-studio/text-rerank-api
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from icr_rag.server.call import RerankAnswer, RerankCall
from icr_rag.server.dialects.asked import Asked, Milliseconds, Query, TopN, not_used, places
from icr_rag.server.dialects.documents import Documents, given_back, read
from icr_rag.server.dialects.standard import Result


class Input(BaseModel):
    """What is ranked."""

    query: Query
    documents: Documents


class Parameters(BaseModel):
    """How it is ranked; LightRAG puts whatever its user adds in here."""

    model_config = ConfigDict(extra="allow", frozen=True)

    top_n: TopN | None = None
    return_documents: bool | None = None
    instruct: str | None = None
    deadline_ms: Milliseconds | None = None


class Output(BaseModel):
    """The documents, best first."""

    results: list[Result]


class TotalTokens(BaseModel):
    """Tokens run through the model."""

    total_tokens: int


class DashScopeAnswer(BaseModel):
    """What its clients read."""

    output: Output
    usage: TotalTokens
    request_id: str


class DashScopeProblem(BaseModel):
    """An error as its clients read it."""

    code: str
    message: str
    request_id: str


class DashScopeAsked(Asked):
    """A request of a client of DashScope."""

    name: ClassVar[str] = "DashScope"
    example: ClassVar[dict[str, object]] = {
        "model": "any",
        "input": {
            "query": "What melts first?",
            "documents": ["Tin melts at 232 degrees.", "Iron melts late."],
        },
        "parameters": {"top_n": 1, "return_documents": True},
    }

    input: Input
    parameters: Parameters = Parameters()

    def to_call(self) -> RerankCall:
        """As `Asked.to_call`."""
        deadlines = [
            limit for limit in (self.deadline_ms, self.parameters.deadline_ms) if limit is not None
        ]
        return RerankCall(
            self.input.query,
            read(self.input.documents, field="input.documents"),
            model=self.model,
            instruction=self.parameters.instruct or None,
            deadline_ms=min(deadlines, default=None),
        )

    def render(self, call: RerankCall, answer: RerankAnswer, request_id: str) -> DashScopeAnswer:
        """As `Asked.render`."""
        given = self.input.documents if self.parameters.return_documents else None
        results = [
            Result(
                index=place,
                relevance_score=answer.scores[place],
                document=given and given_back(given[place], call.documents[place]),
            )
            for place in places(answer, self.parameters.top_n)
        ]
        return DashScopeAnswer(
            output=Output(results=results),
            usage=TotalTokens(total_tokens=answer.tokens),
            request_id=request_id,
        )

    def warnings(self, answer: RerankAnswer) -> list[str]:
        """As `Asked.warnings`."""
        return not_used(self.parameters) + super().warnings(answer)

    @classmethod
    def problem(cls, status: int, message: str, request_id: str) -> DashScopeProblem:
        """As `Asked.problem`."""
        codes = {429: "Throttling", 503: "ServiceUnavailable"}
        code = codes.get(status, "InvalidParameter" if status < 500 else "InternalError")
        return DashScopeProblem(code=code, message=message, request_id=request_id)
