"""Paired tests, against slow obvious implementations and known distributions."""

import itertools
import random
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_rag.errors import ConfigError, InputError
from icr_rag.evaluation.significance import holm, paired_test

VALUES = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]), min_size=1, max_size=9)
PAIRS = VALUES.flatmap(
    lambda a: st.tuples(
        st.just(a),
        st.lists(st.sampled_from([0.0, 0.1, 0.5]), min_size=len(a), max_size=len(a)),
    )
)


def every_sign(differences):
    """The p-value by going through all patterns, one by one."""
    observed = abs(sum(differences))
    signs = list(itertools.product((1, -1), repeat=len(differences)))
    extreme = 0
    for pattern in signs:
        total = abs(sum(s * d for s, d in zip(pattern, differences, strict=True)))
        extreme += total >= observed - 1e-9
    return extreme / len(signs)


@given(PAIRS)
def test_few_queries_are_tested_exactly(pair):
    a, b = pair
    found = paired_test(a, b, samples=1000)
    differences = [x - y for x, y in zip(a, b, strict=True)]
    assert found.exact
    assert found.queries == len(a)
    assert found.p_value == pytest.approx(every_sign(differences))
    assert found.mean_difference == pytest.approx(sum(differences) / len(a))


@given(PAIRS)
def test_the_sides_can_be_exchanged(pair):
    a, b = pair
    one, other = paired_test(a, b, samples=600), paired_test(b, a, samples=600)
    assert one.p_value == other.p_value
    assert one.mean_difference == -other.mean_difference
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-12)
    assert one.low <= one.high


def data(count, shift, seed=3):
    draws = np.random.default_rng(seed)
    b = draws.random(count)
    return list(b + shift + draws.normal(0, 0.2, count)), list(b)


def test_drawn_patterns_come_close_to_all_patterns():
    a, b = data(12, 0.08)
    exact, drawn = paired_test(a, b, samples=4096), paired_test(a, b, samples=4095)
    assert exact.exact
    assert not drawn.exact
    # Three standard errors of a share of 4095 draws.
    assert 0.02 < exact.p_value < 0.98
    assert abs(exact.p_value - drawn.p_value) < 3 * 0.5 / 4095**0.5


@pytest.mark.parametrize("method", ["randomization", "bootstrap"])
def test_many_queries_agree_with_the_normal_distribution(method):
    a, b = data(400, 0.0)
    differences = np.array(a) - np.array(b)
    error = differences.std(ddof=1) / 20
    z = abs(differences.mean()) / error
    expected = 2 * (1 - statistics.NormalDist().cdf(z))
    found = paired_test(a, b, method=method, samples=20_000)
    assert 0.005 < expected < 0.5
    assert found.p_value == pytest.approx(expected, abs=0.015)
    assert found.low == pytest.approx(differences.mean() - 1.96 * error, abs=0.002)
    assert found.high == pytest.approx(differences.mean() + 1.96 * error, abs=0.002)


def test_the_bootstrap_against_a_loop():
    a, b = data(25, 0.05)
    differences = [x - y for x, y in zip(a, b, strict=True)]
    mean = sum(differences) / 25
    draws = random.Random(0)
    means = [sum(draws.choice(differences) for _ in range(25)) / 25 for _ in range(8000)]
    p_value = sum(abs(m - mean) >= abs(mean) for m in means) / 8000
    means.sort()
    found = paired_test(a, b, method="bootstrap", samples=8000)
    assert found.p_value == pytest.approx(p_value, abs=0.03)
    assert found.low == pytest.approx(means[200], abs=0.01)
    assert found.high == pytest.approx(means[-200], abs=0.01)


@pytest.mark.parametrize("method", ["randomization", "bootstrap"])
def test_without_a_difference_p_values_are_uniform(method):
    draws = np.random.default_rng(11)
    p_values = [
        paired_test(list(draws.normal(size=40)), [0.0] * 40, method=method, samples=400).p_value
        for _ in range(600)
    ]
    for level in (0.05, 0.25, 0.5, 0.75):
        share = np.mean(np.array(p_values) <= level)
        # The bootstrap of 40 queries is known to claim a little too much.
        assert share == pytest.approx(level, abs=0.045)


def test_more_samples_than_fit_into_one_block(monkeypatch):
    monkeypatch.setattr("icr_rag.evaluation.significance._BLOCK", 100)
    a, b = data(30, 0.05)
    small = paired_test(a, b, samples=5000)
    monkeypatch.undo()
    large = paired_test(a, b, samples=5000)
    assert small.p_value == pytest.approx(large.p_value, abs=0.03)


def test_mappings_are_compared_by_query_in_any_order():
    a, b = data(30, 0.05)
    names = [str(number) for number in range(30)]
    left, right = dict(zip(names, a, strict=True)), dict(zip(names, b, strict=True))
    turned = [dict(reversed(values.items())) for values in (left, right)]
    expected = paired_test(left, right, samples=300)
    assert paired_test(left, turned[1], samples=300) == expected
    assert paired_test(*turned, samples=300) == expected


def test_the_same_seed_gives_the_same_result_and_another_one_another():
    a, b = data(30, 0.05)
    first = paired_test(a, b, samples=300, seed=1)
    assert first == paired_test(a, b, samples=300, seed=1)
    assert first != paired_test(a, b, samples=300, seed=2)


@pytest.mark.parametrize("method", ["randomization", "bootstrap"])
def test_equal_systems_do_not_differ(method):
    found = paired_test([0.5, 1.0, 0.0] * 9, [0.5, 1.0, 0.0] * 9, method=method, samples=50)
    assert (found.p_value, found.low, found.high, found.mean_difference) == (1, 0, 0, 0)


def test_a_p_value_over_drawn_samples_is_never_zero():
    assert paired_test([1.0] * 60, [0.0] * 60, samples=99).p_value == 0.01


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([], [], "no queries"),
        ({}, {}, "no queries"),
        ([1.0], [1.0, 2.0], "1 values against 2"),
        ({"q": 1.0, "r": 0.0}, {"q": 1.0}, "different queries: 1 stand on one side only, 'r'"),
        ({"q": 1.0}, [1.0], "a mapping and the other"),
        ([float("nan")], [0.0], "not finite"),
        ([float("inf")], [0.0], "not finite"),
    ],
)
def test_values_that_cannot_be_compared(a, b, message):
    with pytest.raises(InputError, match=message):
        paired_test(a, b)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"method": "t"}, "method='t'; allowed are"),
        ({"samples": 0}, "samples=0 is not allowed"),
        ({"samples": 1.5}, "samples=1.5 is not allowed"),
        ({"samples": True}, "samples=True is not allowed"),
    ],
)
def test_settings_that_are_not_allowed(setting, message):
    with pytest.raises(ConfigError, match=message):
        paired_test([1.0], [0.0], **setting)


def test_holm_on_the_textbook_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.6, 0.7]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values):
    corrected = holm(p_values)
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, p_values[index] * (len(order) - rank))
        assert corrected[index] == pytest.approx(min(1.0, largest))


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_holm_refuses_what_is_no_probability(value):
    with pytest.raises(InputError, match="from 0 to 1"):
        holm([0.5, value])
