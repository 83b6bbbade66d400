"""What shared passes are made of: even groups, tails in the same columns, costs shared out."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_document_states import reranker
from test_pairs import LIKELIHOOD, QUERIES, STATES, batches, close

from icr_rag.model.columns import tail_columns
from icr_rag.model.groups import alike, even_groups
from icr_rag.model.runner import BatchResult
from icr_rag.prompts.layout import Tail

__all__ = ["batches"]


def greedy(order, bodies, tails, room):
    """Filled to the brim, measured by the widest of those that are left."""
    groups = []
    left = list(order)
    while left:
        width = max(bodies[n] for n in left) + max(tails[n] for n in left)
        most = max(1, room // max(1, width))
        groups.append(left[:most])
        left = left[most:]
    return groups


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=40), st.integers(1, 300)
)
def test_groups_are_even_and_no_more_than_filled_ones(sizes, room):
    bodies, tails = [a for a, _ in sizes], [b for _, b in sizes]
    order = sorted(range(len(sizes)), key=lambda n: (-bodies[n], -tails[n]))
    found = even_groups(order, bodies, tails, room)
    assert [n for group in found for n in group] == order
    assert len(found) == len(greedy(order, bodies, tails, room))
    for group in found:
        width = max(bodies[n] for n in group) + max(tails[n] for n in group)
        assert len(group) == 1 or len(group) * width <= room
    if len(set(sizes)) == 1:
        assert max(map(len, found)) - min(map(len, found)) <= 1


@given(st.lists(st.integers(0, 60), max_size=40), st.integers(0, 100))
def test_runs_waste_little_and_end_only_where_more_would_be_wasted(lengths, waste):
    order = sorted(range(len(lengths)), key=lambda n: -lengths[n])
    runs = alike(order, lengths, waste)
    assert [n for run in runs for n in run] == order

    def wasted(run):
        return sum(lengths[run[0]] - lengths[n] for n in run)

    assert all(wasted(run) <= waste for run in runs)
    for run, after in itertools.pairwise(runs):
        assert wasted([*run, after[0]]) > waste


def test_twenty_are_ten_and_ten():
    assert [len(own) for own in even_groups(range(20), [100] * 20, [10] * 20, 19 * 110)] == [10, 10]


@pytest.mark.parametrize("states", STATES)
def test_even_groups_give_the_same_scores(states, batches):
    documents = [f"number {n} of {'many ' * (n % 3)}" for n in range(20)]
    plain = reranker(**LIKELIHOOD, **STATES[states]).rank(QUERIES[0], documents)
    batches.clear()
    fields = {**LIKELIHOOD, **STATES[states], "prefill_chunk": 1000}
    if states != "cold":
        fields["prefill_chunk"] = 250
    found = reranker(**fields).rank(QUERIES[0], documents)
    assert len(batches) > 1
    assert min(batches) > 1
    assert close(found.scores, plain.scores)


def test_tails_stand_in_the_same_columns():
    null = Tail([7], slice(0, 1))
    tails = [[Tail([1, 2, 3], slice(0, 3)), null], [Tail([], slice(0, 0)), null]]
    columns = tail_columns(tails, 5)
    assert [(tail.start, tail.length) for tail in columns.packed] == [(5, 3), (8, 1)]
    assert columns.packed[0].rows_of(0) == slice(5, 8)
    assert columns.packed[0].rows_of(1) == slice(5, 5)
    assert columns.packed[1].rows_of(1) == slice(8, 9)
    assert columns.token_ids == [[1, 2, 3, 7], [0, 0, 0, 7]]
    assert columns.places == [[0, 1, 2, 0], [-1, -1, -1, 0]]


@given(
    st.lists(st.lists(st.integers(0, 50), max_size=4), min_size=1, max_size=6), st.integers(0, 9)
)
def test_tokens_are_shared_out_and_none_is_lost(lists, head):
    own = [tokens for tokens_of in lists for tokens in tokens_of]
    outputs = [torch.tensor(float(n)) for n in range(len(own))]
    result = BatchResult([], outputs, head + sum(own), own)
    parts = result.of_lists(list(map(len, lists)))
    assert sum(part.tokens for part in parts) == result.tokens
    assert [part.own_tokens for part in parts] == lists
    assert [value for part in parts for value in part.outputs] == outputs
    heads = [part.tokens - sum(part.own_tokens) for part in parts]
    assert max(heads) - min(heads) <= 1
    assert math.isclose(sum(heads), head)
