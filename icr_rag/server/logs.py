"""Log lines of a server: one per request, and the forms in which a process may write them.

Nothing here changes how an application that embeds the server logs; only `write_logs` does, which
``icr-rag serve`` calls.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TextIO

from icr_rag.server.telling import Told

logger = logging.getLogger("icr_rag.server.access")

#: Where a record has its fields.
_FIELDS = "icr_rag_fields"
#: The loggers of which ``icr-rag serve`` shows something.
_SHOWN = ("icr_rag", "uvicorn")


def access(own: Told, method: str, route: str, status: int, seconds: float) -> None:
    """Log a request: numbers and names, no text of it."""
    if not logger.isEnabledFor(logging.INFO):
        return
    fields: dict[str, object] = {
        "request_id": own.request_id,
        "method": method,
        "route": route,
        "status": status,
        "ms": round(1000 * seconds, 1),
    }
    if own.documents is not None:
        fields["documents"] = own.documents
    if own.answer is not None:
        fields |= {
            "tokens": own.answer.tokens,
            "batch": own.together,
            "cached": own.answer.cached,
            "truncated": len(own.answer.truncated),
            "degraded": own.answer.degraded is not None,
        }
        fields |= {
            f"{phase}_ms": round(1000 * took, 1)
            for phase, took in own.answer.seconds
            if phase in ("queue", "forward")
        }
    logger.info("%s %s %d", method, route, status, extra={_FIELDS: fields})


class Lines(logging.Formatter):
    """One line a record.

    Args:
        kind: "json": an object; "text": time, level and message, fields as name=value.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._json = kind == "json"

    def format(self, record: logging.LogRecord) -> str:
        """The line; with the stack where the record has one."""
        fields = _fields(record)
        moment = datetime.fromtimestamp(record.created, timezone.utc).isoformat("T", "milliseconds")
        message = record.getMessage()
        stack = self.formatException(record.exc_info) if record.exc_info else None
        if self._json:
            line: dict[str, object] = {
                "time": moment,
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": message,
                **fields,
            }
            return json.dumps(line if stack is None else {**line, "stack": stack})
        told = "".join(f" {name}={value}" for name, value in fields.items())
        end = "" if stack is None else f"\n{stack}"
        return f"{moment} {record.levelname} {record.name}: {message}{told}{end}"


def write_logs(kind: str, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Write what this package and uvicorn log to ``stream`` (None: standard error). For a process
    that is a server and nothing else."""
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(Lines(kind))
    for name in _SHOWN:
        shown = logging.getLogger(name)
        shown.handlers = [handler]
        shown.setLevel(level)
        shown.propagate = False
    # A line of ours says the same, and with the path of a request, which may be anything, it
    # would be two.
    logging.getLogger("uvicorn.access").handlers = []
    logging.getLogger("uvicorn.access").propagate = False


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    found = record.__dict__.get(_FIELDS)
    return found if isinstance(found, dict) else {}
