"""The paths that clients of re-rankers call, each in the JSON shape that they speak.

::

    POST /v1/rerank, /v2/rerank, /rerank, /v1/reranks    standard, or by the field of the texts
    POST /infinity/rerank                                Infinity
    POST /v1/ranking, /v1/retrieval/{model}/reranking    NVIDIA
    POST /api/v1/services/rerank/text-rerank/text-rerank DashScope
    GET  /v1/models, /info                               what is served

One model is served: a request may name any, and the answer names the one that ranked.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

import icr_rag
from icr_rag.errors import (
    ClosedError,
    ConfigError,
    InputError,
    OverloadedError,
    PromptTooLongError,
    brief,
)
from icr_rag.server.call import UNFITTING, Answers, RerankAnswer
from icr_rag.server.dialects.asked import Asked
from icr_rag.server.dialects.choose import shape_of
from icr_rag.server.dialects.dashscope import DashScopeAsked
from icr_rag.server.dialects.infinity import InfinityAsked
from icr_rag.server.dialects.nvidia import NvidiaAsked
from icr_rag.server.dialects.refused import Refused, wrong_fields
from icr_rag.server.dialects.standard import CohereV2Asked, StandardAsked
from icr_rag.server.openapi import described
from icr_rag.server.served import ModelInfo, ModelList, model_info, model_list
from icr_rag.server.telling import told

#: Where each shape is spoken, and whether the field of the texts may say that it is another one.
_PATHS: tuple[tuple[str, type[Asked], bool], ...] = (
    ("/v1/rerank", StandardAsked, True),
    ("/v2/rerank", CohereV2Asked, True),
    ("/rerank", StandardAsked, True),
    ("/v1/reranks", StandardAsked, True),
    ("/infinity/rerank", InfinityAsked, False),
    ("/v1/ranking", NvidiaAsked, False),
    ("/api/v1/services/rerank/text-rerank/text-rerank", DashScopeAsked, False),
)

#: What the client can do something about: statuses of errors whose messages it may read.
_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (OverloadedError, 429),
    (ClosedError, 503),
    (PromptTooLongError, 413),
    (InputError, 422),
    (ConfigError, 422),
)


def rerank_routes(answers: Answers, *, max_documents: int | None = None) -> APIRouter:
    """All paths, answered by ``answers``.

    Errors that a client can do something about are told in its own shape: 400 (no JSON), 413 (too
    long), 422 (wrong fields, or what cannot be ranked), 429 and 503 with Retry-After. No answer has
    a text that was not asked for. Other errors are left to the application.

    Args:
        answers: what ranks.
        max_documents: most documents of a request, to be told at ``/info``; None: no limit.
    """
    router = APIRouter()
    for path, shape, others in _PATHS:
        router.add_api_route(
            path,
            _handler(answers, shape, others),
            methods=["POST"],
            response_class=Response,
            **described(path, shape, others),
        )

    async def nvidia_by_model(request: Request, model: str) -> Response:
        return await _answered(answers, request, NvidiaAsked, others=False)

    router.add_api_route(
        "/v1/retrieval/{model:path}/reranking",
        nvidia_by_model,
        methods=["POST"],
        response_class=Response,
        **described("/v1/retrieval/{model}/reranking", NvidiaAsked, False),
    )

    async def models() -> ModelList:
        return model_list(answers.model)

    async def info() -> ModelInfo:
        return model_info(answers.model, icr_rag.__version__, max_documents)

    router.add_api_route("/v1/models", models, summary="The model that is served (OpenAI's shape)")
    router.add_api_route("/info", info, summary="The model that is served (TEI's shape)")
    return router


def _handler(
    answers: Answers, shape: type[Asked], others: bool
) -> Callable[[Request], Awaitable[Response]]:
    async def rerank(request: Request) -> Response:
        return await _answered(answers, request, shape, others)

    return rerank


async def _answered(
    answers: Answers, request: Request, shape: type[Asked], others: bool
) -> Response:
    """The answer to one request, or the refusal, in the shape that its client speaks."""
    own = told.get()
    # In an application of its own, a request has no id yet.
    request_id = str(uuid.uuid4()) if own is None else own.request_id
    try:
        body = _parsed(await request.body())
        shape = shape_of(body, shape) if others else shape
        asked = _validated(shape, body)
        call = asked.to_call()
        answer = await answers.rerank(call) if call.documents else _nothing(answers.model)
        return _json(200, asked.render(call, answer, request_id), _headers(asked, answer))
    except Refused as refused:
        return _json(refused.status, shape.problem(refused.status, refused.message, request_id))
    except tuple(kind for kind, _ in _STATUSES) as error:
        status = next(status for kind, status in _STATUSES if isinstance(error, kind))
        seconds = error.retry_after if isinstance(error, OverloadedError) else 1
        headers = {"retry-after": str(math.ceil(seconds))} if status in (429, 503) else None
        # A setting's message may name a file of the operator's.
        message = UNFITTING if isinstance(error, ConfigError) else str(error)
        return _json(status, shape.problem(status, message, request_id), headers)


def _parsed(body: bytes) -> dict[str, object]:
    try:
        parsed: object = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Refused(f"the body is no JSON: {brief(str(error), 200)}", 400) from None
    if not isinstance(parsed, dict):
        raise Refused('the body must be a JSON object, such as {"query": ..., "documents": [...]}')
    return parsed


def _validated(shape: type[Asked], body: dict[str, object]) -> Asked:
    try:
        return shape.model_validate(body)
    except ValidationError as error:
        raise wrong_fields(error) from None


def _nothing(model: str) -> RerankAnswer:
    """The ranking of an empty list, for which nothing need be asked."""
    return RerankAnswer(model=model, scores=(), order=(), probability=True)


def _json(status: int, body: BaseModel, headers: dict[str, str] | None = None) -> Response:
    content = body.model_dump_json(exclude_none=True)
    return Response(content, status, headers, media_type="application/json")


def _headers(asked: Asked, answer: RerankAnswer) -> dict[str, str]:
    """Warnings also where the shape of the answer has no place for them."""
    told = asked.warnings(answer)
    if not told:
        return {}
    plain = "; ".join(told).encode("ascii", "backslashreplace").decode("ascii")
    return {"icr-rag-warnings": brief("".join(c if c.isprintable() else " " for c in plain))}
