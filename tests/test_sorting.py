"""The sorts themselves: rounds, batches and the formulas, against plain sequential sorts."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_rag.errors import InputError
from icr_rag.frameworks.result import from_order
from icr_rag.frameworks.sorting import (
    best_by,
    best_by_pairs,
    bubble_calls,
    bubble_order,
    heap_calls,
    heap_order,
)


def whim(items, seed):
    """A best item that only depends on the set: no key in the world agrees with it."""
    return random.Random(f"{seed} {sorted(items)}").choice(sorted(items))


class Asked:
    """A `Best` that notes its batches."""

    def __init__(self, best):
        self.best, self.batches = best, []

    def __call__(self, sets):
        self.batches.append([list(items) for items in sets])
        return [self.best(items) for items in sets]

    @property
    def count(self):
        return sum(len(batch) for batch in self.batches)


def bubble_one_by_one(count, best, set_size, top):
    """The published procedure: one pass after the other, one window after the other."""
    order = list(range(count))
    for place in range(min(top, count)):
        end = count
        while end - place > 1:
            start = max(place, end - set_size)
            winner = best(order[start:end])
            order.remove(winner)
            order.insert(start, winner)
            end = start + 1
    return order[:top] + sorted(order[top:])


def heap_one_by_one(count, best, children, top):
    """A textbook n-ary heap: one node after the other, from the last parent up."""
    heap = list(range(count))

    def sink(node):
        below = range(children * node + 1, min(children * node + children + 1, len(heap)))
        if below:
            place = heap.index(best([heap[p] for p in (node, *below)]))
            heap[node], heap[place] = heap[place], heap[node]
            if place != node:
                sink(place)

    if top:
        for node in reversed(range(count)):
            sink(node)
    taken = []
    while heap and len(taken) < top:
        heap[0], heap[-1] = heap[-1], heap[0]
        taken.append(heap.pop())
        if heap and len(taken) < top:
            sink(0)
    return taken + sorted(heap)


SIZES = {"count": st.integers(0, 40), "set_size": st.integers(2, 7), "top": st.integers(0, 42)}


@given(**SIZES, seed=st.integers(0, 99))
def test_bubble_passes_under_way_together_change_nothing(count, set_size, top, seed):
    """Even where answers contradict each other, batches give what one by one gives."""
    asked = Asked(lambda items: whim(items, seed))
    order = bubble_order(count, asked, set_size, top)
    alone = Asked(lambda items: whim(items, seed))
    assert order == bubble_one_by_one(count, lambda items: alone([items])[0], set_size, top)
    assert sorted(order) == list(range(count))
    assert asked.count == alone.count == bubble_calls(count, set_size, top)
    # The same questions, in another order.
    assert Counter(tuple(i) for b in asked.batches for i in b) == Counter(
        tuple(i) for b in alone.batches for i in b
    )
    _sets_are_fit_to_ask(asked, set_size)


@given(**SIZES, seed=st.integers(0, 99))
def test_heap_nodes_that_sink_together_change_nothing(count, set_size, top, seed):
    children = max(2, set_size - 1)
    asked = Asked(lambda items: whim(items, seed))
    order = heap_order(count, asked, children, top)
    alone = Asked(lambda items: whim(items, seed))
    assert order == heap_one_by_one(count, lambda items: alone([items])[0], children, top)
    assert sorted(order) == list(range(count))
    assert asked.count == alone.count <= heap_calls(count, children + 1, top)
    _sets_are_fit_to_ask(asked, children + 1)


def _sets_are_fit_to_ask(asked, set_size):
    for batch in asked.batches:
        items = [item for items in batch for item in items]
        assert batch
        assert len(items) == len(set(items)), "the sets of a batch share an item"
        assert all(2 <= len(items) <= set_size for items in batch)


def test_batches_are_few():
    """Depth instead of number: what need not wait does not."""
    asked = Asked(min)
    bubble_order(100, asked, set_size=4, top=10)
    # The first pass has 33 windows; each other starts two windows later, and the tenth has 30.
    assert asked.count == bubble_calls(100, 4, 10) == 318
    assert len(asked.batches) == 9 * 2 + 30
    asked = Asked(min)
    heap_order(85, asked, children=4, top=1)
    # 1 + 4 + 16 + 64 nodes, all in place already: one batch for each level of parents.
    assert [len(batch) for batch in asked.batches] == [16, 4, 1]


@pytest.mark.parametrize("set_size", range(3, 8))
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 8, 9, 21, 40, 85])
def test_the_heap_bound_is_what_sinking_to_the_ground_takes(count, set_size):
    """A plain count over all nodes, beside the formula."""
    children = set_size - 1

    def height(node, size):
        levels = 0
        while children * node + 1 < size:
            node, levels = children * node + 1, levels + 1
        return levels

    building = sum(height(node, count) for node in range(count))
    for top in (0, 1, 3, count):
        ranks = min(top, count)
        taking = sum(height(0, count - taken) for taken in range(1, ranks))
        assert heap_calls(count, set_size, top) == (building + taking if ranks else 0)
    assert heap_calls(count, set_size) == heap_calls(count, set_size, count)


@given(st.integers(2, 60), st.integers(3, 6))
def test_the_heap_bound_is_reached_while_it_is_built(count, set_size):
    """Reversed input makes every node of the heap sink to the ground."""
    asked = Asked(max)
    heap_order(count, asked, set_size - 1, top=1)
    assert asked.count <= heap_calls(count, set_size, 1)
    full = sum((set_size - 1) ** level for level in range(3))
    asked = Asked(max)
    heap_order(full, asked, set_size - 1, top=1)
    assert asked.count == heap_calls(full, set_size, 1)


def test_bubble_calls_by_hand():
    assert bubble_calls(100, 20, 1) == 6  # 99 steps of 19
    assert bubble_calls(4, 2) == 3 + 2 + 1
    assert bubble_calls(5, 3) == 2 + 2 + 1 + 1
    assert bubble_calls(5, 3, 2) == 4
    assert [bubble_calls(n, 3) for n in (0, 1, 2)] == [0, 0, 1]


@given(st.integers(0, 40), st.integers(0, 42), st.integers(0, 99), st.booleans())
def test_families_by_pairs(count, top, seed, remember):
    """Pairs that agree with a key find the best of three; siblings meet first."""
    asked = []

    def pick(pairs):
        asked.extend(pairs)
        return [0 if whim(pair, seed) == pair[0] else 1 for pair in pairs]

    order = heap_order(count, best_by_pairs(best_by(pick, remember)), 2, top)
    assert sorted(order) == list(range(count))
    assert all(len(pair) == 2 and pair == sorted(pair) for pair in asked)
    assert len(asked) <= heap_calls(count, 2, top)
    if remember:
        assert len({tuple(pair) for pair in asked}) == len(asked)


def test_pairs_of_a_family_in_order():
    batches = []

    def best(sets):
        batches.append([list(items) for items in sets])
        return [max(items) for items in sets]

    assert best_by_pairs(best)([[5, 7, 3], [4, 1]]) == [7, 4]
    assert batches == [[[7, 3]], [[5, 7], [4, 1]]]
    batches.clear()
    assert best_by_pairs(best)([[4, 1]]) == [4]
    assert batches == [[[4, 1]]]


def test_sets_are_asked_in_input_order_and_once():
    batches = []

    def pick(sets):
        batches.append(sets)
        return [len(items) - 1 for items in sets]

    best = best_by(pick, remember=True)
    assert best([[3, 1, 2], [5, 0]]) == [3, 5]
    assert best([[2, 3, 1], [4, 1]]) == [3, 4]
    assert best([[0, 5]]) == [5]
    assert batches == [[[1, 2, 3], [0, 5]], [[1, 4]]]
    batches.clear()
    best = best_by(pick, remember=False)
    assert best([[1, 0]]) == best([[0, 1]]) == [1]
    assert batches == [[[0, 1]], [[0, 1]]]


@pytest.mark.parametrize("position", [-1, 2, 7])
def test_an_answer_that_is_no_position(position):
    with pytest.raises(InputError, match=f"position {position} for a set of 2; allowed are 0 to 1"):
        best_by(lambda sets: [position], remember=True)([[0, 1]])


def test_an_answer_for_each_set():
    with pytest.raises(InputError, match="1 answers for 2 sets"):
        best_by(lambda sets: [0], remember=True)([[0, 1], [2, 3]])


def test_scores_that_only_say_the_order():
    result = from_order([2, 0, 1])
    assert (result.order, result.scores, result.groups) == ([2, 0, 1], [2.0, 1.0, 3.0], [0, 0, 0])
