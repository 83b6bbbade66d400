"""The tool ``rerank`` of the MCP server: what it takes and gives, and what agents are told of it.

Knows nothing of the protocol, which is `icr_rag.server.mcp_app`'s.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from icr_rag.errors import InputError, brief
from icr_rag.server.call import RerankAnswer, RerankCall
from icr_rag.types import Document

NAME = "rerank"
TITLE = "Rank documents by relevance"

DESCRIPTION = (
    "Rank texts by how relevant they are to a query, with a language model that reads each of "
    "them. Use it after a search, when there are more candidates than you want to read: pass the "
    "candidates as `documents`, read the few that come first. Give a whole question as `query`. "
    "It only orders what it is given; it searches nothing, writes nothing, and the same call gives "
    "the same result. Results name documents by `index`, their place in the list that was given, "
    "and hold only the beginning of their text."
)

INSTRUCTIONS = (
    "icr_rag ranks candidate texts for a query. Search first with other tools, then pass what was "
    "found to `rerank` and go on with the best of it."
)

#: Characters of a text that a result repeats, so that a reader knows what it is.
SNIPPET = 160


class Text(BaseModel):
    """A document with a title or an id of its own."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(description="What is read and ranked.")
    title: str | None = Field(None, description="Read before the text.")
    id: str | None = Field(None, description="Comes back with the result; not read.")


class Arguments(BaseModel):
    """What the tool takes."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(description="The question or search that documents are ranked for.")
    documents: list[str | Text] = Field(
        description="The candidates, in any order: texts, or objects with text, title and id."
    )
    top_n: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Most results to return; left out: all."
    )
    instruction: str | None = Field(
        None,
        description="What makes a document relevant, as one sentence, where the query does not say "
        "it: 'Find the passage that contradicts the claim.'",
    )
    min_score: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        None, description="Leave out documents with a lower score."
    )


class Result(BaseModel):
    """One document, ranked."""

    index: int = Field(description="Its place in the list that was given, from 0.")
    score: float = Field(description="Higher is more relevant.")
    id: str | None = Field(description="As it was given.")
    snippet: str = Field(description="The beginning of its title and text, on one line.")


class Ranked(BaseModel):
    """What the tool gives."""

    results: list[Result] = Field(description="Best first.")
    model: str = Field(description="What ranked.")
    probability: bool = Field(
        description="Whether scores are probabilities of being relevant, from 0 to 1; otherwise "
        "they only say the order."
    )
    below_min_score: int = Field(description="Documents left out for their score.")
    beyond_top_n: int = Field(description="Documents left out by top_n.")
    cut: list[int] = Field(description="Indices of documents that were too long to be read whole.")
    note: str | None = Field(description="What is not as it should be with this ranking.")


def read_arguments(given: object, most: int) -> Arguments:
    """The arguments of a call.

    Args:
        given: what came. most: documents that are taken.

    Raises:
        InputError: in words that an agent can act on; texts that came are not repeated.
    """
    try:
        found = Arguments.model_validate(given)
    except ValidationError as error:
        problems = [_problem(item["loc"], item["msg"]) for item in error.errors()[:3]]
        raise InputError("; ".join(dict.fromkeys(problems))) from None
    if len(found.documents) > most:
        raise InputError(
            f"{len(found.documents)} documents are too many for one call; pass at most {most}"
        )
    return found


def as_call(arguments: Arguments) -> RerankCall:
    """What is asked of the model."""
    documents = tuple(
        Document(own) if isinstance(own, str) else Document(own.text, own.title, own.id)
        for own in arguments.documents
    )
    return RerankCall(arguments.query, documents, instruction=arguments.instruction)


def as_ranked(arguments: Arguments, call: RerankCall, answer: RerankAnswer) -> Ranked:
    """What is shown of an answer."""
    least, most = arguments.min_score, arguments.top_n
    kept = [place for place in answer.order if least is None or answer.scores[place] >= least]
    shown = kept if most is None else kept[:most]
    return Ranked(
        results=[
            Result(
                index=place,
                score=answer.scores[place],
                id=call.documents[place].id,
                snippet=_snippet(call.documents[place].content),
            )
            for place in shown
        ],
        model=answer.model,
        probability=answer.probability,
        below_min_score=len(answer.order) - len(kept),
        beyond_top_n=len(kept) - len(shown),
        cut=list(answer.truncated),
        note=answer.degraded,
    )


def _snippet(text: str) -> str:
    # Of a long document not all is looked at.
    return brief(" ".join(text[: 4 * SNIPPET].split()), SNIPPET)


def _problem(place: tuple[int | str, ...], message: str) -> str:
    # Names of the types that were tried are no part of what came.
    names = [str(part) for part in place if isinstance(part, int) or part not in ("str", "Text")]
    if len(names) == 2 and names[0] == "documents":
        return f"{'.'.join(names)}: a document is a text, or an object with 'text'"
    return f"{'.'.join(names) or 'arguments'}: {message}"
