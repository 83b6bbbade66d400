"""Spans of OpenTelemetry: how one is begun, filled and ended, whatever it is about.

Only the API is used (the extra ``otel``): where an application sets up no SDK, spans cost next to
nothing and go nowhere; nothing is ever sent by this library itself. With ``traces="none"``, the
default, nothing here is called.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from icr_rag.errors import require

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

#: What a span may say of something.
Value = str | bool | int | float

_PURPOSE = "traces, which is not 'none',"


def check_traces() -> None:
    """Raise `MissingDependencyError` if spans cannot be made."""
    require("opentelemetry.trace", "otel", _PURPOSE)


def tracer() -> Tracer:
    """The tracer of this library, by the provider that the application has now."""
    check_traces()
    from opentelemetry import trace

    import icr_rag

    return trace.get_tracer("icr_rag", icr_rag.__version__)


@contextmanager
def spanned(
    name: str, attributes: Mapping[str, Value | None], *, texts: bool = False
) -> Iterator[Written]:
    """A span around the block, which is the present one inside it.

    An exception ends it with its type; its message, which may repeat a document, is left out
    unless texts are asked for.

    Args:
        attributes: those known at its beginning, by which samplers choose; None is left out.
        texts: whether texts may stand in it.
    """
    with tracer().start_as_current_span(
        name, attributes=_there(attributes), record_exception=False, set_status_on_exception=False
    ) as span:
        written = Written(span)
        try:
            yield written
        except BaseException as error:
            written.failed(error, texts=texts)
            raise


class Written:
    """A span that is being filled."""

    def __init__(self, span: Span) -> None:
        self._span = span

    @property
    def wanted(self) -> bool:
        """Whether anybody will see it."""
        return self._span.is_recording()

    def say(self, attributes: Mapping[str, Value | None]) -> None:
        """Add attributes; None is left out."""
        self._span.set_attributes(_there(attributes))

    def wrong(self, kind: str) -> None:
        """Mark it as failed, with the type of what went wrong."""
        from opentelemetry.trace import Status, StatusCode

        self._span.set_attribute("error.type", kind)
        self._span.set_status(Status(StatusCode.ERROR, kind))

    def failed(self, error: BaseException, *, texts: bool) -> None:
        """Mark it as failed by an exception."""
        kind = type(error).__name__
        event: dict[str, Value | None] = {"exception.type": kind}
        if texts:
            event["exception.message"] = str(error)
        self._span.add_event("exception", _there(event))
        self.wrong(kind)


def _there(attributes: Mapping[str, Value | None]) -> dict[str, Value]:
    return {name: value for name, value in attributes.items() if value is not None}
