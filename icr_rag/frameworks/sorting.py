"""Sorting by "which of these is the best?": an n-ary heap and bubble sort, asked in batches.

A comparison is a model call, so that both sorts are arranged to ask for as few as possible, and
to ask together whatever does not depend on another answer. Neither asks a question twice unless
told to. Every set is asked in input order: a comparator that gives ties to the earlier item of
the set is then consistent, and the result is the stable descending order. Answers that contradict
each other still end in a permutation, after no more questions than any others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from icr_rag.deadline import OutOfTime
from icr_rag.errors import InputError

#: Takes sets of items, each in input order; returns for each the position in the set of its best.
Pick = Callable[[Sequence[Sequence[int]]], Sequence[int]]

#: Takes sets of items in any order; returns the best item of each.
Best = Callable[[Sequence[Sequence[int]]], list[int]]


class Unfinished(OutOfTime):
    """A sort that ran out of time. ``found``: the best items, best first, as far as it got."""

    def __init__(self, found: Sequence[int]) -> None:
        super().__init__(f"{len(found)} ranks were found")
        self.found = list(found)


def heap_order(count: int, best: Best, children: int, top: int) -> list[int]:
    """Sort items 0 to count - 1 by an n-ary heap: build it, then take its root ``top`` times.

    While it is built, all nodes of one level sink at the same time: their subtrees are apart.

    Args:
        count: how many items.
        best: the best item of each set; a set holds a node, then its children.
        children: children of a node, at least 2.
        top: how many ranks to sort out; the rest keep their input order.

    Raises:
        Unfinished: if ``best`` raised `OutOfTime`.
    """
    heap = list(range(count))
    levels = [range(min(1, count))]
    while levels[-1].stop < count:
        start = levels[-1].stop
        levels.append(range(start, min(count, start + len(levels[-1]) * children)))
    found: list[int] = []
    try:
        if top > 0:
            for level in reversed(levels):
                _sink(heap, level, best, children)
        while heap and len(found) < top:
            found.append(heap[0])
            heap[0] = heap[-1]
            heap.pop()
            if len(found) < top:
                _sink(heap, [0], best, children)
    except OutOfTime:
        # What was taken from the root is in its place for good.
        raise Unfinished(found) from None
    return found + sorted(set(range(count)) - set(found))


def _sink(heap: list[int], nodes: Sequence[int], best: Best, children: int) -> None:
    """Let each of these nodes sink until nothing below it is better; their subtrees are apart."""
    sinking = list(nodes)
    while True:
        families = [
            [node, *range(node * children + 1, min(len(heap), (node + 1) * children + 1))]
            for node in sinking
        ]
        families = [family for family in families if len(family) > 1]
        if not families:
            return
        sets = [[heap[place] for place in family] for family in families]
        sinking = []
        for family, winner in zip(families, best(sets), strict=True):
            node = family[0]
            place = next(place for place in family if heap[place] == winner)
            if place != node:
                heap[node], heap[place] = heap[place], heap[node]
                sinking.append(place)


def bubble_order(count: int, best: Best, set_size: int, top: int) -> list[int]:
    """Sort items 0 to count - 1 by windows that carry the best item from the bottom to the top.

    Pass p brings the item of rank p to its place. A window reaches one place into the one below
    it, so that pass p + 1 can follow two windows behind pass p and read what pass p has left for
    good: all passes under way are asked in one batch, with the answers of one after the other.

    Args:
        count: how many items.
        best: the best item of each set; a set holds a window.
        set_size: items in a window, at least 2; windows move up by set_size - 1.
        top: how many ranks to sort out; the rest keep their input order.

    Raises:
        Unfinished: if ``best`` raised `OutOfTime`.
    """
    order = list(range(count))
    step = set_size - 1
    windows = _windows_of_passes(count, set_size, top)
    rounds = max((number + 2 * p for p, number in enumerate(windows)), default=0)
    for turn in range(rounds):
        slices = []
        for p, number in enumerate(windows):
            window = turn - 2 * p
            if 0 <= window < number:
                end = count - window * step
                slices.append(slice(max(p, end - set_size), end))
        # Between the end of one pass and the next one's window there may be nothing to do.
        if not slices:
            continue
        try:
            winners = best([order[s] for s in slices])
        except OutOfTime:
            # Each pass that has come to its end has brought one item to its place.
            done = sum(number + 2 * p <= turn for p, number in enumerate(windows))
            raise Unfinished(order[:done]) from None
        for part, winner in zip(slices, winners, strict=True):
            order[part] = [winner, *(item for item in order[part] if item != winner)]
    return order[:top] + sorted(order[top:])


def heap_calls(count: int, set_size: int, top: int | None = None) -> int:
    """The most comparisons of `heap_order`: every item sinks to the ground.

    With d children (set_size - 1), as many nodes have something h levels below them as there are
    i with i d^h + (d^h - 1) / (d - 1) < count; they may take h comparisons each while the heap is
    built. Every rank but the last takes at most the height of what is left. Sets of two make a
    heap of two children, with two comparisons for each of those.
    """
    children, each = (2, 2) if set_size == 2 else (set_size - 1, 1)
    ranks = count if top is None else min(top, count)
    if ranks == 0:
        return 0
    total = 0
    power, first = children, 1  # d^h, and the first node h levels below the root
    while first < count:
        total += -((first - count) // power)
        first += power
        power *= children
    return each * (total + sum(_height(count - taken, children) for taken in range(1, ranks)))


def bubble_calls(count: int, set_size: int, top: int | None = None) -> int:
    """The comparisons of `bubble_order`: (count - p - 1) / (set_size - 1), rounded up, in pass p.

    Exact if repeated questions are asked again; the most there can be if they are not.
    """
    return sum(_windows_of_passes(count, set_size, count if top is None else top))


def _height(count: int, children: int) -> int:
    """Levels of a heap of ``count`` items, less one."""
    height, first, power = 0, 1, children
    while first < count:
        height += 1
        first += power
        power *= children
    return height


def _windows_of_passes(count: int, set_size: int, top: int) -> list[int]:
    """How many windows each pass of a bubble sort has; the last item needs no pass."""
    return [-((p + 1 - count) // (set_size - 1)) for p in range(min(top, count - 1))]


def best_by(pick: Pick, remember: bool) -> Best:
    """Ask ``pick`` about sets in input order, and check its answers.

    Args:
        pick: gets only what has to be asked, and is not called for nothing.
        remember: ask about no set twice.

    Raises:
        InputError: (the returned function) for an answer that is no position in its set.
    """
    known: dict[tuple[int, ...], int] = {}

    def best(sets: Sequence[Sequence[int]]) -> list[int]:
        asked = [tuple(sorted(items)) for items in sets]
        # Sets asked together share no item, so that none is in the batch twice.
        new = [items for items in asked if items not in known]
        picks = pick([list(items) for items in new]) if new else []
        if len(picks) != len(new):
            raise InputError(
                f"the comparison returned {len(picks)} answers for {len(new)} sets; it must "
                "return one position for each set"
            )
        for items, position in zip(new, picks, strict=True):
            if not 0 <= position < len(items):
                raise InputError(
                    f"the comparison returned position {position} for a set of {len(items)}; "
                    f"allowed are 0 to {len(items) - 1}"
                )
            known[items] = items[position]
        answers = [known[items] for items in asked]
        if not remember:
            known.clear()
        return answers

    return best


def best_by_pairs(best_of_pairs: Best) -> Best:
    """The best of sets of two or three by comparing pairs: the last two, then with the first.

    So that in a heap the children meet before their parent: they often meet again, under another
    parent, and an answer that is remembered costs nothing.
    """

    def best(sets: Sequence[Sequence[int]]) -> list[int]:
        threes = [items[1:] for items in sets if len(items) == 3]
        winners = iter(best_of_pairs(threes) if threes else [])
        return best_of_pairs(
            [[items[0], next(winners) if len(items) == 3 else items[1]] for items in sets]
        )

    return best
