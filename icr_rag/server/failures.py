"""From exceptions to what clients are told."""

from __future__ import annotations

import math

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from icr_rag.errors import (
    ClosedError,
    DeviceMemoryError,
    InputError,
    ModelLoadError,
    OverloadedError,
    PromptTooLongError,
    brief,
)
from icr_rag.server.asgi import Failure

INTERNAL = Failure(500, "internal", "the server failed; the request's id finds it in its log")
_MEMORY = Failure(
    503, "out_of_memory", "the model ran out of memory; send fewer or shorter documents", 1
)
_STATUS_KINDS = {401: "unauthorized", 404: "not_found", 405: "method_not_allowed"}
#: Mistakes of a request that are named; a body may have thousands.
_NAMED = 5


def failure_of(error: Exception) -> Failure:
    """What a client is told of an exception: of its own mistakes what they are, of others that
    there are some."""
    if isinstance(error, OverloadedError):
        return Failure(429, "overloaded", str(error), math.ceil(error.retry_after))
    if isinstance(error, PromptTooLongError):
        return Failure(413, "too_large", str(error))
    if isinstance(error, InputError):
        return Failure(422, "invalid", str(error))
    if isinstance(error, ClosedError):
        return Failure(503, "unavailable", str(error), 1)
    if isinstance(error, ModelLoadError):
        # It names files.
        return Failure(503, "unavailable", "the model could not be loaded; the log says more")
    if isinstance(error, RequestValidationError):
        return _of_validation(error)
    if isinstance(error, HTTPException):
        kind = _STATUS_KINDS.get(error.status_code, "invalid")
        return Failure(error.status_code, kind, str(error.detail))
    return _MEMORY if is_memory(error) else INTERNAL


def is_memory(error: Exception) -> bool:
    """Whether memory ran out, of the machine or of an accelerator."""
    # torch's own class, without importing torch.
    name = type(error).__name__
    return isinstance(error, (MemoryError, DeviceMemoryError)) or name == "OutOfMemoryError"


def _of_validation(error: RequestValidationError) -> Failure:
    """Where a body is wrong and how, but not what stands there."""
    found = error.errors()
    told = []
    for item in found[:_NAMED]:
        place = ".".join(map(str, item["loc"]))
        told.append(f"{brief(place, 80)}: {brief(str(item['msg']), 200)}")
    if len(found) > _NAMED:
        told.append(f"and {len(found) - _NAMED} more")
    unread = any(item["type"] == "json_invalid" for item in found)
    return Failure(400 if unread else 422, "invalid", "; ".join(told))
