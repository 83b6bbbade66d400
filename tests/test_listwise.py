"""Sliding windows, without a model."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_rag.errors import InputError, NonFiniteScoreError
from icr_rag.frameworks.listwise import rank_listwise


def always(items):
    return True


@given(
    quality=st.lists(st.integers(0, 9), max_size=40),
    window=st.none() | st.integers(2, 12),
    stride=st.none() | st.integers(1, 11),
    budget=st.integers(20, 60),
    data=st.data(),
)
def test_any_list_is_ranked_once_in_windows_that_fit(quality, window, stride, budget, data):
    sizes = data.draw(st.lists(st.integers(1, 10), min_size=len(quality), max_size=len(quality)))
    calls = []

    def fits(items):
        return sum(sizes[item] for item in items) <= budget

    def score(items):
        calls.append(list(items))
        return [float(quality[item]) for item in items]

    if window is not None and stride is not None and stride >= window:
        stride = window - 1
    result = rank_listwise(len(quality), score, fits, window, stride)
    assert sorted(result.order) == list(range(len(quality)))
    assert {item for call in calls for item in call} == set(range(len(quality)))
    for number, call in enumerate(calls):
        assert fits(call)
        assert window is None or len(call) <= window
        for item in call:
            assert result.groups[item] >= number
    # The best item wins every window it is in, and so reaches the top.
    if quality:
        assert quality[result.order[0]] == max(quality)
    # Scores of one group stand in descending order.
    for group in set(result.groups):
        members = [item for item in result.order if result.groups[item] == group]
        assert [result.scores[m] for m in members] == sorted(
            (result.scores[m] for m in members), reverse=True
        )


def test_one_window_is_a_stable_sort():
    result = rank_listwise(5, lambda items: [1.0, 3.0, 1.0, 3.0, 2.0], always)
    assert result.order == [1, 3, 4, 0, 2]
    assert set(result.groups) == {0}


def test_windows_are_those_of_the_paper():
    """100 candidates, 20 wide, step 10: nine windows from the bottom."""
    calls = []

    def score(items):
        calls.append(items[:])
        return [0.0] * len(items)

    rank_listwise(100, score, always, window=20, stride=10)
    assert calls == [list(range(start, start + 20)) for start in range(80, -1, -10)]


def test_a_good_document_at_the_end_travels_to_the_top():
    result = rank_listwise(
        30, lambda items: [float(i == 29) for i in items], always, window=4, stride=2
    )
    assert result.order[0] == 29


def test_uneven_end_and_no_items():
    calls = []

    def score(items):
        calls.append(len(items))
        return [0.0] * len(items)

    rank_listwise(25, score, always, window=20, stride=10)
    assert calls == [20, 15]
    assert rank_listwise(0, score, always).order == []


@pytest.mark.parametrize("count", [2, 3, 50])
def test_windows_of_two_are_a_pass_of_bubble_sort(count):
    calls = []

    def score(items):
        calls.append(len(items))
        return [float(item) for item in items]

    result = rank_listwise(count, score, always, window=2)
    assert calls == [2] * (count - 1)
    assert result.order[0] == count - 1


@given(
    quality=st.lists(st.integers(0, 9), max_size=25),
    window=st.none() | st.integers(2, 12),
    stride=st.none() | st.integers(1, 11),
    budget=st.integers(10, 30),
    data=st.data(),
)
def test_it_ends_also_where_two_neighbours_do_not_fit(quality, window, stride, budget, data):
    count = len(quality)
    sizes = data.draw(st.lists(st.integers(1, 10), min_size=count, max_size=count))
    calls = []

    def fits(items):
        return sum(sizes[item] for item in items) <= budget

    def score(items):
        calls.append(list(items))
        # Each window takes in an item that no window has seen: there are no more than items.
        assert len(calls) <= count
        return [float(quality[item]) for item in items]

    result = rank_listwise(count, score, fits, window, stride)
    assert sorted(result.order) == list(range(count))
    assert {item for call in calls for item in call} == set(range(count))
    assert all(fits(call) for call in calls)
    along = [result.scores[item] for item in result.order]
    assert along == sorted(along, reverse=True)


@pytest.mark.parametrize(
    ("scores", "error", "said"),
    [
        ([1.0], InputError, "returned 1 scores for 2 documents"),
        ([1.0, 2.0, 3.0], InputError, "returned 3 scores for 2 documents"),
        ([1.0, math.nan], NonFiniteScoreError, "a score is nan"),
        ([math.inf, 1.0], NonFiniteScoreError, "a score is inf"),
    ],
)
def test_what_a_window_gives_is_checked(scores, error, said):
    with pytest.raises(error, match=said):
        rank_listwise(2, lambda items: scores, lambda items: True)
