"""What the first stage said, beside the model: against NumPy, over scores of every kind."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tiny import byte_tokenizer, tiny_model

from icr_rag import Profile, Reranker, RerankerConfig
from icr_rag.errors import ConfigError, InputError
from icr_rag.frameworks.combine import combine, rule_of
from icr_rag.frameworks.evidence import robust, weigh
from icr_rag.frameworks.result import WindowedScores
from icr_rag.profiles import HeadWeight, Shape

QUERY = "Which metal melts first?"
TEXTS = ["Tin melts at 232 degrees.", "Lead is soft.", "Copper conducts heat.", "Gold.", "Zinc."]
COSINES = [0.1, 0.9, 0.4, 0.4, -0.2]
BM25 = [3.0, 25.0, 7.0, 7.0, 0.5]

INF = math.inf
#: Ties are likely, and so are odd scales.
SCALES = st.sampled_from([1e-9, 0.01, 1.0, 30.0, 1e6, 1e300])
NUMBERS = st.integers(-9, 9).map(float) | st.floats(-9, 9, allow_subnormal=False)
VALUES = st.none() | NUMBERS | st.sampled_from([INF, -INF, 1e5, -1e5])


@st.composite
def lists(draw, count):
    scale = draw(SCALES)
    values = draw(st.lists(VALUES, min_size=count, max_size=count))
    return [None if value is None else value * scale for value in values]


def tiny(**fields):
    fields = fields if fields.get("scoring") else {"layers": (1, 2), **fields}
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **fields)


def z(values):
    values = np.asarray(values, dtype=np.float64)
    return np.zeros(len(values)) if np.ptp(values) == 0 else (values - values.mean()) / values.std()


def known(column):
    """Where there are scores, and these, none of them infinite; None if they say nothing."""
    where = np.array([value is not None for value in column])
    values = np.array([value for value in column if value is not None], dtype=np.float64)
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
    values = values.clip(low, high)
    told = np.abs([low, high]).max() * 1e-6
    return where, values if high - low > told else None


def by_scores(column):
    """Standard scores, drawn in at three times the width of the middle half outside of it."""
    where, values = known(column)
    found = np.zeros(len(column))
    if values is not None:
        lower, upper = np.percentile(values, [25, 75])
        if upper - lower > 1e-6 * max(abs(lower), abs(upper)):
            width = upper - lower
            values = values.clip(lower - 3 * width, upper + 3 * width)
        found[where] = z(values / np.abs(values).max())
    return found


def by_order(column):
    """Standardised 1 / (rank + 10), of ties the mean; infinite ones in their places."""
    where = np.array([value is not None for value in column])
    values = np.array([value for value in column if value is not None], dtype=np.float64)
    found = np.zeros(len(column))
    ranks = np.arange(1, len(values) + 1)
    ordered = np.sort(values)[::-1]
    found[where] = z([np.mean(1 / (ranks[ordered == value] + 10)) for value in values])
    return found


def slowly(model, columns, order_weight, scores_weight, asked):
    """What `combine` makes of it, as docs/scoring.md says it, and the weights."""
    fused, total = {"model": 1.0}, z(model)
    telling = {name: column for name, column in columns.items() if known(column)[1] is not None}
    cosines = [
        name
        for name, column in telling.items()
        if name not in asked
        and all(abs(v) <= 1 + 1e-6 for v in column if v is not None and np.isfinite(v))
    ]
    others = [name for name in telling if name not in asked and name not in cosines]
    said = False
    for names, weight, values in (
        ([name for name in telling if name in asked], None, by_scores),
        (cosines, 1.0 if scores_weight is None else scores_weight, by_scores),
        (others, order_weight or 0.3, by_order),
    ):
        for name in names:
            own = asked[name] if weight is None else weight / len(names)
            if not own:
                continue
            there = [value for value in telling[name] if value is not None]
            said |= values is by_order or there == sorted(there, reverse=True)
            fused[name if values is by_scores else f"order of {name}"] = own
            total = total + own * values(telling[name])
    weight = asked.get("order", 0.0 if said else order_weight)
    if weight:
        fused["order"] = weight
        total = total + weight * z(1 / (np.arange(1, len(model) + 1) + 10))
    return total, {} if len(fused) == 1 else fused


def ranked(scores):
    order = sorted(range(len(scores)), key=lambda item: -scores[item])
    return WindowedScores(order, list(scores), [0] * len(scores))


@given(st.data())
def test_it_is_the_sum_that_numpy_makes(data):
    count = data.draw(st.integers(2, 12))
    model = data.draw(st.lists(st.floats(-1e3, 1e3), min_size=count, max_size=count))
    assume(np.ptp(model) == 0 or np.ptp(model) > 1e-6)
    names = data.draw(st.sets(st.sampled_from(["scores", "dense", "sparse"])))
    columns = {name: data.draw(lists(count)) for name in sorted(names)}
    order_weight = data.draw(st.sampled_from([0.0, 0.3, 1.5]))
    scores_weight = data.draw(st.sampled_from([None, 0.0, 0.7]))
    weights = st.sampled_from([0.0, 0.5, 2.0])
    asked = data.draw(st.dictionaries(st.sampled_from([*sorted(names), "order"]), weights))
    rule = rule_of("auto", 0.5, order_weight, columns, scores_weight=scores_weight, asked=asked)
    found = combine(ranked(model), rule)
    wanted, fused = slowly(model, columns, order_weight, scores_weight, asked)
    assert rule.fused == fused
    json.dumps(rule.fused, allow_nan=False)
    if not fused:
        assert found == ranked(model)
        return
    assert found.scores == pytest.approx(list(wanted), abs=1e-6)
    along = [found.scores[item] for item in found.order]
    assert along == sorted(along, reverse=True)
    assert sorted(found.order) == list(range(count))
    assert set(found.groups) == {0}


@given(lists(8), st.floats(0.1, 10), st.integers(-3, 3))
def test_scale_and_zero_of_scores_make_no_difference(column, scale, shift):
    values = [value for value in column if value is not None and abs(value) < 1e7]
    moved = [value * scale + shift * max(map(abs, values)) for value in values]
    assume(known(moved)[1] is not None and np.ptp(values) > 1e-3 * max(map(abs, values)))
    assert robust(moved) == pytest.approx(robust(values), abs=1e-3)


def test_one_huge_score_does_not_press_the_others_together():
    plain = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]
    spoilt = robust([1e12, *plain[1:]])
    assert np.ptp(spoilt[1:]) > 1.0
    assert robust([INF, *plain[1:]]) == robust([0.8, *plain[1:]])
    assert all(map(math.isfinite, robust([1.7e308, -1.7e308, 0.0, 1e-300, 5.0])))


def test_equal_scores_and_their_rounding_say_nothing():
    for column in (
        [0.1] * 7,
        [1.0 + n * 1e-8 for n in range(5)],
        [None] * 3,
        [INF] * 3,
        [0.0, -0.0],
    ):
        assert weigh({"scores": column}, 0.0, None, {}) == ()
        assert set(robust([value for value in column if value is not None])) <= {0.0}
        # They leave the order as much as it has without them.
        (order,) = weigh({"scores": column}, 0.3, None, {})
        assert order.label == "order"


# --- in a ranking --------------------------------------------------------------------------------


def test_usage_says_what_was_fused():
    auto = tiny()
    for scores, fused in (
        (None, {}),
        (COSINES, {"model": 1.0, "scores": 1.0}),
        (BM25, {"model": 1.0, "order of scores": 0.3}),
        ({"dense": COSINES, "sparse": BM25}, {"model": 1.0, "dense": 1.0, "order of sparse": 0.3}),
        ({"a": COSINES, "b": COSINES}, {"model": 1.0, "a": 0.5, "b": 0.5}),
        ([0.5] * 5, {}),
        ([None, None, None, None, 0.5], {}),
        ({}, {}),
    ):
        assert auto.rank(QUERY, TEXTS, retrieval_scores=scores).usage.fused == fused
    for fusion, fused in (
        ("none", {}),
        ("prior", {"model": 1.0, "order of scores": 0.3}),
        ("rrf", {"model": 0.5, "order of scores": 0.5}),
        ("weighted", {"model": 0.5, "scores": 0.5}),
    ):
        ranker = tiny(fusion=fusion)
        assert ranker.rank(QUERY, TEXTS, retrieval_scores=COSINES).usage.fused == fused
    assert tiny(fusion="prior").rank(QUERY, TEXTS).usage.fused == {"model": 1.0, "order": 0.3}
    assert tiny(fusion="rrf").rank(QUERY, TEXTS).usage.fused == {"model": 0.5, "order": 0.5}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"framework": "pointwise"},
        {"scoring": "likelihood"},
        {"scoring": "generation"},
        {"framework": "setwise"},
        {"window": 3, "stride": 1},
        {"document_states": "independent", "framework": "listwise"},
        {"passages": "max", "passage_tokens": 24, "scoring": "likelihood"},
    ],
    ids=str,
)
def test_every_way_of_scoring_counts_the_scores(fields):
    plain = tiny(fusion="none", **fields).rank(QUERY, TEXTS)
    found = tiny(**fields).rank(QUERY, TEXTS, retrieval_scores=COSINES)
    own = np.array(plain.scores)
    assert found.scores == pytest.approx(list(z(own) + by_scores(COSINES)), abs=1e-4)
    assert sorted(hit.index for hit in found) == list(range(5))
    assert found.comparable


def test_documents_with_one_text_share_the_best_score_that_one_of_them_has():
    texts = [*TEXTS, TEXTS[4], " ", TEXTS[3]]
    found = tiny().rank(QUERY, texts, retrieval_scores=[*COSINES, 0.8, 5.0, None])
    wanted = tiny().rank(QUERY, TEXTS, retrieval_scores=[*COSINES[:4], 0.8])
    assert found.scores[:5] == wanted.scores
    assert (found.scores[5], found.scores[7]) == (found.scores[4], found.scores[3])
    # A score of what is not read is not looked at, so that these are alike to cosines.
    assert found.usage.fused == {"model": 1.0, "scores": 1.0}


def test_a_second_reading_decides_by_itself():
    fields = {"document_states": "independent", "framework": "listwise", "cascade": 2}
    found = tiny(**fields).rank(QUERY, TEXTS, retrieval_scores=COSINES)
    first = tiny(**{**fields, "cascade": None}).rank(QUERY, TEXTS, retrieval_scores=COSINES)
    assert {hit.index for hit in found[:2]} == {hit.index for hit in first[:2]}
    assert found.usage.fused == first.usage.fused


def test_weights_by_name():
    plain = tiny().rank(QUERY, TEXTS)
    both = {"dense": COSINES, "sparse": BM25}
    weighed = tiny(first_stage_weights={"dense": 0.5, "sparse": 0.25, "order": 2})
    found = weighed.rank(QUERY, TEXTS, retrieval_scores=both)
    assert found.usage.fused == {"model": 1.0, "dense": 0.5, "sparse": 0.25, "order": 2.0}
    order = z(1 / (np.arange(1, 6) + 10))
    wanted = z(plain.scores) + 0.5 * by_scores(COSINES) + 0.25 * by_scores(BM25) + 2 * order
    assert found.scores == pytest.approx(list(wanted), abs=1e-4)
    assert weighed.rank(QUERY, TEXTS).usage.fused == {"model": 1.0, "order": 2.0}
    with pytest.raises(InputError, match=r"a weight of 'dense', and the .* scores are 'scores'"):
        weighed.rank(QUERY, TEXTS, retrieval_scores=COSINES)
    none = tiny(first_stage_weights={"scores": 0})
    assert none.rank(QUERY, TEXTS, retrieval_scores=COSINES).scores == plain.scores


@pytest.mark.parametrize(
    "written",
    ["dense=1,order = 0.3", {"dense": 1, "order": 0.3}, [["dense", 1], ["order", 0.3]],
     (("dense", "1"), ("order", "0.3"))],
)  # fmt: skip
def test_weights_as_they_are_written(written):
    config = RerankerConfig(first_stage_weights=written)
    assert config.first_stage_weights == (("dense", 1.0), ("order", 0.3))
    assert RerankerConfig(**config.to_dict()) == config == config.replace(top_n=None)
    hash(config)


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        ({}, "at least one"),
        ({"model": 2}, "the model's own is 1"),
        ({" ": 2}, "by the names of scores"),
        ({"dense": -1}, "greater than or equal to 0"),
        ({"dense": INF}, "finite"),
        ("dense", "first_stage_weights"),
        ("dense=1,dense=2", "listed twice"),
        (5, "first_stage_weights"),
    ],
)
def test_wrong_weights_are_named(weights, match):
    with pytest.raises(ConfigError, match=match):
        RerankerConfig(first_stage_weights=weights)


def test_wrong_lists_are_named():
    rank = tiny().rank
    for scores, match in (
        ({"dense": [1.0]}, r"retrieval_scores\['dense'\] has length 1; .* \(5\)"),
        ({"dense": "abcde"}, r"retrieval_scores\['dense'\] is a str"),
        ({"order": COSINES}, "a list named 'order'"),
        ({"order of x": COSINES}, "none that begins with 'order of '"),
        ({1: COSINES}, "a list named 1"),
        ([1, 2, 3, 4, "x"], r"retrieval_scores\[4\] is 'x'; .* set fusion='none'"),
        ({"dense": [1, 2, True, 4, 5]}, r"retrieval_scores\['dense'\]\[2\] is True"),
    ):
        with pytest.raises(InputError, match=match):
            rank(QUERY, TEXTS, retrieval_scores=scores)
        # Where they do not count nobody looks at them.
        assert tiny(fusion="none").rank(QUERY, TEXTS, retrieval_scores=scores)
    both = {"dense": COSINES, "sparse": BM25}
    for fusion in ("prior", "rrf", "weighted"):
        one = tiny(fusion=fusion)
        with pytest.raises(InputError, match=rf"2 lists \('dense', .* fusion='{fusion}' takes one"):
            one.rank(QUERY, TEXTS, retrieval_scores=both)
        named = one.rank(QUERY, TEXTS, retrieval_scores={"dense": COSINES})
        assert named.scores == one.rank(QUERY, TEXTS, retrieval_scores=COSINES).scores


def test_nothing_given_is_changed():
    dense = np.array(COSINES)
    both = {"dense": dense, "sparse": [1.0, None, 2.0, float("nan"), -INF]}
    before = (dense.copy(), [*both["sparse"]])
    tiny().rank(QUERY, TEXTS, retrieval_scores=both)
    assert (both["dense"] == before[0]).all()
    assert str(both["sparse"]) == str(before[1])


# --- what a profile says ---------------------------------------------------------------------


def profile(**fields):
    return Profile(
        model="tiny", shape=Shape.of(tiny_model("llama").config), framework="pointwise",
        heads=(HeadWeight(layer=1, head=1),), **fields,
    )  # fmt: skip


def test_a_profile_has_weights_of_both(tmp_path):
    path = tmp_path / "p.json"
    for fields, scores, fused in (
        ({}, COSINES, {"model": 1.0, "scores": 1.0}),
        ({"first_stage_weight": 0.2}, COSINES, {"model": 1.0, "scores": 1.0, "order": 0.2}),
        ({"first_stage_weight": 0.2}, sorted(COSINES)[::-1], {"model": 1.0, "scores": 1.0}),
        ({"first_stage": {"scores": 0.6}}, COSINES, {"model": 1.0, "scores": 0.6}),
        ({"first_stage": {"scores": 0}}, COSINES, {}),
        ({"first_stage": {"order": 0.4}}, None, {"model": 1.0, "order": 0.4}),
        ({"first_stage": {"order": 0.4}}, BM25, {"model": 1.0, "order of scores": 0.4}),
        ({"first_stage": {"scores": 2, "order": 0.4}, "first_stage_weight": 0.4}, COSINES,
         {"model": 1.0, "scores": 2.0, "order": 0.4}),
    ):  # fmt: skip
        saved = profile(**fields)
        saved.save(path)
        assert Profile.load(path) == saved
        assert ("first_stage" in json.loads(path.read_text())) == ("first_stage" in fields)
        found = tiny(layers="auto", framework="pointwise", profile=str(path))
        assert found.rank(QUERY, TEXTS, retrieval_scores=scores).usage.fused == fused
    for wrong in (
        {"first_stage": {"order": 0.4}, "first_stage_weight": 0.3},
        {"first_stage": {"scores": -1}},
        {"first_stage": {"ranks": 1}},
    ):
        with pytest.raises(ValueError, match="first_stage"):
            profile(**wrong)
