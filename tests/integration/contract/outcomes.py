"""What a behaviour came to on a component: it holds, it fails in a way, or it is not defined."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from behaviours import BEHAVIOURS, Behaviour, shown
from components import Component, NotDefinedError

HOLDS, FAILS, NOT_DEFINED = "holds", "fails", "not defined"

_LONGEST = 160


class Outcome(NamedTuple):
    """``detail`` says what happened instead, or why the behaviour is not defined."""

    status: str
    detail: str = ""


def outcome(behaviour: Behaviour, component: Component) -> Outcome:
    """Try one behaviour. Never raises what the component raises."""
    if behaviour.name in component.not_defined:
        return Outcome(NOT_DEFINED, component.not_defined[behaviour.name])
    with _quiet(), _one_core_per_call():
        try:
            behaviour.check(component)
        except NotDefinedError as error:
            return Outcome(NOT_DEFINED, str(error))
        except AssertionError as error:
            return Outcome(FAILS, _clean(str(error), component) or "AssertionError, no message")
        except Exception as error:  # noqa: BLE001 - whatever a component raises is its outcome
            return Outcome(FAILS, _clean(shown(error), component))
    return Outcome(HOLDS)


def outcomes(component: Component) -> dict[str, Outcome]:
    """Every behaviour on one component."""
    return {name: outcome(behaviour, component) for name, behaviour in BEHAVIOURS.items()}


def _clean(text: str, component: Component) -> str:
    """Without what differs from run to run: folders, addresses; and of a length for a page."""
    text = text.replace(str(component.folders.root), "...")
    text = re.sub(r"0x[0-9a-f]{6,}", "0x...", " ".join(text.split()))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


@contextmanager
def _one_core_per_call() -> Iterator[None]:
    """Tiny models gain nothing from more, and 32 calls at once lose much."""
    torch = sys.modules.get("torch")
    before = 1 if torch is None else torch.get_num_threads()
    if torch is not None:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if torch is not None:
            torch.set_num_threads(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Warnings and logs of other libraries are no outcome."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
