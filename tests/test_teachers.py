"""What heads are taught by: shares of relevance from labels, from scores and from both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from profiling_data import planted

from icr_rag.errors import InputError
from icr_rag.profiling.samples import standardise
from icr_rag.profiling.study import Choice, run_study
from icr_rag.profiling.teachers import (
    BLEND,
    LABELS,
    LIKELIHOOD,
    SHARPNESS,
    Teaching,
    average,
    by_labels,
    by_scores,
    mean_of,
)
from icr_rag.profiling.weights import learn_weights, query_weights
from icr_rag.scoring.head_scores import standardise as standardise_readings

NUMBERS = st.floats(-1e6, 1e6, width=32)
LISTS = st.lists(NUMBERS, min_size=1, max_size=12)


def shares(number):
    drawn = st.lists(st.floats(0.01, 9), min_size=number, max_size=number)
    return drawn.map(lambda values: np.array(values) / sum(values))


@given(scores=LISTS)
def test_scores_make_a_distribution_in_their_order(scores):
    found = by_scores(np.array(scores))
    assert found.sum() == pytest.approx(1.0)
    assert (found >= 0).all()
    order = np.argsort(scores, kind="stable")
    assert (np.diff(found[order]) >= -1e-12).all()
    slow = np.exp(SHARPNESS * standardise(np.array(scores)))
    np.testing.assert_allclose(found, slow / slow.sum(), rtol=1e-9)


@given(scores=LISTS, scale=st.floats(0.1, 50), offset=st.integers(-100, 100))
def test_scale_and_origin_of_scores_say_nothing(scores, scale, offset):
    rounded = np.round(np.array(scores), 2)
    np.testing.assert_allclose(
        by_scores(rounded), by_scores(rounded * scale + offset), rtol=1e-4, atol=1e-6
    )


def test_shares_are_sharp():
    least = 1 / (1 + np.exp(12.0))
    np.testing.assert_allclose(by_scores(np.array([3.0, 5.0])), [least, 1 - least])


def test_scores_may_be_huge():
    found = by_scores(np.array([1e308, -1e308, 3e307]))
    np.testing.assert_allclose(found, by_scores(np.array([10.0, -10.0, 3.0])))


def test_equal_scores_get_equal_shares():
    assert by_scores(np.full(4, 0.3)).tolist() == [0.25] * 4


def test_labels_share_by_grade():
    (sample,) = planted(1)
    graded = replace(sample, grades=np.array([0, 2, 1, 0, 0, 0, 0, 0]))
    assert by_labels(graded).tolist() == pytest.approx([0, 2 / 3, 1 / 3, 0, 0, 0, 0, 0])
    assert by_labels(replace(sample, grades=np.zeros(8, dtype=np.int64))) is None


@given(data=st.data(), number=st.integers(1, 6), weight=st.floats(0.1, 5))
def test_a_mean_is_of_those_that_know(data, number, weight):
    first, second = data.draw(shares(number)), data.draw(shares(number))
    both = mean_of([first, None, second], [1.0, 7.0, weight])
    np.testing.assert_allclose(both, (first + weight * second) / (1 + weight))
    assert both.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(mean_of([None, second], [1.0, weight]), second)
    assert mean_of([None, None], [1.0, weight]) is None


def with_likelihood(samples, seed=0):
    noise = np.random.default_rng(seed)
    return [
        replace(s, likelihood=noise.normal(size=len(s.grades)).astype(np.float32)) for s in samples
    ]


def test_a_blend_is_half_of_either_and_scores_alone_where_there_are_no_labels():
    (sample,) = with_likelihood(planted(1))
    blend = average([BLEND])
    half = (by_labels(sample) + by_scores(sample.likelihood)) / 2
    np.testing.assert_allclose(blend(sample), half)
    nothing = replace(sample, grades=np.zeros_like(sample.grades))
    np.testing.assert_allclose(blend(nothing), by_scores(sample.likelihood))
    assert average([LABELS])(nothing) is None
    assert average(["other"])(sample) is None
    given_ = replace(sample, scores={"other": np.arange(8.0)})
    np.testing.assert_allclose(
        average([BLEND, "other"])(given_), (half + by_scores(np.arange(8.0))) / 2
    )


def test_teachers_know_what_did_best_for_them():
    assert (average([LABELS]).l2, average([LABELS]).size) == (20.0, 64)
    assert (average([LIKELIHOOD]).l2, average([LIKELIHOOD]).size) == (15.0, None)
    assert (average([LIKELIHOOD, "m"]).l2, average([BLEND]).l2) == (15.0, 40.0)
    assert str(average([BLEND])) == "likelihood, labels"
    assert str(average([BLEND, "m"])) == "0.25 likelihood, 0.25 labels, 0.5 m"
    for wrong in ({}, {"labels": 0.0}, {"labels": -1.0, "m": 2.0}):
        with pytest.raises(InputError, match="above 0"):
            Teaching(wrong)
    with pytest.raises(InputError, match="twice"):
        average(["m", "m"])


# --- what is learned of them -----------------------------------------------------------------


def slow_loss(samples, teacher, weights, l2, counts):
    """The loss one query after the other, as the module's head says."""
    total = l2 * (weights**2).sum()
    for sample, count in zip(samples, counts, strict=True):
        readings = torch.from_numpy(sample.readings[..., 1].reshape(len(sample.grades), -1))
        logits = standardise_readings(readings.double()).numpy() @ weights
        shares_ = np.exp(logits) / np.exp(logits).sum()
        total -= count * (teacher(sample) * np.log(shares_)).sum()
    return total


def weights_of(heads, layers=3, count=2):
    found = np.zeros((layers, count))
    for item in heads:
        found[item.layer, item.head] = item.weight
    return found.ravel()


def test_the_loss_is_that_of_one_query_after_the_other():
    long = with_likelihood(planted(6, documents=9, layers=3, heads=2))
    short = with_likelihood(planted(3, documents=4, layers=3, heads=2, group="b", seed=2))
    samples, teacher, l2 = [*long, *short], average([BLEND]), 3.0
    counts = [9 / (2 * 6)] * 6 + [9 / (2 * 3)] * 3
    np.testing.assert_allclose(query_weights(samples), counts)
    assert learn_weights(samples) == learn_weights(samples, balanced=True)
    for balanced, own in ((True, counts), (False, [1.0] * 9)):
        found = weights_of(learn_weights(samples, l2=l2, teacher=teacher, balanced=balanced))
        least = slow_loss(samples, teacher, found, l2, own)
        generator = np.random.default_rng(0)
        for _ in range(40):
            near = found + 1e-3 * generator.normal(size=found.shape)
            assert slow_loss(samples, teacher, near, l2, own) > least


def test_scores_find_a_head_that_no_label_tells_of():
    samples = [
        replace(
            s,
            scores={"service": s.readings[:, 2, 1, 1].astype(np.float64)},
            grades=np.zeros_like(s.grades),
            ideal=np.zeros(0, dtype=np.int64),
        )
        for s in planted(20)
    ]
    teacher = average(["service"])
    best = learn_weights(samples, l2=teacher.l2, size=teacher.size, teacher=teacher)[0]
    assert (best.layer, best.head, best.weight > 0) == (2, 1, True)
    with pytest.raises(InputError, match="none of 20 queries"):
        learn_weights(samples)


def test_groups_count_the_same_whatever_their_sizes():
    many, few = planted(40, at=(1, 0)), planted(4, at=(3, 2), group="b", seed=5, scale=3.0)
    samples = [*many, *few]

    def weight(balanced):
        heads = learn_weights(samples, l2=5.0, balanced=balanced)
        return next(item.weight for item in heads if (item.layer, item.head) == (3, 2))

    assert weight(True) > 2 * weight(False)


def test_nothing_known_to_be_relevant_leaves_nothing_to_measure():
    samples = [
        replace(s, grades=np.zeros_like(s.grades), ideal=np.zeros(0, dtype=np.int64))
        for s in with_likelihood(planted(12))
    ]
    teacher = average([LIKELIHOOD])
    study = run_study(samples, Choice(size=None, l2=15.0, teacher=teacher), mixed=True)
    assert (study.curve, study.held_out) == (None, None)
    assert study.measured == {"queries": 12}
    assert len(study.chosen) == 15
    assert study.likelihood_weight == 1.67


@settings(max_examples=10, deadline=None)
@given(unknown=st.integers(1, 10))
def test_queries_without_labels_change_no_mean(unknown):
    known = planted(12)
    others = [
        replace(s, grades=np.zeros_like(s.grades), ideal=np.zeros(0, dtype=np.int64))
        for s in planted(unknown, group="log", seed=9)
    ]
    choice = Choice(size=2, l2=1.0)
    alone, beside = run_study(known, choice), run_study([*known, *others], choice)
    assert beside.chosen == alone.chosen
    for name in ("all layers", "window, cross-validated", "learned, cross-validated"):
        assert beside.measured[name] == alone.measured[name]
    assert beside.held_out == alone.held_out
