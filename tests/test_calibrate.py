"""Fitting probabilities: measures against slow obvious ones, cross-validation, thresholds."""

from __future__ import annotations

import builtins
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icr_rag.errors import InputError, MissingDependencyError
from icr_rag.profiles import Calibration
from icr_rag.profiling.calibrate import KINDS, ScoredList, fit
from icr_rag.profiling.plot_reliability import plot_reliability
from icr_rag.profiling.reliability import auc, bins, brier, calibration_error, log_loss
from icr_rag.profiling.thresholds import LEAST_KEPT, choose_threshold, propose

PAIRS = st.lists(
    st.tuples(st.one_of(st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.floats(0, 1)), st.booleans()),
    min_size=1,
    max_size=60,
)


def arrays(pairs):
    values, so = zip(*pairs, strict=True)
    return np.array(values), np.array(so, dtype=bool)


@settings(max_examples=100, deadline=None)
@given(PAIRS)
def test_measures_equal_slow_obvious_ones(pairs):
    values, so = arrays(pairs)
    wanted = sum((value - is_so) ** 2 for value, is_so in pairs) / len(pairs)
    assert brier(values, so) == pytest.approx(wanted, abs=1e-12)
    inside = [min(max(value, 1e-12), 1 - 1e-12) for value in values]
    losses = [
        -math.log(value) if is_so else -math.log(1 - value)
        for value, is_so in zip(inside, so, strict=True)
    ]
    assert log_loss(values, so) == pytest.approx(sum(losses) / len(losses), rel=1e-6)
    both = [(a, b) for a, yes in pairs if yes for b, other in pairs if not other]
    if both:
        won = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in both) / len(both)
        assert auc(values, so) == pytest.approx(won, abs=1e-12)
    else:
        assert math.isnan(auc(values, so))


@settings(max_examples=100, deadline=None)
@given(PAIRS, st.integers(1, 12), st.randoms(use_true_random=False))
def test_the_calibration_error_equals_a_slow_obvious_one(pairs, count, generator):
    # Bin by bin: each begins where its share of the pairs does, and never inside of equal values.
    ordered = sorted(pairs)
    groups, used = [], 0
    for number in range(1, count + 1):
        end = max(used, len(ordered) * number // count)
        while 0 < end < len(ordered) and ordered[end][0] == ordered[end - 1][0]:
            end += 1
        if ordered[used:end]:
            groups.append(ordered[used:end])
        used = end
    error = 0.0
    for group in groups:
        predicted = sum(value for value, _ in group) / len(group)
        observed = sum(is_so for _, is_so in group) / len(group)
        error += abs(predicted - observed) * len(group) / len(pairs)
    values, so = arrays(pairs)
    assert calibration_error(values, so, count) == pytest.approx(error, abs=1e-9)
    assert sum(one.count for one in bins(values, so, count)) == len(pairs)
    # Nothing hangs on the order of the pairs.
    generator.shuffle(pairs)
    assert calibration_error(*arrays(pairs), count) == pytest.approx(error, abs=1e-9)


def lists(count=60, documents=20, seed=0, slope=3.0, intercept=-4.0):
    """Lists whose scores have that very probability of relevance."""
    generator = np.random.default_rng(seed)
    made = []
    for number in range(count):
        scores = generator.normal(0.5, 1.0, size=documents)
        chances = 1 / (1 + np.exp(-(slope * scores + intercept)))
        relevant = generator.random(documents) < chances
        made.append(ScoredList(f"q{number}", "made up", scores, relevant))
    return made


def test_a_line_that_is_there_is_found():
    fitted = fit(lists(300), "logistic", {"prompt": "p"}, {"from": "nowhere"})
    found = fitted.calibration
    assert found.slope == pytest.approx(3.0, rel=0.15)
    assert found.intercept == pytest.approx(-4.0, rel=0.15)
    assert found.basis == {"prompt": "p"}
    assert found.data == {"from": "nowhere", "queries": 300}
    assert found.measured["pairs"] == 6000
    assert found.measured["ECE"] < 0.02
    assert found.measured["AUC"] > 0.85
    assert sum(count for _, _, count in found.reliability) == 6000
    # Lists with an answer are told from the same lists without.
    assert fitted.abstention.basis == {"prompt": "p"}
    assert fitted.abstention.measured["AUC"] > 0.8
    assert fitted.abstention.measured["lists"] > 500


def test_rounding_lifts_nothing_above_the_next_knot():
    # Between knots so far apart the share of the way is rounded to 1, and the sum up.
    knots = ((-1e16, 0.16984187672609158), (1.0, 0.9043505629117216))
    of = Calibration(kind="isotonic", knots=knots, basis={}).probability
    (_, low), (_, high) = knots
    assert low + (high - low) * 1.0 > high
    assert low < of(0.5) <= of(1.0) == high


def test_isotonic_takes_any_shape_that_rises():
    generator = np.random.default_rng(1)
    made = []
    for number in range(100):
        scores = generator.uniform(-2, 2, size=20)
        chances = np.where(scores < 0, 0.1, 0.6)
        made.append(ScoredList(f"q{number}", "", scores, generator.random(20) < chances))
    found = fit(made, "isotonic", {}, {}).calibration
    assert found.probability(-1.0) == pytest.approx(0.1, abs=0.06)
    assert found.probability(1.0) == pytest.approx(0.6, abs=0.06)
    assert all(0 < chance < 1 for _, chance in found.knots)
    assert found.measured["ECE"] < fit(made, "logistic", {}, {}).calibration.measured["ECE"]


def test_no_query_is_measured_by_what_was_fitted_on_it():
    """Each query's pairs come from a fit without its part, as a slow one says."""
    from icr_rag.profiling.samples import fold_of

    made = lists(25, 6, intercept=-1.0)
    fitted = fit(made, "logistic", {}, {})
    chances = {}
    for part in range(5):
        rest = [one for one in made if fold_of(one.query_id, 5) != part]
        line = fit(rest, "logistic", {}, {}).calibration
        for one in made:
            if fold_of(one.query_id, 5) == part:
                chances[one.query_id] = [line.probability(score) for score in one.scores.tolist()]
    wanted = sorted(value for row in chances.values() for value in row)
    assert sorted(fitted.predicted.tolist()) == pytest.approx(wanted, abs=1e-9)
    everything = sorted(fitted.calibration.probability(s) for one in made for s in one.scores)
    assert everything != pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_that_say_nothing_are_refused(kind):
    backwards = [ScoredList(one.query_id, "", -one.scores, one.relevant) for one in lists(40)]
    with pytest.raises(InputError, match="do not rise with relevance"):
        fit(backwards, kind, {}, {})
    flat = [ScoredList(one.query_id, "", one.scores * 0, one.relevant) for one in lists(40)]
    with pytest.raises(InputError, match="do not rise with relevance"):
        fit(flat, kind, {}, {})


def test_too_few_queries_are_refused():
    one = lists(1)
    none = [ScoredList(x.query_id, "", x.scores, x.relevant & False) for x in lists(9)]
    for few in ([], one, none):
        with pytest.raises(InputError, match="queries are too few to calibrate on"):
            fit(few, "logistic", {}, {})
    with pytest.raises(InputError, match="kind='beta'; allowed are logistic, isotonic"):
        fit(lists(), "beta", {}, {})


def test_without_scikit_learn_one_line_names_the_extra(monkeypatch):
    imported = builtins.__import__

    def refuse(name, *arguments, **keywords):
        if name.startswith("sklearn"):
            raise ModuleNotFoundError(f"No module named {name!r}", name="sklearn")
        return imported(name, *arguments, **keywords)

    import importlib
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(importlib, "import_module", lambda name: refuse(name))
    with pytest.raises(MissingDependencyError, match=r"pip install 'icr-rag\[evaluation\]'"):
        fit(lists(), "logistic", {}, {})


# --- thresholds ----------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(PAIRS, st.sampled_from(["precision", "recall"]), st.sampled_from([0.2, 0.5, 0.9, 1.0]))
def test_thresholds_equal_a_slow_search(pairs, target, wanted):
    values, so = arrays(pairs)
    best = None
    for threshold in sorted({value for value in values.tolist() if value > 0}):
        kept = [is_so for value, is_so in pairs if value >= threshold]
        precision, recall = sum(kept) / len(kept), sum(kept) / max(1, sum(so))
        if target == "precision":
            if precision >= wanted and len(kept) >= LEAST_KEPT and best is None:
                best = threshold
        elif recall >= wanted:
            best = threshold
    assert choose_threshold(values, so, target, wanted) == best


def test_thresholds_hold_on_other_queries():
    made = fit(lists(300), "logistic", {}, {}, [("precision", 0.8), ("recall", 0.9)]).calibration
    precision, recall = made.thresholds
    assert precision.precision == pytest.approx(0.8, abs=0.05)
    assert recall.recall == pytest.approx(0.9, abs=0.05)
    assert precision.score_threshold > recall.score_threshold
    fresh = lists(300, seed=7)
    scores = np.concatenate([one.scores for one in fresh])
    relevant = np.concatenate([one.relevant for one in fresh])
    kept = np.array([made.probability(s) for s in scores.tolist()]) >= precision.score_threshold
    assert relevant[kept].mean() == pytest.approx(0.8, abs=0.06)


def test_what_cannot_be_reached_is_said():
    values, so = np.linspace(0.1, 0.9, 40), np.tile([True, False], 20)
    (one,) = propose(values, so, np.arange(40) % 5, [("precision", 0.95)])
    assert (one.score_threshold, one.precision, one.recall) == (None, None, None)
    for target in (("precision", 0.0), ("recall", 1.5), ("F1", 0.5)):
        with pytest.raises(InputError, match="target"):
            propose(values, so, np.arange(40) % 5, [target])


# --- pictures --------------------------------------------------------------------------------


def test_reliability_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    found = fit(lists(), "logistic", {}, {}).calibration
    paths = [tmp_path / "a.svg", tmp_path / "a.png"]
    plot_reliability(paths, found, "tiny")
    assert "share that is relevant" in paths[0].read_text()
    assert paths[1].read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(InputError, match="plots are written as"):
        plot_reliability([tmp_path / "a.gif"], found)


def test_a_calibration_is_numbers_alone():
    line = Calibration(kind="logistic", slope=2.0, intercept=1.0, basis={})
    assert line.probability(-0.5) == 0.5
    assert line.probability(1e9) == 1.0
    assert line.probability(-1e9) == 0.0
