"""What callers give, also as other libraries hold it. No such library is imported."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from numbers import Integral, Real
from typing import Protocol, runtime_checkable

from icr_rag.errors import InputError, shown
from icr_rag.types import Document, as_document


@runtime_checkable
class Array(Protocol):
    """A NumPy array, a torch tensor, a pandas Series: whatever tells its values to Python."""

    def tolist(self) -> object:
        """The values as Python numbers, in lists as deep as there are dimensions."""


#: Scores of the first stage: one number per document.
Scores = Sequence[float | None] | Array
#: What `rank` takes: one list of these, or several by name, as a hybrid retriever has them.
RetrievalScores = Scores | Mapping[str, Scores]

#: The name of one list of scores, which comes without any.
SCORES = "scores"
#: Names that no list of scores can have, and how none begins: other things that are weighed, and
#: the order of a list of scores, are told by these.
_RESERVED, _ORDER_OF = ("model", "order", "embedder"), "order of "


def check_columns(scores: RetrievalScores | None, count: int) -> dict[str, list[float | None]]:
    """First-stage scores by name, or an `InputError` that names the wrong one.

    Args:
        scores: one list, which is named `SCORES`, or a mapping name -> list.
        count: how many scores there must be in each.

    Returns:
        Per name one score per document: None where there is none (None, NaN or pandas' NA were
        given); may be infinite. Empty where there are no scores at all.
    """
    if scores is None:
        return {}
    if not isinstance(scores, Mapping):
        return {SCORES: _column(scores, count, "retrieval_scores")}
    for name in scores:
        named = isinstance(name, str) and name.strip() and not name.startswith(_ORDER_OF)
        if not named or name in _RESERVED:
            raise InputError(
                f"retrieval_scores has a list named {shown(name)}; allowed are names such as "
                f"'dense' and 'sparse', but none of {', '.join(map(repr, _RESERVED))}, and none "
                f"that begins with {_ORDER_OF!r}"
            )
    return {
        name: _column(values, count, f"retrieval_scores[{name!r}]")
        for name, values in scores.items()
    }


def only_column(scores: RetrievalScores | None, fusion: str) -> Scores | None:
    """The one list of scores that a fusion takes that weighs no more than one.

    Raises:
        InputError: if there are several.
    """
    if not isinstance(scores, Mapping):
        return scores
    if len(scores) > 1:
        raise InputError(
            f"retrieval_scores has {len(scores)} lists ({', '.join(map(repr, scores))}), and "
            f"fusion={fusion!r} takes one; give one of them, or set fusion='auto'"
        )
    return next(iter(scores.values()), None)


def _column(scores: object, count: int, name: str) -> list[float | None]:
    values = _listed(scores, count, name)
    return [_number(_plain(value), f"{name}[{at}]") for at, value in enumerate(values)]


def _number(value: object, name: str) -> float | None:
    """A number that may be infinite; None for one that lacks."""
    if _lacks(value):
        return None
    if isinstance(value, float) and math.isinf(value):
        return value
    number = _finite(value)
    if number is None:
        raise InputError(
            f"{name} is {shown(value)}; a score is a number, or None where there is none; set "
            "fusion='none' if scores do not count"
        )
    return number


def _listed(scores: object, count: int, name: str) -> Sequence[object]:
    """Scores as a sequence of the right length."""
    values = _plain(scores)
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        raise InputError(
            f"{name} is a {_kind(scores)}; give a list, an array or a tensor of one dimension, "
            f"with one number per document ({count}), in their order"
        )
    if len(values) != count:
        raise InputError(
            f"{name} has length {len(values)}; it must hold one number per document ({count}), in "
            "their order"
        )
    return values


def check_retrieval_scores(
    scores: object, count: int, may_lack_some: bool = False, unread: Collection[int] = ()
) -> list[float] | None:
    """First-stage scores as finite floats, or an `InputError` that names the wrong one.

    Args:
        count: how many there must be.
        may_lack_some: whether None or NaN may stand for a score; then there are none at all.
        unread: positions of documents that are not read; one that lacks there is 0, and counts
            nowhere.
    """
    if scores is None:
        return None
    values = [
        0.0 if place in unread and _lacks(_plain(value)) else value
        for place, value in enumerate(_listed(scores, count, "retrieval_scores"))
    ]
    if may_lack_some and any(_lacks(_plain(value)) for value in values):
        return None
    numbers = [_finite(_plain(value)) for value in values]
    for index, number in enumerate(numbers):
        if number is None:
            raise InputError(
                f"retrieval_scores[{index}] is {shown(values[index])}; a fusion needs a finite "
                "number for each document; set fusion='none' if scores do not count"
            )
    return [number for number in numbers if number is not None]


def check_top_n(top_n: object, default: int | None, name: str = "top_n") -> int | None:
    """How many hits a call asks for, ``default`` for None; an `InputError` for no such number."""
    return default if top_n is None else _whole_number(top_n, 0, name)


def check_deadline(milliseconds: object, default: float | None) -> float | None:
    """A call's deadline in milliseconds, ``default`` for None; None for infinity: there is none.

    Raises:
        InputError: for what is no number above 0.
    """
    if milliseconds is None:
        return default
    given = _plain(milliseconds)
    if isinstance(given, float) and given == math.inf:
        return None
    number = _finite(given)
    if number is None or number <= 0:
        raise InputError(
            f"deadline_ms={shown(milliseconds)}; allowed are milliseconds above 0, None (the "
            "setting's) and math.inf (none in this call)"
        )
    return number


def check_max_tokens(value: object, name: str = "max_tokens_per_doc") -> int | None:
    """How many tokens of a document a call reads at most; an `InputError` for no such number."""
    return None if value is None else _whole_number(value, 1, name)


def _whole_number(value: object, least: int, name: str) -> int:
    """A number of Python, NumPy or a tensor as an int, where None stands for all."""
    count = _plain(value)
    if isinstance(count, bool) or not isinstance(count, Integral) or count < least:
        raise InputError(
            f"{name}={shown(value)}; allowed are None (all) and whole numbers from {least}"
        )
    return int(count)


def _plain(value: object) -> object:
    """Scalars, arrays and tensors of other libraries as Python has them; others as they are."""
    return value.tolist() if isinstance(value, Array) else value


def _lacks(value: object) -> bool:
    """Whether this stands for a score that is not there: None, NaN, or pandas' NA."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or type(value).__name__ == "NAType"


def _kind(value: object) -> str:
    """The name of a type; of an array without dimensions, that it has none."""
    name = type(value).__name__
    return f"{name} of no dimension" if isinstance(value, Array) else name


def _finite(value: object) -> float | None:
    """A float; None for what is no real number, infinite, or too large for a float."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def check_query(query: object) -> None:
    """Raise `InputError` unless ``query`` is a string that is not blank."""
    if not isinstance(query, str):
        raise InputError(f"the query is a {type(query).__name__}; it must be a str")
    if not query.strip():
        raise InputError(f"the query is blank ({shown(query)}); give the question to rank for")


def wrong_instruction(instruction: str) -> str | None:
    """What is wrong with an instruction, of the settings or of a call; None if nothing is."""
    if instruction in ("retrieval", "question_answering") or len(instruction.split()) > 1:
        return None
    return "allowed are 'retrieval', 'question_answering' or a whole sentence"


def check_instruction(instruction: object) -> str | None:
    """A call's instruction; None: that of the settings. An `InputError` for what is none."""
    if instruction is None:
        return None
    if not isinstance(instruction, str):
        raise InputError(
            f"the instruction is a {type(instruction).__name__}; it must be a str, or None for "
            "that of the settings"
        )
    problem = wrong_instruction(instruction)
    if problem is not None:
        raise InputError(f"instruction={shown(instruction)}: {problem}")
    return instruction


def check_documents(documents: object) -> list[Document]:
    """The documents as `Document` objects, or an `InputError` that names the wrong one."""
    if isinstance(documents, (str, bytes)) or not isinstance(documents, Sequence):
        raise InputError(
            f"documents is a {type(documents).__name__}; give a list of str, Document or mappings"
        )
    return [as_document(document, index) for index, document in enumerate(documents)]
