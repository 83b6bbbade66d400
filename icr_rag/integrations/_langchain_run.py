"""A re-ranking as one LangChain run: named, nested under its caller, failures reported."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from langchain_core.documents import Document
from langchain_core.runnables import Runnable, RunnableLambda

from icr_rag.errors import InputError

Compress = Callable[[list[Document], str], list[Document]]
AsyncCompress = Callable[[list[Document], str], Awaitable[list[Document]]]


def as_run(
    name: str,
    compress: Compress,
    acompress: AsyncCompress,
    *,
    query_key: str = "query",
    documents_key: str = "documents",
    output_key: str | None = None,
) -> Runnable[Any, Any]:
    """A runnable that reads a query and documents from its input and re-ranks.

    Every call is a run of type "chain", which tracers show with the query, the candidates and
    what became of them. (A "retriever" run has only a query as input, and would be counted as a
    second retrieval.) LangChain's own runnable does the rest: it nests the run under the
    callbacks given or else under the runnable that is running, reports errors, and calls
    asynchronous handlers on the asynchronous path.

    Args:
        name: of the run.
        compress: re-ranks.
        acompress: the same without blocking the event loop.
        query_key: where the input, a mapping or an object, has the query.
        documents_key: where it has the documents.
        output_key: None: the runnable returns the documents; else a mapping with this one key, as
            a LangGraph node must.
    """

    def read(state: object) -> tuple[list[Document], str]:
        documents = _documents(_value(state, documents_key, name), name)
        return documents, _value(state, query_key, name)

    def result(documents: list[Document]) -> object:
        return documents if output_key is None else {output_key: documents}

    def invoke(state: object) -> object:
        return result(compress(*read(state)))

    async def ainvoke(state: object) -> object:
        return result(await acompress(*read(state)))

    return RunnableLambda(invoke, ainvoke, name)


def _value(state: object, key: str, name: str) -> Any:
    try:
        return state[key] if isinstance(state, Mapping) else getattr(state, key)
    except (KeyError, AttributeError):
        given = sorted(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
        raise InputError(
            f"{name} got an input without {key!r} ({given}); it takes a mapping with a query and "
            "documents, whose keys are query_key= and documents_key="
        ) from None


def _documents(documents: object, name: str) -> list[Document]:
    if isinstance(documents, (str, bytes, Mapping)) or not isinstance(documents, Iterable):
        raise InputError(
            f"{name} got a {type(documents).__name__} as documents; it takes a list of LangChain "
            "documents"
        )
    given = list(documents)
    for index, document in enumerate(given):
        if not isinstance(document, Document):
            raise InputError(
                f"{name} got a {type(document).__name__} as document {index}; allowed here are "
                "LangChain documents. rerank() also takes strings and mappings with 'text'"
            )
    return given
