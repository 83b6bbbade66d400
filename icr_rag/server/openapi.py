"""What the OpenAPI description says of a path: shapes of requests and answers, with examples."""

from __future__ import annotations

import functools
from enum import Enum
from typing import Literal, TypedDict

from pydantic import BaseModel

from icr_rag.server.dialects.asked import Asked
from icr_rag.server.dialects.dashscope import DashScopeAnswer, DashScopeAsked, DashScopeProblem
from icr_rag.server.dialects.nvidia import NvidiaAnswer, NvidiaAsked, NvidiaProblem
from icr_rag.server.dialects.standard import StandardAnswer, StandardAsked, StandardProblem
from icr_rag.server.dialects.tei import TEIAnswer, TEIAsked, TEIProblem


class OwnProblem(BaseModel):
    """An error that is told before anybody looks at whose shape a request has; as
    `icr_rag.server.asgi.Failure.body`."""

    message: str
    error: str
    error_type: str
    detail: str


_ERRORS = {
    400: "The body is no JSON.",
    413: "A text is too long.",
    422: "A field has a wrong type or value, or there is nothing to rank.",
    429: "Too many requests are waiting; Retry-After says for how many seconds.",
    503: "The server is starting or shutting down.",
}

#: Errors in no client's shape.
_OWN_ERRORS = {
    401: "There is no key, or a wrong one.",
    408: "The body did not come.",
    500: "The server failed.",
}

#: Request, answer and error of each shape; a shape that is not named here is standard.
_SHAPES: dict[type[Asked], tuple[type[BaseModel], type[BaseModel]]] = {
    StandardAsked: (StandardAnswer, StandardProblem),
    TEIAsked: (TEIAnswer, TEIProblem),
    DashScopeAsked: (DashScopeAnswer, DashScopeProblem),
    NvidiaAsked: (NvidiaAnswer, NvidiaProblem),
}


class Described(TypedDict):
    """Arguments of `fastapi.APIRouter.add_api_route` that describe a path."""

    summary: str
    operation_id: str
    tags: list[str | Enum]
    openapi_extra: dict[str, object]
    responses: dict[int | str, dict[str, object]]


def described(path: str, shape: type[Asked], others: bool) -> Described:
    """The description of one path.

    Args:
        path: as it is called.
        shape: what it speaks.
        others: whether it takes the other shapes too.
    """
    shapes = [shape, *(other for other in _SHAPES if not issubclass(shape, other))]
    taken = shapes if others else [shape]
    answers, problems = zip(*map(_models, taken), strict=True)
    return {
        "summary": f"Rank texts ({shape.name})",
        "operation_id": "rerank" + "".join(c if c.isalnum() else "_" for c in path),
        "tags": ["rerank"],
        "openapi_extra": {
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": _any_of([_schema(each) for each in taken]),
                        "examples": {each.name: {"value": each.example} for each in taken},
                    }
                },
            }
        },
        "responses": {
            200: {"description": "The ranking, best first.", **_content(list(answers))},
            **{
                status: {"description": text, **_content([*problems, OwnProblem])}
                for status, text in _ERRORS.items()
            },
            **{
                status: {"description": text, **_content([OwnProblem])}
                for status, text in _OWN_ERRORS.items()
            },
        },
    }


def _models(shape: type[Asked]) -> tuple[type[BaseModel], type[BaseModel]]:
    return next(pair for known, pair in _SHAPES.items() if issubclass(shape, known))


def _content(models: list[type[BaseModel]]) -> dict[str, object]:
    schema = _any_of([_schema(model, mode="serialization") for model in models])
    return {"content": {"application/json": {"schema": schema}}}


@functools.cache
def _schema(
    model: type[BaseModel], mode: Literal["validation", "serialization"] = "validation"
) -> dict[str, object]:
    """A model's JSON schema in one piece: references would point into another document."""
    schema = model.model_json_schema(mode=mode)
    parts = schema.pop("$defs", {})

    def inlined(value: object) -> object:
        if isinstance(value, list):
            return [inlined(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            return inlined(parts[value["$ref"].rpartition("/")[2]])
        return {key: inlined(item) for key, item in value.items()}

    return {key: inlined(value) for key, value in schema.items()}


def _any_of(schemas: list[dict[str, object]]) -> dict[str, object]:
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
