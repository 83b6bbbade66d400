"""NVIDIA NIM: passages in, log-odds out.

https://docs.nvidia.com/nim/nemo-retriever/text-reranking/latest/reference.html
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import AliasChoices, BaseModel, Field

from icr_rag.server.call import RerankAnswer, RerankCall
from icr_rag.server.dialects.asked import Asked, Query, TopN, places
from icr_rag.server.dialects.documents import Documents, read
from icr_rag.server.dialects.refused import Refused
from icr_rag.server.dialects.standard import Usage


class Logit(BaseModel):
    """One passage: its place in the request, its log-odds, higher is better."""

    index: int
    logit: float


class NvidiaAnswer(BaseModel):
    """The passages, best first."""

    rankings: list[Logit]
    usage: Usage


class NvidiaProblem(BaseModel):
    """An error as its clients read it."""

    object: Literal["error"] = "error"
    message: str
    detail: str
    type: str


class NvidiaAsked(Asked):
    """A request of a client of NVIDIA's re-rankers.

    Attributes:
        truncate: "NONE": refuse passages that are too long; "END", or not sent: cut them.
        top_n: also "top_k", as LiteLLM sends it.
    """

    name: ClassVar[str] = "NVIDIA NIM"
    example: ClassVar[dict[str, object]] = {
        "model": "any",
        "query": {"text": "What melts first?"},
        "passages": [{"text": "Tin melts at 232 degrees."}, {"text": "Iron melts late."}],
        "truncate": "END",
    }

    query: Query
    passages: Documents
    truncate: Literal["NONE", "END"] | None = None
    top_n: TopN | None = Field(default=None, validation_alias=AliasChoices("top_n", "top_k"))

    def to_call(self) -> RerankCall:
        """As `Asked.to_call`."""
        return RerankCall(
            self.query,
            read(self.passages, field="passages"),
            model=self.model,
            deadline_ms=self.deadline_ms,
        )

    def render(self, call: RerankCall, answer: RerankAnswer, request_id: str) -> NvidiaAnswer:
        """As `Asked.render`."""
        if self.truncate == "NONE" and answer.truncated:
            raise Refused(
                f'passages[{answer.truncated[0]}] is too long, and truncate is "NONE"; send '
                '"truncate": "END" to have it cut'
            )
        return NvidiaAnswer(
            rankings=[
                Logit(index=place, logit=answer.logit(place))
                for place in places(answer, self.top_n)
            ],
            usage=Usage(prompt_tokens=answer.tokens, total_tokens=answer.tokens),
        )

    @classmethod
    def problem(cls, status: int, message: str, request_id: str) -> NvidiaProblem:
        """As `Asked.problem`."""
        kind = "invalid_request_error" if status < 500 else "internal_server_error"
        return NvidiaProblem(message=message, detail=message, type=kind)
