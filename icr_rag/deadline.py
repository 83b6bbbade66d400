"""A point in time that a call must not miss, and what work is measured to cost until then.

Work that cannot be stopped once it has begun, such as a forward pass, stands in a `step`. A step is
measured, and under a deadline it is not begun where what was measured so far says that it would
end too late. What a call is timed by travels in a context variable, so that calls in different
threads cannot meet, and work outside of a call is neither measured nor held back.

Knows nothing of models; the clock is given.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

#: Seconds since some moment, never going back.
Clock = Callable[[], float]

#: Of the time there is, what comes after the last step has this share, so many seconds at most.
_MARGIN, _MOST_MARGIN = 0.05, 0.005
#: Of the time that is left, what one piece of work may take where its size can be chosen.
_SHARE = 0.25
#: How much longer a part may take for its amount than the whole.
_DEARER = 1.5
#: Of the time that is left, what a shortened list is meant to take: one that is not finished would
#: be lost, and in small passes it takes longer.
_PLANNED = 0.8
#: How many steps of a size are remembered, and as which share of them an estimate is.
_LATEST, _OFTEN_ENOUGH = 16, 0.8
#: How much longer larger steps may take for their amount than smaller ones.
_STEEP = 2.0
#: Where an estimate keeps work from being begun, to this share: measured fewer times than often, or
#: often; and again the first where it was so doubted that it is far from what was measured.
_DOUBT_FIRST, _DOUBT, _OFTEN, _BELIEVED = 0.7, 0.97, 3, 0.5
#: Of the smallest step that was measured, what an even smaller one takes in any case.
_FIXED = 1 / 8


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
        self._waited = 0.0
        self._waiting_since: float | None = None

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

    @property
    def waited(self) -> float:
        """Seconds of them that others were waited for, now included."""
        since = self._waiting_since
        return self._waited + (0.0 if since is None else self.clock() - since)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside the block others are waited for; such blocks do not stand in each other."""
        self._waiting_since = self.clock()
        try:
            yield
        finally:
            self._waited, self._waiting_since = self.waited, None

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
    """Steps of about one size.

    Attributes:
        latest: amounts and seconds of the latest ones.
        belief: by what their seconds are multiplied; below 1 where they kept work from being begun.
    """

    latest: tuple[tuple[int, float], ...]
    belief: float = 1.0

    @cached_property
    def amount(self) -> float:
        """The mean."""
        return sum(amount for amount, _ in self.latest) / len(self.latest)

    @cached_property
    def seconds(self) -> float:
        """That a step of the mean amount takes, as `_OFTEN_ENOUGH` of them did."""
        paces = sorted(seconds / amount for amount, seconds in self.latest)
        return self.amount * paces[math.ceil(_OFTEN_ENOUGH * len(paces)) - 1]


class Pace:
    """How long steps of each kind took, by their size: the latest few of each half power of two.

    An estimate is what most of the latest steps of its size took. Between two sizes it lies on a
    line, beyond the largest on the line that the largest two give, and below the smallest it
    shrinks less than with the amount: a part of what a step costs is the same for all.

    Safe under threads without a lock, which a forked process could find held for ever: entries are
    replaced as a whole, and where two threads do so at once, one measurement is lost.
    """

    def __init__(self) -> None:
        self._kinds: dict[Hashable, dict[int, _Measured]] = {}

    def note(self, kind: Hashable, amount: int, seconds: float) -> None:
        """A step of ``amount`` took so long."""
        sizes = self._kinds.setdefault(kind, {})
        size = _size(amount)
        latest = sizes[size].latest[1 - _LATEST :] if size in sizes else ()
        sizes[size] = _Measured((*latest, (max(1, amount), seconds)))

    def expect(self, kind: Hashable, amount: int) -> float | None:
        """Seconds that a step of ``amount`` may take; None if nothing of its kind was measured."""
        sizes = dict(self._kinds.get(kind, {}))
        known = [sizes[size] for size in sorted(sizes)]
        # What was slow, as first steps are, is known to be faster where more was ...
        fastest = [*accumulate((own.seconds for own in reversed(known)), min)][::-1]
        points: list[tuple[float, float]] = []
        for own, seconds in zip(known, fastest, strict=True):
            seconds *= own.belief
            if points:
                # ... or where less was, by far.
                before, low = points[-1]
                seconds = min(seconds, _STEEP * low * own.amount / before)
            points.append((own.amount, seconds))
        return _on_line(points, max(1, amount)) if points else None

    def doubt(self, kind: Hashable, amount: int) -> None:
        """Lower an estimate that kept work from being begun, so that it is tried again some time.

        Else one slow moment, as the first one often is, would keep it from being tried for ever.
        Quickly if it was hardly measured, or in vain for long. What is measured anew is believed.
        """
        sizes = self._kinds.get(kind, {})
        for size in _around(tuple(sizes), _size(amount)):
            known = sizes[size]
            few = len(known.latest) < _OFTEN
            share = _DOUBT_FIRST if few or known.belief < _BELIEVED else _DOUBT
            sizes[size] = replace(known, belief=known.belief * share)

    def trust(self, kind: Hashable, amount: int) -> None:
        """Believe an estimate again: work was begun against it, and did not end in time."""
        sizes = self._kinds.get(kind, {})
        for size in _around(tuple(sizes), _size(amount)):
            sizes[size] = replace(sizes[size], belief=1.0)


def _size(amount: int) -> int:
    """Amounts of one size differ by a factor of 1.4 at most."""
    return round(2 * math.log2(max(1, amount)))


def _around(sizes: Sequence[int], size: int) -> list[int]:
    """This size, or the next smaller and the next larger one, of those that there are."""
    if size in sizes:
        return [size]
    near = max((own for own in sizes if own < size), default=None)
    far = min((own for own in sizes if own > size), default=None)
    return [own for own in (near, far) if own is not None]


def _on_line(points: Sequence[tuple[float, float]], amount: float) -> float:
    """Seconds at an amount, by those of other amounts, ascending."""
    place = bisect_left(points, (amount, 0.0))
    if 0 < place < len(points):
        (before, low), (after, high) = points[place - 1], points[place]
        return low + (high - low) * (amount - before) / (after - before)
    nearest, seconds = points[0] if place == 0 else points[-1]
    plain = seconds * amount / nearest
    line = plain
    if len(points) > 1:
        (before, low), (after, high) = points[:2] if place == 0 else points[-2:]
        line = seconds + (high - low) * (amount - nearest) / (after - before)
    if place == 0:
        # At least by its share of the amount, and a part that is the same for all.
        return min(seconds, max(line, plain, _FIXED * seconds + (1 - _FIXED) * plain))
    # Two that were measured in unlike moments may give any line.
    return max(seconds, line, 0.5 * plain)


@dataclass
class Timing:
    """What the call at hand is timed by.

    Attributes:
        pace: what was measured so far of the work that it does.
        deadline: None: it has none, and is measured for those that have.
        clock: what time is read from.
        done: amount of finished steps of the innermost kind, to tell what was done of an outer one.
        apart: seconds of steps that outer ones do not count.
    """

    pace: Pace
    deadline: Deadline | None = None
    clock: Clock = time.perf_counter
    done: int = 0
    apart: float = 0.0


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
def step(
    kind: Hashable,
    amount: int,
    *,
    inner: bool = False,
    apart: bool = False,
    with_apart: bool = False,
) -> Iterator[None]:
    """One piece of work, measured; under a deadline it is begun only if it should end in time.

    Args:
        kind: work of one kind costs more the more there is of it.
        amount: how much there is; tokens, mostly.
        inner: whether it may be a part of another step, of about the same unit.
        apart: whether it may be in another step by chance, which is measured without it: what is
            done once, such as encoding, says nothing of how long the same takes again.
        with_apart: whether such steps count in this one.

    Raises:
        OutOfTime: if it would end too late, or if a step inside it would.
    """
    timing = _current.get()
    if timing is None:
        yield
        return
    check(kind, amount)
    started, before, aside = timing.clock(), timing.done, timing.apart

    def took() -> float:
        own = timing.clock() - started
        return own if with_apart else own - (timing.apart - aside)

    try:
        yield
    except OutOfTime:
        # What was done until then tells how long the whole takes.
        if not inner:
            timing.pace.trust(kind, amount)
            if timing.done > before:
                timing.pace.note(kind, timing.done - before, took())
        raise
    timing.pace.note(kind, amount, took())
    if inner:
        timing.done += amount
    if apart:
        timing.done = before
        timing.apart = aside + timing.clock() - started


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


def most(kind: Hashable, count: int, steps: Callable[[int], Iterable[int]]) -> int:
    """How many of the first ``count`` items there is time for; at least 1, and all where nothing is
    known of what they take.

    Args:
        steps: amounts of the steps that so many items take.
    """
    timing = _current.get()
    if timing is None or timing.deadline is None:
        return count
    left, pace = timing.deadline.left, timing.pace

    def fits(fewer: int, share: float = _PLANNED) -> bool:
        return sum(pace.expect(kind, amount) or 0.0 for amount in steps(fewer)) <= share * left

    if count < 2 or fits(count, 1.0):
        return count
    good, bad = 1, count
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    # Only the whole: of what fits it is learned anyway.
    for amount in {*steps(count)}:
        pace.doubt(kind, amount)
    return good


def expected(kind: Hashable, amount: int) -> float:
    """Seconds that a step may take; 0 if nothing is known."""
    timing = _current.get()
    return 0.0 if timing is None else timing.pace.expect(kind, amount) or 0.0


def in_parts(kind: Hashable, most: int, unknown: int) -> int:
    """The largest amount of work to begin at once: under a deadline a part of what there is time
    for, so that little is lost where it is misjudged; not so small that most of it is what any part
    takes.

    Args:
        most: without a deadline.
        unknown: where nothing of its kind was measured yet.
    """
    timing = _current.get()
    if timing is None or timing.deadline is None:
        return most
    left, pace = max(0.0, timing.deadline.left), timing.pace
    whole = pace.expect(kind, most)
    if whole is None:
        return min(most, unknown)
    amount, seconds = most, whole
    while amount > 1 and seconds > _SHARE * left:
        smaller = min(amount - 1, 3 * amount // 4)
        fewer = pace.expect(kind, smaller) or 0.0
        if seconds <= _PLANNED * left and fewer / smaller > _DEARER * whole / most:
            break
        amount, seconds = smaller, fewer
    return amount
