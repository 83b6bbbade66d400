"""A point in time that a call must not miss, and what work is measured to cost until then.

Work that cannot be stopped once it has begun, such as a forward pass, stands in a `step`. A step is
measured, and under a deadline it is not begun where what was measured so far says that it would
end too late. What a call is timed by travels in a context variable, so that calls in different
threads cannot meet, and work outside of a call is neither measured nor held back.

Knows nothing of models; the clock is given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

#: Seconds since some moment, never going back.
Clock = Callable[[], float]

#: Of the time there is, what comes after the last step has this share, so many seconds at most.
_MARGIN, _MOST_MARGIN = 0.05, 0.005
#: Of the time that is left, what one piece of work may take where its size can be chosen.
_SHARE = 0.25
#: How fast an estimate comes down: where less is measured, this share of the difference.
_DOWN = 0.3
#: Where it keeps work from being begun, to this share: measured fewer times than often, or often.
_DOUBT_FIRST, _DOUBT, _OFTEN = 0.7, 0.95, 3
#: How the fewest seconds that were seen are forgotten meanwhile.
_FORGET = 0.99
#: A size from which one that is more powers of two larger cannot be told.
_FAR = 2
#: Of a much larger step's time, what even the smallest takes.
_FIXED = 1 / 64


class OutOfTime(Exception):
    """A step would end behind the deadline. Caught where what is known so far can be given."""


class Deadline:
    """When an answer is due.

    Args:
        milliseconds: from now on.
        clock: what time is read from.
        already: seconds of it that are gone.
    """

    def __init__(
        self, milliseconds: float, clock: Clock = time.perf_counter, already: float = 0.0
    ) -> None:
        self.milliseconds = milliseconds
        self.clock = clock
        self._started = clock() - already
        self._kept_back = min(_MARGIN * self.seconds, _MOST_MARGIN)
        #: Set by whoever answers in place of a call that is still under way.
        self.abandoned = False

    @property
    def seconds(self) -> float:
        """How long the call may take."""
        return self.milliseconds / 1000

    @property
    def elapsed(self) -> float:
        """Seconds since the call."""
        return self.clock() - self._started

    @property
    def until(self) -> float:
        """Seconds until the answer is due; below 0 behind it."""
        return self.seconds - self.elapsed

    @property
    def left(self) -> float:
        """Seconds for work: without what is kept back for the steps after it."""
        return self.until - self._kept_back

    @contextmanager
    def keep_back(self, seconds: float) -> Iterator[None]:
        """Inside the block there is so much less time for work."""
        self._kept_back += seconds
        try:
            yield
        finally:
            self._kept_back -= seconds


def begun(
    milliseconds: float | None, clock: Clock = time.perf_counter, already: float = 0.0
) -> Deadline | None:
    """A `Deadline` from now on; None for none."""
    return None if milliseconds is None else Deadline(milliseconds, clock, already)


@dataclass(frozen=True)
class _Measured:
    """Of steps of about one size: the last amount, seconds as estimated, the fewest seen, and how
    often it was measured."""

    amount: int
    seconds: float
    fewest: float
    times: int = 1


class Pace:
    """How long steps of each kind took, by their size: by powers of two.

    Estimates are careful: they rise at once and come down slowly. For a size that was never seen,
    they grow with the amount from the next smaller one, unless that is much smaller, and shrink
    less than with it from the next larger one: a part of what a step costs is the same for all.

    Safe under threads without a lock, which a forked process could find held for ever: entries are
    replaced as a whole, and where two threads do so at once, one measurement is lost.
    """

    def __init__(self) -> None:
        self._kinds: dict[Hashable, dict[int, _Measured]] = {}

    def note(self, kind: Hashable, amount: int, seconds: float) -> None:
        """A step of ``amount`` took so long."""
        sizes = self._kinds.setdefault(kind, {})
        size = amount.bit_length()
        known = sizes.get(size)
        if known is None:
            sizes[size] = _Measured(amount, seconds, seconds)
            return
        # As if both had been of the same amount.
        before = known.seconds * max(1.0, amount / known.amount)
        careful = max(seconds, before + _DOWN * (seconds - before))
        sizes[size] = _Measured(amount, careful, min(known.fewest, seconds), known.times + 1)

    def expect(self, kind: Hashable, amount: int) -> float | None:
        """Seconds that a step of ``amount`` may take; None if nothing like it was measured."""
        smaller, larger = self._around(kind, amount)
        found = []
        if larger is not None:
            ratio = amount / larger.amount
            found.append(larger.seconds * max(ratio, min(1.0, 2 * ratio + _FIXED)))
        if smaller is not None and amount.bit_length() - smaller.amount.bit_length() <= _FAR:
            found.append(smaller.seconds * amount / smaller.amount)
        if not found:
            return None
        return min(found) if smaller is None else max(min(found), smaller.seconds)

    def doubt(self, kind: Hashable, amount: int) -> None:
        """Lower an estimate that kept work from being begun, so that it is tried again some time.

        Else one slow moment, as the first one often is, would keep it from being tried for ever.
        Quickly if it was hardly measured; later not below what was seen, or very slowly.
        """
        for known in self._around(kind, amount):
            if known is None:
                continue
            fewest = known.fewest * _FORGET
            lower = known.seconds * (_DOUBT_FIRST if known.times < _OFTEN else _DOUBT)
            if known.times >= _OFTEN:
                lower = max(lower, fewest)
            changed = replace(known, seconds=lower, fewest=fewest)
            self._kinds[kind][known.amount.bit_length()] = changed

    def _around(self, kind: Hashable, amount: int) -> tuple[_Measured | None, _Measured | None]:
        """What was measured of the next smaller size, and of this one or the next larger one."""
        sizes = dict(self._kinds.get(kind, {}))
        size = amount.bit_length()
        if size in sizes:
            return None, sizes[size]
        smaller = [other for other in sizes if other < size]
        larger = [other for other in sizes if other > size]
        return (
            sizes[max(smaller)] if smaller else None,
            sizes[min(larger)] if larger else None,
        )


@dataclass
class Timing:
    """What the call at hand is timed by.

    Attributes:
        pace: what was measured so far of the work that it does.
        deadline: None: it has none, and is measured for those that have.
        clock: what time is read from.
        done: amount of finished steps of the innermost kind, to tell what was done of an outer one.
    """

    pace: Pace
    deadline: Deadline | None = None
    clock: Clock = time.perf_counter
    done: int = 0


_current: ContextVar[Timing | None] = ContextVar("icr_rag_timing", default=None)


@contextmanager
def timed(timing: Timing | None) -> Iterator[None]:
    """Time the work inside the block. None: it is neither measured nor held back, as loading."""
    token = _current.set(timing)
    try:
        yield
    finally:
        _current.reset(token)


def deadline() -> Deadline | None:
    """The deadline of the work at hand; None: there is none."""
    timing = _current.get()
    return None if timing is None else timing.deadline


@contextmanager
def step(kind: Hashable, amount: int, *, inner: bool = False) -> Iterator[None]:
    """One piece of work, measured; under a deadline it is begun only if it should end in time.

    Args:
        kind: work of one kind costs more the more there is of it.
        amount: how much there is; tokens, mostly.
        inner: whether it may be a part of another step, of about the same unit.

    Raises:
        OutOfTime: if it would end too late, or if a step inside it would.
    """
    timing = _current.get()
    if timing is None:
        yield
        return
    check(kind, amount)
    started, before = timing.clock(), timing.done
    try:
        yield
    except OutOfTime:
        # What was done until then tells how long the whole takes.
        if timing.done > before and not inner:
            timing.pace.note(kind, timing.done - before, timing.clock() - started)
        raise
    timing.pace.note(kind, amount, timing.clock() - started)
    if inner:
        timing.done += amount


def check(kind: Hashable, amount: int) -> None:
    """Raise `OutOfTime` if a step would not end in time."""
    timing = _current.get()
    if timing is None or timing.deadline is None:
        return
    left = timing.deadline.left
    expected = timing.pace.expect(kind, amount)
    if left <= 0:
        raise OutOfTime
    if expected is not None and expected > left:
        timing.pace.doubt(kind, amount)
        raise OutOfTime


def enough(kind: Hashable, amounts: Iterable[int]) -> bool:
    """Whether there is time for all of these steps; true where nothing is known of them."""
    timing = _current.get()
    if timing is None or timing.deadline is None:
        return True
    given = list(amounts)
    if sum(expected(kind, amount) for amount in given) <= timing.deadline.left:
        return True
    for amount in given:
        timing.pace.doubt(kind, amount)
    return False


def expected(kind: Hashable, amount: int) -> float:
    """Seconds that a step may take; 0 if nothing is known."""
    timing = _current.get()
    return 0.0 if timing is None else timing.pace.expect(kind, amount) or 0.0


def in_parts(kind: Hashable, most: int, unknown: int) -> int:
    """The largest amount of work to begin at once: under a deadline a part of what there is time
    for, so that little is lost where it is misjudged.

    Args:
        most: without a deadline.
        unknown: where nothing of its kind was measured yet.
    """
    timing = _current.get()
    if timing is None or timing.deadline is None:
        return most
    room = _SHARE * max(0.0, timing.deadline.left)
    amount = most
    while amount > 1:
        seconds = timing.pace.expect(kind, amount)
        if seconds is None and amount <= unknown:
            break
        if seconds is not None and seconds <= room:
            break
        amount //= 2
    return amount
