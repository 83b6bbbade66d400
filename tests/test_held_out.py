"""Figures of queries that taught nothing, and how they grow with the number of queries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from profiling_data import planted

from icr_rag.profiling import held_out as measuring
from icr_rag.profiling.crossval import (
    LIKELIHOOD_WEIGHTS,
    best_weight,
    fold_parts,
    scores_without,
)
from icr_rag.profiling.curve import measure_ranking
from icr_rag.profiling.held_out import held_out, parts_of, queries_curve
from icr_rag.profiling.samples import standardise
from icr_rag.profiling.study import Choice, run_study
from icr_rag.profiling.weights import learn_weights, score


def with_likelihood(samples, noise=1.0, seed=1):
    generator = np.random.default_rng(seed)
    return [
        replace(s, likelihood=(s.grades + noise * generator.normal(size=8)).astype(np.float32))
        for s in samples
    ]


def select(samples):
    return learn_weights(samples, l2=5.0)


def three(noise=2.0):
    groups = [planted(9 + n, noise=noise, group=name, seed=n) for n, name in enumerate("abc")]
    return with_likelihood([sample for own in groups for sample in own])


def value(scores, sample):
    return float(measure_ranking(scores[:, None], sample.grades, sample.ideal, "nDCG@10")[0])


def test_figures_are_those_of_whole_groups_left_out():
    samples = three()
    assert parts_of(samples) == [sample.group for sample in samples]
    found = held_out(samples, parts_of(samples), scores_without(samples, select, parts_of(samples)))
    attention, own, mixed = [], [], []
    for name in "abc":
        heads = select([sample for sample in samples if sample.group != name])
        for sample in (s for s in samples if s.group == name):
            scores = score(sample, heads)
            attention.append(value(scores, sample))
            own.append(value(sample.likelihood, sample))
            mixed.append(
                [
                    value(w * standardise(sample.likelihood) + standardise(scores), sample)
                    for w in LIKELIHOOD_WEIGHTS
                ]
            )
    table = np.array(mixed)
    groups = np.array([sample.group for sample in samples])
    fitted = [
        table[place, table[groups != groups[place]].sum(axis=0).argmax()]
        for place in range(len(samples))
    ]
    assert found.attention == pytest.approx(np.mean(attention), abs=1e-4)
    assert found.likelihood == pytest.approx(np.mean(own), abs=1e-4)
    assert found.mixed == pytest.approx(np.mean(fitted), abs=1e-4)
    assert (found.queries, found.groups, found.measure) == (30, 3, "nDCG@10")


def test_the_weight_is_chosen_on_the_other_parts(monkeypatch):
    samples = with_likelihood(planted(4))
    parts = ["a", "a", "a", "b"]
    table = np.array([[0.9, 0.1, 0, 0]] * 3 + [[0.2, 0.8, 0, 0]])
    monkeypatch.setattr(measuring, "mixed_values", lambda *given: table)
    found = held_out(samples, parts, [sample.likelihood for sample in samples])
    assert found.mixed == pytest.approx((3 * 0.1 + 0.2) / 4)


def test_of_fewer_groups_folds_are_left_out():
    samples = [sample for sample in three() if sample.group != "c"]
    assert parts_of(samples) == [str(fold) for fold in fold_parts(samples)]
    found = held_out(samples, parts_of(samples), scores_without(samples, select, parts_of(samples)))
    assert (found.groups, found.queries) == (0, 19)


def test_only_what_can_be_compared_is_measured():
    samples = three()
    parts = parts_of(samples)
    scores = scores_without(samples, select, parts)
    bare = [replace(s, likelihood=None) for s in samples]
    found = held_out(bare, parts, scores)
    assert (found.likelihood, found.mixed, found.queries) == (None, None, 30)
    some = [*bare[:10], *samples[10:]]
    assert held_out(some, parts, scores).queries == 20
    unknown = [replace(s, ideal=np.zeros(0, dtype=np.int64)) for s in samples]
    assert held_out(unknown, parts, scores) is None


def test_the_weight_is_one_of_the_choices():
    samples = three()
    scores = scores_without(samples, select, fold_parts(samples))
    sums = [
        sum(value(w * standardise(s.likelihood) + standardise(own), s)
            for s, own in zip(samples, scores, strict=True))
        for w in LIKELIHOOD_WEIGHTS
    ]  # fmt: skip
    assert best_weight(samples, scores) == LIKELIHOOD_WEIGHTS[int(np.argmax(sums))]


def test_the_curve_sees_no_more_queries_than_it_says():
    samples = [*planted(60, noise=1.5), *planted(30, noise=1.5, group="b", seed=4)]
    parts = parts_of(samples)
    seen = []

    def spy(training):
        seen.append({sample.query_id for sample in training})
        return select(training)

    curve = queries_curve(samples, spy)
    # The largest fold leaves more than 40 and less than 80.
    assert list(curve) == ["10", "20", "40"]
    folds = sorted(set(parts))
    for number, training in enumerate(seen):
        size, part = (10, 20, 40)[number // len(folds)], folds[number % len(folds)]
        assert len(training) == size
        held = {s.query_id for s, own in zip(samples, parts, strict=True) if own == part}
        assert not training & held
        if size > 10:
            assert training > seen[number - len(folds)]
        # Groups stand beside each other.
        assert abs(sum(name.startswith("b") for name in training) - size / 2) <= size / 4
    assert curve["40"] > curve["10"]


def test_a_size_that_teaches_nothing_is_left_out():
    samples = planted(24)
    known = {sample.query_id for sample in samples[:3]}
    rare = [s if s.query_id in known else replace(s, grades=np.zeros_like(s.grades))
            for s in samples]  # fmt: skip
    assert set(queries_curve(rare, select)) <= {"10"}
    assert queries_curve([replace(s, ideal=np.zeros(0)) for s in samples], select) == {}


def test_a_study_has_them():
    study = run_study(three(noise=0.3), Choice(size=2, l2=1.0), mixed=True)
    assert study.held_out.groups == 3
    assert study.held_out.mixed >= study.held_out.likelihood
    assert set(study.measured["queries curve"]) == {"10"}
    assert study.likelihood_weight in LIKELIHOOD_WEIGHTS
