"""Choosing layers, heads and weights from readings."""

from __future__ import annotations

from dataclasses import replace

import ir_measures
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from profiling_data import planted

from icr_rag.errors import DataError, InputError
from icr_rag.model.reading import READINGS
from icr_rag.profiling.crossval import (
    agreement,
    cross_validate,
    evaluate_heads,
    likelihood_weight,
    transfer,
)
from icr_rag.profiling.curve import MEASURES, layer_curve, measure_ranking, window_around
from icr_rag.profiling.heads import core_values, greedy_heads, qr_values, select_heads_by
from icr_rag.profiling.samples import Sample, load_samples, save_samples, standardise
from icr_rag.profiling.study import METHODS, Choice, run_study
from icr_rag.profiling.weights import learn_weights, score
from icr_rag.scoring.head_scores import HeadScores


def best(heads):
    return max(heads, key=lambda item: abs(item.weight))


# --- measures --------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    grades=st.lists(st.integers(0, 3), min_size=1, max_size=15),
    unseen=st.lists(st.integers(1, 3), max_size=3),
    data=st.data(),
)
def test_measures_are_those_of_ir_measures(grades, unseen, data):
    count = len(grades)
    scores = data.draw(st.permutations(range(count)))
    judged = {f"d{i}": grade for i, grade in enumerate(grades)}
    judged |= {f"u{i}": grade for i, grade in enumerate(unseen)}
    ideal = np.array(sorted((g for g in judged.values() if g > 0), reverse=True), dtype=np.int64)
    run = {"q": {f"d{i}": float(score) for i, score in enumerate(scores)}}
    for name in MEASURES:
        found = measure_ranking(np.array(scores, float)[:, None], np.array(grades), ideal, name)[0]
        expected = ir_measures.calc_aggregate(
            [ir_measures.parse_measure(name)], {"q": judged}, run
        )[ir_measures.parse_measure(name)]
        assert found == pytest.approx(expected if len(ideal) else 0.0, abs=1e-9)


def test_an_unknown_measure_is_an_error():
    with pytest.raises(InputError, match="nDCG@10"):
        measure_ranking(np.zeros((1, 1)), np.ones(1), np.ones(1), "P@1")


# --- the curve -------------------------------------------------------------------------------


def test_the_curve_finds_a_planted_bell():
    generator = np.random.default_rng(0)
    samples = []
    for sample in planted(60, layers=12, heads=2, at=(0, 0)):
        readings = generator.normal(size=(len(sample.grades), 12, 2, len(READINGS)))
        strength = np.exp(-0.5 * ((np.arange(12) - 7) / 1.5) ** 2)
        readings += 3 * sample.grades[:, None, None, None] * strength[None, :, None, None]
        samples.append(replace(sample, readings=readings.astype(np.float32)))
    curve = layer_curve(samples)
    assert curve.peak in (6, 7, 8)
    assert curve.window[0] <= curve.peak <= curve.window[1]
    assert curve.peak_low <= curve.peak <= curve.peak_high
    assert np.all(curve.low <= curve.smooth + 1e-9)
    assert np.all(curve.smooth <= curve.high + 1e-9)
    assert layer_curve(samples).to_dict() == curve.to_dict()
    assert 0 < curve.window_share <= 1


@given(st.integers(1, 12), st.integers(1, 6), st.data())
def test_windows_stay_inside_and_hold_the_peak(count, width, data):
    smooth = np.array(data.draw(st.lists(st.floats(0, 1), min_size=count, max_size=count)))
    peak = int(smooth.argmax())
    first, last = window_around(smooth, peak, width)
    assert 0 <= first <= peak <= last < count
    assert last - first + 1 == min(width, count)


def test_no_queries_and_unknown_readings():
    with pytest.raises(InputError, match="no queries"):
        layer_curve([])
    with pytest.raises(InputError, match="log_mass"):
        layer_curve(planted(3), "loudness")


# --- heads -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [name for name in METHODS if name != "qrhead"])
def test_each_method_finds_the_planted_head(method):
    chosen = Choice(method, 3, l2=1.0).select(planted(40))
    if method == "window":
        assert {item.layer for item in chosen} >= {2}
    else:
        assert (best(chosen).layer, best(chosen).head) == (2, 1) or (
            method in ("core", "greedy") and (chosen[0].layer, chosen[0].head) == (2, 1)
        )


def test_learned_weights_are_signed_and_pruned():
    samples = planted(60, scale=-1.0)
    chosen = learn_weights(samples, l2=1.0, size=4)
    assert len(chosen) == 4
    assert best(chosen).weight < 0
    assert all(item.layer <= 2 for item in learn_weights(samples, max_layer=2))


def test_core_is_the_obvious_computation():
    samples = planted(5)
    column = READINGS.index("log_mass")
    for layer, head in ((0, 0), (2, 1)):
        shares = []
        for sample in samples:
            z = standardise(sample.readings[:, layer, head, column])
            p = [np.exp(value) / sum(np.exp(z)) for value in z]
            shares.append(np.mean([p[i] for i in range(len(z)) if sample.grades[i] > 0]))
        assert core_values(samples)[layer, head] == pytest.approx(np.mean(shares))


def test_qr_is_the_mass_on_the_relevant():
    samples = planted(4)
    column = READINGS.index("log_mass")
    masses = [np.exp(s.readings[s.grades > 0][:, 1, 2, column]).sum() for s in samples]
    assert qr_values(samples)[1, 2] == pytest.approx(np.mean(masses), rel=1e-5)


def test_greedy_never_takes_a_head_that_ranks_worse_than_another_first():
    samples = planted(30)
    singles = {
        (layer, head): evaluate_heads(samples, select_heads_by(_one(layer, head), 1)).mean()
        for layer in range(5)
        for head in range(3)
    }
    first = greedy_heads(samples, 1)[0]
    assert singles[first.layer, first.head] == max(singles.values())


def _one(layer, head):
    values = np.zeros((5, 3))
    values[layer, head] = 1
    return values


def test_a_depth_penalty_prefers_what_exits_earlier():
    values = np.array([[0.50, 0.0], [0.0, 0.0], [0.52, 0.0]])
    assert select_heads_by(values, 1)[0].layer == 2
    assert select_heads_by(values, 1, depth_penalty=0.1)[0].layer == 0
    twins = []
    for sample in planted(40, at=(4, 0)):
        readings = sample.readings.copy()
        readings[:, 1, 0] = readings[:, 4, 0] + 0.02 * readings[:, 0, 0]
        twins.append(replace(sample, readings=readings))
    assert greedy_heads(twins, 1, depth_penalty=0.5)[0].layer == 1
    heavy = learn_weights(twins, l2=1.0, size=1, depth_penalty=20.0)
    assert heavy[0].layer == 1


def test_scores_are_those_of_the_product():
    (sample,) = planted(1)
    chosen = learn_weights(planted(20), readings=("log_mass", "lift"), size=6)
    layers = sorted({item.layer for item in chosen})
    readings = torch.from_numpy(sample.readings[:, layers]).flatten(1, 2)
    product = HeadScores(chosen, dict.fromkeys(layers), 3)(readings)
    assert score(sample, chosen) == pytest.approx(product, abs=1e-6)


def test_nothing_relevant_is_an_error():
    empty = [replace(s, grades=np.zeros_like(s.grades)) for s in planted(4)]
    for method in ("learned", "core", "qrhead", "greedy"):
        with pytest.raises(InputError, match="none of 4 queries"):
            Choice(method, 2).select(empty)
    with pytest.raises(InputError, match="learned, core, qrhead, greedy, window"):
        Choice("best").select(planted(4))


# --- honest figures --------------------------------------------------------------------------


def test_no_query_is_measured_with_what_was_chosen_on_it():
    samples = planted(25)
    seen = []

    def select(training):
        seen.append({sample.query_id for sample in training})
        return learn_weights(training, size=2)

    values = cross_validate(samples, select)
    assert len(values) == 25
    everything = {sample.query_id for sample in samples}
    held = [everything - training for training in seen]
    assert sum(map(len, held)) == 25
    assert set().union(*held) == everything
    with pytest.raises(InputError, match="too few"):
        cross_validate(samples[:1], select)


def test_transfer_and_agreement():
    first, second = planted(20, group="a"), planted(20, group="b", seed=1)
    third = planted(20, group="c", at=(4, 2), seed=2)
    groups = {"a": first, "b": second, "c": third}
    table = transfer(groups, lambda s: learn_weights(s, l2=1.0, size=1))
    assert table["a"]["b"] > 0.9 > table["a"]["c"]
    assert set(table) == {"a", "b", "c", "all others"}
    assert agreement(first, second)["best_layer_loss"] == 0
    assert agreement(first, first)["heads"] == pytest.approx(1.0)


def test_the_weight_of_likelihood():
    good = [replace(s, likelihood=s.grades.astype(np.float32)) for s in planted(30, noise=5.0)]
    noise = np.random.default_rng(0)
    bad = [
        replace(s, likelihood=noise.normal(size=len(s.grades)).astype(np.float32))
        for s in planted(30, noise=0.1)
    ]

    def select(training):
        return learn_weights(training, l2=1.0, size=1)

    assert likelihood_weight(good, select) > 1.0
    assert likelihood_weight(bad, select) == 1.0
    with pytest.raises(InputError, match="likelihood"):
        likelihood_weight(planted(10), select)


def test_a_whole_study():
    study = run_study([*planted(20), *planted(20, group="b", seed=3)], Choice(size=2, l2=1.0))
    assert study.measured["learned, cross-validated"] > 0.9
    assert study.measured["learned, cross-validated"] > study.measured["all layers"]
    assert set(study.measured["transfer"]) == {"a", "b"}
    assert study.heads.shape == (5, 3)


# --- files -----------------------------------------------------------------------------------


def test_samples_survive_a_file(tmp_path):
    samples = planted(3)
    samples[1] = replace(samples[1], likelihood=np.arange(8, dtype=np.float32))
    path = tmp_path / "readings.npz"
    save_samples(path, samples)
    loaded = load_samples(path)
    for given_, found in zip(samples, loaded, strict=True):
        assert (given_.query_id, given_.group) == (found.query_id, found.group)
        for name in ("readings", "grades", "ideal", "likelihood"):
            np.testing.assert_array_equal(getattr(given_, name), getattr(found, name))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"readings\.npz"):
        load_samples(path)
    with pytest.raises(DataError):
        load_samples(tmp_path / "absent.npz")


def test_pickled_samples_are_refused(tmp_path):
    path = tmp_path / "readings.npz"
    np.savez(path, ids=np.array([["a", "b"]]), **{"0.readings": np.array([object()])})
    with pytest.raises(DataError):
        load_samples(path)


def test_standardised_constants_are_zero():
    assert standardise(np.full((4, 2), 3.0)).tolist() == [[0, 0]] * 4
    assert isinstance(planted(1)[0], Sample)
