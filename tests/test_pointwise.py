"""Every document by itself, without a model."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_rag.errors import InputError, NonFiniteScoreError
from icr_rag.frameworks.pointwise import rank_pointwise


@given(st.lists(st.integers(-3, 3).map(float), max_size=30))
def test_it_is_a_stable_sort_of_one_call(values):
    calls = []

    def score(items):
        calls.append(list(items))
        return [values[item] for item in items]

    result = rank_pointwise(len(values), score)
    assert calls == ([list(range(len(values)))] if values else [])
    assert result.order == sorted(range(len(values)), key=lambda item: -values[item])
    assert result.scores == values
    assert result.groups == [0] * len(values)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_order_is_made_of_nan(value):
    with pytest.raises(NonFiniteScoreError, match=str(value)):
        rank_pointwise(3, lambda items: [1.0, value, 2.0])


@pytest.mark.parametrize("scores", [[], [1.0], [1.0, 2.0, 3.0]])
def test_one_score_for_each(scores):
    with pytest.raises(InputError, match=f"returned {len(scores)} scores for 2 items"):
        rank_pointwise(2, lambda items: scores)
