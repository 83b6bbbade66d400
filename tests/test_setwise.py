"""Setwise: the best of small sets sorts the list, without a model."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_rag.errors import ConfigError, InputError
from icr_rag.frameworks.setwise import rank_setwise, setwise_calls

SORTS = ["heap", "bubble"]
KEYS = st.lists(st.integers(0, 9), max_size=40)
TOPS = st.none() | st.integers(0, 42)
SETTINGS = {"set_size": st.integers(2, 7), "sort": st.sampled_from(SORTS), "top": TOPS}


class ByKey:
    """A `Pick` that agrees with a hidden key; ties go to the earlier position."""

    def __init__(self, keys):
        self.keys, self.sets = keys, []

    def __call__(self, sets):
        self.sets.extend(tuple(items) for items in sets)
        return [
            max(range(len(items)), key=lambda place, items=items: (self.keys[items[place]], -place))
            for items in sets
        ]


@given(keys=KEYS, **SETTINGS, remember=st.booleans())
def test_a_consistent_pick_gives_the_stable_order(keys, set_size, sort, top, remember):
    pick = ByKey(keys)
    result = rank_setwise(len(keys), pick, set_size=set_size, sort=sort, top=top, remember=remember)
    everything = sorted(range(len(keys)), key=lambda item: -keys[item])
    best = everything[: len(keys) if top is None else top]
    assert result.order == best + [item for item in range(len(keys)) if item not in best]
    assert [result.scores[item] for item in result.order] == list(range(len(keys), 0, -1))
    assert result.groups == [0] * len(keys)
    formula = setwise_calls(len(keys), set_size=set_size, sort=sort, top=top)
    assert len(pick.sets) <= formula
    if sort == "bubble" and not remember:
        assert len(pick.sets) == formula
    if remember:
        assert len(set(pick.sets)) == len(pick.sets)
    assert all(2 <= len(items) <= set_size and sorted(items) == list(items) for items in pick.sets)


@given(count=st.integers(0, 40), **SETTINGS, seed=st.integers(0, 999), remember=st.booleans())
def test_a_pick_at_random_gives_a_permutation(count, set_size, sort, top, seed, remember):
    """It may even answer the same question differently the next time."""
    chance = random.Random(seed)
    asked = []

    def pick(sets):
        asked.extend(sets)
        return [chance.randrange(len(items)) for items in sets]

    result = rank_setwise(count, pick, set_size=set_size, sort=sort, top=top, remember=remember)
    assert sorted(result.order) == list(range(count))
    assert len(asked) <= setwise_calls(count, set_size=set_size, sort=sort, top=top)
    rest = result.order[count if top is None else top :]
    assert rest == sorted(rest)


@pytest.mark.parametrize("sort", SORTS)
def test_what_is_left_alone_is_not_asked_about(sort):
    def pick(sets):
        raise AssertionError(sets)

    for count, top in ((0, None), (1, None), (9, 0)):
        result = rank_setwise(count, pick, set_size=3, sort=sort, top=top)
        assert result.order == list(range(count))
        assert setwise_calls(count, set_size=3, sort=sort, top=top) == 0


def test_a_first_stage_that_is_right_is_confirmed_in_one_pass():
    """Windows that did not change are remembered; all later passes are free but for the top."""
    pick = ByKey(list(range(100, 0, -1)))
    rank_setwise(100, pick, set_size=2, sort="bubble", top=10)
    assert len(pick.sets) == 99
    again = ByKey(list(range(100, 0, -1)))
    rank_setwise(100, again, set_size=2, sort="bubble", top=10, remember=False)
    assert len(again.sets) == setwise_calls(100, set_size=2, sort="bubble", top=10) == 945


def test_sets_of_two_make_a_heap_of_pairs_and_no_chain():
    pick = ByKey(list(range(64)))
    result = rank_setwise(64, pick, set_size=2, top=5)
    assert result.order[:5] == [63, 62, 61, 60, 59]
    assert len(pick.sets) <= setwise_calls(64, set_size=2, top=5) < 64 * 3


def test_everything_fits_in_one_set():
    pick = ByKey([1, 3, 2])
    assert rank_setwise(3, pick, set_size=10, top=1).order == [1, 0, 2]
    assert pick.sets == [(0, 1, 2)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sort": "all_pairs"}, "sort='all_pairs': sets can be sorted by 'heap' or 'bubble'"),
        ({"set_size": 1}, "set_size=1: must be at least 2"),
        ({"top": -1}, "sort_top=-1: must be at least 0"),
    ],
)
def test_settings_that_are_not_allowed(settings, message):
    settings = {"set_size": 3, **settings}
    with pytest.raises(ConfigError, match=message):
        rank_setwise(5, ByKey([0] * 5), **settings)
    with pytest.raises(ConfigError, match=message):
        setwise_calls(5, **settings)


@pytest.mark.parametrize("sort", SORTS)
def test_a_wrong_answer_is_an_error(sort):
    with pytest.raises(InputError, match="position 3 for a set of 3"):
        rank_setwise(9, lambda sets: [3] * len(sets), set_size=3, sort=sort)
