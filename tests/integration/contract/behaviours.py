"""What well-kept re-ranking components do: each behaviour a function that takes a component.

It raises AssertionError when the behaviour does not hold, and `NotDefinedError` when the
component's framework does not define it. Any other exception is the component's own, and means
that the behaviour does not hold either.
"""

from __future__ import annotations

import asyncio
import copy
import pickle
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from components import PLENTY, Component, Hit, Item, NotDefinedError

QUERY = "Which metal melts first?"
ITEMS = (
    Item("n0", "Copper conducts heat well.", {"page": 3, "deep": {"list": [1, "two", None]}}),
    Item("n1", "Tin is the metal that melts first, at 232 degrees.", {"page": 4, "deep": {}}),
    Item("n2", "Lead is soft, and melts at 327 degrees.", {"page": 5, "tags": ["pb"]}),
    Item("n3", "Zinc.", {"page": 6}),
)


@dataclass(frozen=True)
class Behaviour:
    """One row of the contract."""

    name: str
    title: str
    check: Callable[[Component], None]


BEHAVIOURS: dict[str, Behaviour] = {}


def behaviour(title: str) -> Callable[[Callable[[Component], None]], Callable[[Component], None]]:
    """Add the function to the contract under its own name."""

    def register(check: Callable[[Component], None]) -> Callable[[Component], None]:
        BEHAVIOURS[check.__name__] = Behaviour(check.__name__, title, check)
        return check

    return register


def require(holds: bool, otherwise: str) -> None:
    """Raise with what happened instead. (Not ``assert``: the message goes into the page.)"""
    if not holds:
        raise AssertionError(otherwise)


def ask(
    component: Component,
    items: Sequence[Item] = ITEMS,
    query: Any = QUERY,
    top_n: int | None = PLENTY,
    subject: Any = None,
) -> list[Hit]:
    """One synchronous call on fresh documents, read back."""
    if subject is None:
        subject = component.make(top_n)
    return component.read(component.run(subject, component.documents(items), query), items)


def scored(component: Component) -> None:
    if not component.has_scores:
        raise NotDefinedError("returns no scores")


def error_of(call: Callable[[], Any]) -> Exception | None:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - which one is what the caller wants to know
        return error
    return None


def shown(error: Exception) -> str:
    """An exception's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else '(no message)'}"


# --- what comes in ----------------------------------------------------------------------------


@behaviour("An empty list gives an empty list")
def empty_list(component: Component) -> None:
    hits = ask(component, ())
    require(hits == [], f"{len(hits)} documents came back")


@behaviour("One document comes back")
def one_document(component: Component) -> None:
    hits = ask(component, ITEMS[:1])
    require([hit.id for hit in hits] == ["n0"], f"{len(hits)} documents came back")


@behaviour("Equal documents get one score, and ties keep their order")
def ties(component: Component) -> None:
    scored(component)
    items = [Item(f"n{i}", ITEMS[i % 2].text) for i in range(6)]
    hits = ask(component, items)
    require(len(hits) == 6, f"{len(hits)} of 6 documents came back")
    for text in (ITEMS[0].text, ITEMS[1].text):
        same = [hit for hit in hits if text in hit.text]
        scores = [hit.score for hit in same]
        # Batched arithmetic may differ in the last bits; those are no tie and no fault.
        require(max(scores) - min(scores) < 1e-4, f"equal documents got the scores {scores}")
        for score in set(scores):
            ids = [hit.id for hit in same if hit.score == score]
            require(ids == sorted(ids), f"ties came back in the order {', '.join(ids)}")


@behaviour("Different documents with one id all come back")
def duplicate_ids(component: Component) -> None:
    hits = ask(component, [Item("same", item.text) for item in ITEMS])
    require(len(hits) == 4, f"{len(hits)} of 4 documents came back")
    require(len({hit.text for hit in hits}) == 4, "one document came back more than once")


@behaviour("Blank documents are no error and come back")
def blank_text(component: Component) -> None:
    items = [Item("n0", ""), ITEMS[1], Item("n2", " \n\t"), ITEMS[3]]
    ids = sorted(hit.id for hit in ask(component, items))
    require(ids == ["n0", "n1", "n2", "n3"], f"only {', '.join(ids) or 'nothing'} came back")


@behaviour("`top_n=0` gives nothing, or is refused by name")
def top_n_zero(component: Component) -> None:
    _count(component, 0, 0)


@behaviour("`top_n=None` gives all, or is refused by name")
def top_n_none(component: Component) -> None:
    _count(component, None, 4)


@behaviour("`top_n` larger than the list gives all")
def top_n_larger(component: Component) -> None:
    hits = ask(component, top_n=7)
    require(len(hits) == 4, f"{len(hits)} of 4 documents came back")


@behaviour("`top_n` cuts the same ranking")
def top_n_cuts(component: Component) -> None:
    everything = [hit.id for hit in ask(component)]
    best = [hit.id for hit in ask(component, top_n=2)]
    require(best == everything[:2], f"{best} came back, but the whole ranking is {everything}")


def _count(component: Component, top_n: int | None, expected: int) -> None:
    hits: list[Hit] = []
    error = error_of(lambda: hits.extend(ask(component, top_n=top_n)))
    if error is None:
        require(len(hits) == expected, f"{len(hits)} documents came back")
    else:
        # pydantic has the field's name on the second line.
        require(bool(re.search(r"top_[nk]", str(error))), shown(error))


@behaviour("A query of None is an error that says so")
def query_none(component: Component) -> None:
    _refused(component, None)


@behaviour("A blank query is an error that says so")
def query_blank(component: Component) -> None:
    _refused(component, "  ")


def _refused(component: Component, query: Any) -> None:
    error = error_of(lambda: ask(component, query=query))
    require(error is not None, "no error: a ranking came back")
    assert error is not None
    require("query" in str(error).lower(), shown(error))


# --- what comes out ---------------------------------------------------------------------------


@behaviour("The documents given are not changed")
def no_mutation(component: Component) -> None:
    documents = component.documents(ITEMS)
    before = component.snapshot(documents)
    component.run(component.make(2), documents, QUERY)
    require(
        component.snapshot(documents) == before,
        "the documents given were changed" + _changed(before, component.snapshot(documents)),
    )


def _changed(before: Any, after: Any) -> str:
    """Which attribute of the first document changed, if that can be told."""
    old, new = vars(before[0]) if hasattr(before[0], "__dict__") else before[0], None
    new = vars(after[0]) if hasattr(after[0], "__dict__") else after[0]
    if not isinstance(old, dict):
        return ""
    names = sorted(name for name in old if old[name] != new.get(name))
    return f" ({', '.join(names)})" if names else ""


@behaviour("Ids stay with their texts")
def ids_kept(component: Component) -> None:
    texts = {item.id: item.text for item in ITEMS}
    hits = ask(component)
    require(sorted(hit.id for hit in hits) == sorted(texts), "ids were lost or changed")
    require(all(hit.text == texts[hit.id] for hit in hits), "ids came with other texts")


@behaviour("Metadata is kept")
def metadata_kept(component: Component) -> None:
    given = {item.id: item.metadata for item in ITEMS}
    for hit in ask(component):
        for key, value in given[hit.id].items():
            require(hit.metadata.get(key) == value, f"metadata[{key!r}] was lost or changed")


@behaviour("Scores are Python floats")
def scores_are_floats(component: Component) -> None:
    scored(component)
    kinds = {f"{type(hit.score).__module__}.{type(hit.score).__name__}" for hit in ask(component)}
    require(kinds == {"builtins.float"}, f"scores are {', '.join(sorted(kinds))}")


@behaviour("Scores never rise down the list")
def scores_non_increasing(component: Component) -> None:
    scored(component)
    scores = [hit.score for hit in ask(component)]
    require(scores == sorted(scores, reverse=True), f"scores are {scores}")


@behaviour("The result survives JSON")
def json_round_trip(component: Component) -> None:
    result = component.run(component.make(), component.documents(ITEMS), QUERY)
    expected = component.read(result, ITEMS)
    require(
        component.read(component.through_json(result), ITEMS) == expected,
        "the result after JSON is another one",
    )


@behaviour("The result survives msgpack (LangGraph's checkpoints)")
def msgpack_round_trip(component: Component) -> None:
    result = component.run(component.make(), component.documents(ITEMS), QUERY)
    expected = component.read(result, ITEMS)
    require(
        component.read(component.through_msgpack(result), ITEMS) == expected,
        "the result after msgpack is another one",
    )


# --- the component as an object ---------------------------------------------------------------


def _twin_ranks_alike(component: Component, twin_of: Callable[[Any], Any]) -> None:
    subject = component.make()
    expected = ask(component, subject=subject)
    twin = twin_of(subject)
    require(ask(component, subject=twin) == expected, "the copy ranks otherwise")
    require(ask(component, subject=subject) == expected, "the original ranks otherwise afterwards")


@behaviour("It can be pickled")
def pickles(component: Component) -> None:
    _twin_ranks_alike(component, lambda subject: pickle.loads(pickle.dumps(subject)))


@behaviour("It can be deep-copied")
def deepcopies(component: Component) -> None:
    _twin_ranks_alike(component, copy.deepcopy)


@behaviour("It comes back from its serialised settings (`to_dict`, JSON)")
def settings_round_trip(component: Component) -> None:
    _twin_ranks_alike(component, component.reconfigured)


# --- running ----------------------------------------------------------------------------------


async def _aask(component: Component, subject: Any) -> list[Hit]:
    result = await component.arun(subject, component.documents(ITEMS), QUERY)
    return component.read(result, ITEMS)


@behaviour("The asynchronous call gives the same")
def async_equals_sync(component: Component) -> None:
    subject = component.make()
    expected = ask(component, subject=subject)
    require(asyncio.run(_aask(component, subject)) == expected, "another ranking came back")


@behaviour("32 threads get what one gets")
def threads(component: Component) -> None:
    subject = component.make()
    expected = ask(component, subject=subject)
    with ThreadPoolExecutor(32) as pool:
        calls = [pool.submit(ask, component, subject=subject) for _ in range(32)]
    wrong = sum(call.result() != expected for call in calls)
    require(wrong == 0, f"{wrong} of 32 calls gave another ranking")


@behaviour("A cancelled call leaves it usable")
def cancellation(component: Component) -> None:
    subject = component.make()
    expected = ask(component, subject=subject)

    async def cancel_and_ask() -> list[Hit]:
        task = asyncio.ensure_future(_aask(component, subject))
        # One turn of the loop: the call runs until it first waits for something.
        await asyncio.sleep(0)
        task.cancel()
        # A call that never waited is done by now, and has its result.
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(outcome, asyncio.CancelledError):
            if isinstance(outcome, BaseException):
                raise outcome
            require(outcome == expected, "the cancelled call gave another ranking")
        return await _aask(component, subject)

    require(asyncio.run(cancel_and_ask()) == expected, "the next call gave another ranking")


@behaviour("Start and end events are sent in pairs")
def events_paired(component: Component) -> None:
    def calls(subject: Any, extra: dict[str, Any]) -> None:
        for items in (ITEMS, ()):
            documents = component.documents(items)
            component.run(subject, documents, QUERY, **extra)
            asyncio.run(_aevents(component, subject, documents, extra))

    starts, ends = component.events(component.make(), calls)
    require(bool(starts), f"no {component.start_event} was sent")
    require(sorted(starts) == sorted(ends), f"{len(starts)} start and {len(ends)} end events")


async def _aevents(
    component: Component, subject: Any, documents: list[Any], extra: dict[str, Any]
) -> None:
    await component.arun(subject, documents, QUERY, **extra)


@behaviour("Events are paired also when the call fails")
def events_paired_on_error(component: Component) -> None:
    subject = component.make()

    def good(subject: Any, extra: dict[str, Any]) -> None:
        component.run(subject, component.documents(ITEMS), QUERY, **extra)

    def bad(subject: Any, extra: dict[str, Any]) -> None:
        error_of(lambda: component.run(subject, component.documents(_SPOILT), QUERY, **extra))

    if not component.events(subject, good)[0]:
        raise NotDefinedError("sends no events")
    starts, ends = component.events(subject, bad)
    require(sorted(starts) == sorted(ends), f"{len(starts)} start and {len(ends)} end events")


#: The third of them has a text that is not a string, which no framework allows.
_SPOILT = (*ITEMS[:2], Item("spoilt-document", b"\xff Lead is soft.", {}), ITEMS[3])


@behaviour("A document whose text is not a string is an error that names it")
def failing_document(component: Component) -> None:
    error = error_of(lambda: ask(component, _SPOILT))
    require(error is not None, "no error: a ranking came back")
    assert error is not None
    named = re.search(r"spoilt-document|document 2\b|\[2\]", str(error))
    require(named is not None, shown(error))


@behaviour("After an error it works as before")
def usable_after_error(component: Component) -> None:
    subject = component.make()
    expected = ask(component, subject=subject)
    error_of(lambda: ask(component, _SPOILT, subject=subject))
    error_of(lambda: ask(component, query=None, subject=subject))
    require(ask(component, subject=subject) == expected, "the next call gave another ranking")
