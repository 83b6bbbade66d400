"""Pairwise: all pairs and sorts by pairs, without a model."""

from __future__ import annotations

import math
import random
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_rag.errors import ConfigError, InputError, NonFiniteScoreError
from icr_rag.frameworks.pairwise import all_pairs_calls, pairwise_calls, rank_pairwise

SORTS = ["heap", "bubble", "all_pairs"]
KEYS = st.lists(st.integers(0, 9), max_size=30)
TOPS = st.none() | st.integers(0, 32)


class ByKey:
    """A `Prefer` that agrees with a hidden key, by a margin of 1 or by the difference."""

    def __init__(self, keys, sign=True):
        self.keys, self.sign, self.calls = keys, sign, []

    def __call__(self, pairs):
        self.calls.append(list(pairs))
        margins = [float(self.keys[a] - self.keys[b]) for a, b in pairs]
        if self.sign:
            return [math.copysign(1.0, m) if m != 0 else 0.0 for m in margins]
        return margins

    @property
    def pairs(self):
        return [pair for call in self.calls for pair in call]


@given(keys=KEYS, sort=st.sampled_from(SORTS), top=TOPS, remember=st.booleans(), sign=st.booleans())
def test_a_consistent_preference_gives_the_stable_order(keys, sort, top, remember, sign):
    prefer = ByKey(keys, sign)
    result = rank_pairwise(len(keys), prefer, sort=sort, top=top, remember=remember)
    everything = sorted(range(len(keys)), key=lambda item: -keys[item])
    best = everything[: len(keys) if top is None or sort == "all_pairs" else top]
    assert result.order == best + [item for item in range(len(keys)) if item not in best]
    assert result.groups == [0] * len(keys)
    if sort != "all_pairs":
        assert [result.scores[item] for item in result.order] == list(range(len(keys), 0, -1))
    formula = pairwise_calls(len(keys), sort=sort, top=top)
    assert len(prefer.pairs) <= formula
    if sort == "all_pairs" or (sort == "bubble" and not remember):
        assert len(prefer.pairs) == formula
    if remember:
        assert len(set(prefer.pairs)) == len(prefer.pairs)
    assert all(a < b for a, b in prefer.pairs)


@given(
    count=st.integers(0, 30),
    sort=st.sampled_from(SORTS),
    top=TOPS,
    seed=st.integers(0, 999),
    remember=st.booleans(),
)
def test_a_preference_at_random_gives_a_permutation(count, sort, top, seed, remember):
    chance = random.Random(seed)
    asked = []

    def prefer(pairs):
        asked.extend(pairs)
        return [chance.choice([-1.0, 0.0, 2.5]) for _ in pairs]

    result = rank_pairwise(count, prefer, sort=sort, top=top, remember=remember)
    assert sorted(result.order) == list(range(count))
    assert len(asked) <= pairwise_calls(count, sort=sort, top=top)
    scores = [result.scores[item] for item in result.order]
    assert scores == sorted(scores, reverse=True)


@given(st.integers(0, 20), st.integers(0, 999))
def test_all_pairs_is_one_batch_of_each_pair_once(count, seed):
    chance = random.Random(seed)
    margin = {pair: chance.uniform(-1, 1) for pair in combinations(range(count), 2)}
    calls = []

    def prefer(pairs):
        calls.append(pairs)
        return [margin[pair] for pair in pairs]

    result = rank_pairwise(count, prefer, sort="all_pairs")
    assert calls == ([list(margin)] if margin else [])
    assert len(margin) == all_pairs_calls(count)
    for item in range(count):
        others = [
            margin[item, other] if item < other else -margin[other, item]
            for other in range(count)
            if other != item
        ]
        mean = sum(others) / len(others) if others else 0.0
        assert result.scores[item] == pytest.approx(mean, abs=1e-12)


def test_margins_that_differ_by_rounding_alone_do_not_break_a_tie():
    """Items 0 and 3 both win by 0.1, 0.2 and 0.3, but in another order."""
    margin = dict.fromkeys(combinations(range(5), 2), 0.0)
    margin.update({(0, 1): 0.1, (0, 2): 0.2, (0, 4): 0.3})
    margin.update({(1, 3): -0.3, (2, 3): -0.2, (3, 4): 0.1})
    assert 0.1 + 0.2 + 0.3 != 0.3 + 0.2 + 0.1
    result = rank_pairwise(5, lambda pairs: [margin[pair] for pair in pairs], sort="all_pairs")
    assert result.scores[0] == result.scores[3]
    assert result.order[:2] == [0, 3]


def test_sorts_use_the_sign_alone():
    result = rank_pairwise(3, lambda pairs: [-1e-9 for _ in pairs], sort="bubble")
    assert result.order == [2, 1, 0]


@pytest.mark.parametrize("sort", SORTS)
def test_margins_are_checked(sort):
    with pytest.raises(NonFiniteScoreError, match="margin is nan"):
        rank_pairwise(4, lambda pairs: [math.nan] * len(pairs), sort=sort)
    with pytest.raises(InputError, match="returned 0 margins for"):
        rank_pairwise(4, lambda pairs: [], sort=sort)


@pytest.mark.parametrize("sort", SORTS)
def test_settings_that_are_not_allowed(sort):
    with pytest.raises(ConfigError, match="sort_top=-2"):
        rank_pairwise(3, ByKey([0] * 3), sort=sort, top=-2)
    with pytest.raises(ConfigError, match="sort='quick': pairs can be sorted by"):
        rank_pairwise(3, ByKey([0] * 3), sort="quick")
    with pytest.raises(ConfigError, match="sort='quick'"):
        pairwise_calls(3, sort="quick")


def test_calls_by_hand():
    assert [all_pairs_calls(n) for n in (0, 1, 2, 5, 100)] == [0, 0, 1, 10, 4950]
    assert pairwise_calls(100, sort="bubble", top=10) == 945
    assert pairwise_calls(7, sort="heap", top=1) == 2 * 4
