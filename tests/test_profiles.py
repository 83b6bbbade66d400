"""Profiles: written, read back, refused where they are none, and used as they say."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker
from icr_rag.errors import ConfigError, DataError
from icr_rag.model.reading import READINGS
from icr_rag.profiles import HeadWeight, HeldOut, Profile, Shape
from icr_rag.scoring.base import Cost
from icr_rag.scoring.head_scores import HeadScores, standardise

QUERY = "Which metal melts first?"
DOCUMENTS = ["Tin melts at 232 degrees.", "Lead is soft.", "Copper conducts heat.", "Gold."]
SHAPE = Shape.of(tiny_model("llama").config)

# --- written and read back ------------------------------------------------------------------

FINITE = st.floats(allow_nan=False, allow_infinity=False)
#: Lone surrogates are no characters and cannot stand in a file.
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | FINITE | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


HELD_OUT = st.builds(
    HeldOut,
    attention=st.floats(0, 1),
    mixed=st.none() | st.floats(0, 1),
    likelihood=st.none() | st.floats(0, 1),
    queries=st.integers(1, 9),
    groups=st.just(0) | st.integers(2, 9),
)


@st.composite
def profiles(draw):
    shape = draw(
        st.builds(Shape, model_type=TEXT, num_hidden_layers=st.integers(1, 90),
                  hidden_size=st.integers(1, 9999), num_attention_heads=st.integers(1, 64))
    )  # fmt: skip
    layer = st.integers(0, shape.num_hidden_layers - 1)
    heads = draw(
        st.lists(
            st.builds(
                HeadWeight,
                layer=layer,
                head=st.integers(0, shape.num_attention_heads - 1),
                reading=st.sampled_from(READINGS),
                weight=FINITE,
            ),
            max_size=5,
            unique_by=lambda item: (item.layer, item.head, item.reading),
        )
    )
    window = st.tuples(layer, layer).map(lambda pair: (min(pair), max(pair)))
    scoring = draw(st.sampled_from(["attention", "mixed"]))
    frameworks = ["pointwise"] if scoring == "mixed" else ["listwise", "setwise", "pointwise"]
    return Profile(
        scoring=scoring,
        framework=draw(st.sampled_from(frameworks)),
        document_states=draw(st.sampled_from(["joint", "independent"])),
        layers=draw(st.none() | window if heads else window),
        heads=tuple(heads),
        likelihood_weight=draw(FINITE),
        first_stage_weight=draw(FINITE.map(abs)),
        model=draw(TEXT),
        revision=draw(st.none() | TEXT),
        shape=shape,
        data=draw(st.dictionaries(TEXT, JSON, max_size=3)),
        method=draw(TEXT),
        measured=draw(st.dictionaries(TEXT, JSON, max_size=3)),
        held_out=draw(st.none() | HELD_OUT),
        curve=draw(st.none() | st.dictionaries(TEXT, JSON, max_size=3)),
        created="2025-01-31",
        versions=draw(st.dictionaries(TEXT, st.none() | TEXT, max_size=3)),
    )


@given(profile=profiles())
def test_what_is_saved_is_loaded(tmp_path_factory, profile):
    path = tmp_path_factory.mktemp("profiles") / "profile.json"
    profile.save(path)
    assert Profile.load(path) == Profile.load(str(path)) == profile
    assert json.loads(path.read_text(encoding="utf-8"))["format"] == 1


def test_a_file_stays_whole_if_the_new_one_cannot_be_written(tmp_path):
    with pytest.raises(DataError, match="absent"):
        make().save(tmp_path / "absent" / "profile.json")


def test_a_file_without_held_out_figures_does_not_name_them(tmp_path):
    make().save(tmp_path / "profile.json")
    assert "held_out" not in (tmp_path / "profile.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({}, "no figure"),
        ({"attention": 1.5}, "less than or equal to 1"),
        ({"mixed": 0.5, "queries": 0}, "greater than or equal to 1"),
        ({"mixed": 0.5, "groups": 1}, "groups=1"),
        ({"generation": 0.5}, "not permitted"),
    ],
)
def test_held_out_figures_that_are_none(figures, said):
    with pytest.raises(ValueError, match=said):
        HeldOut(**{"queries": 9, **figures})


def test_a_profile_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        make().model = "another"
    with pytest.raises(ValueError, match="frozen"):
        make().heads[0].weight = 2.0


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    make().save(tmp_path / "mine.json")
    assert Profile.load("~/mine.json") == make()


# --- files that are none --------------------------------------------------------------------


def make(**changes):
    values = {
        "model": "somebody/tiny",
        "shape": SHAPE,
        "heads": (
            HeadWeight(layer=3, head=2, reading="log_mass", weight=-0.5),
            HeadWeight(layer=1, head=0, reading="lift", weight=1.25),
            HeadWeight(layer=3, head=2, reading="max", weight=0.25),
        ),
    }
    return Profile(**{**values, **changes})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not JSON"),
        (b"layers: 3", "is not JSON"),
        (b'{"model": ', "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[1, 2]", "is not a JSON object"),
        (b"null", "is not a JSON object"),
        (b"{}", "model: Field required"),
    ],
)
def test_files_that_are_no_profile(tmp_path, content, said):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        Profile.load(path)
    assert f"profile={str(path)!r}" in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


WEIGHT = {"layer": 0, "head": 0, "reading": "lift", "weight": 1.0}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "format: Input should be 1"),
        (
            {"scoring": "generation"},
            "scoring: Input should be 'attention', 'likelihood' or 'mixed'",
        ),
        ({"scoring": "likelihood"}, "scoring='likelihood' goes with framework='pointwise' only"),
        ({"framework": "pairwise"}, "framework: Input should be"),
        ({"scoring": "mixed"}, "scoring='mixed' goes with framework='pointwise' only"),
        ({"shape": None}, "shape: "),
        ({"shape": {"model_type": "llama"}}, "shape.num_hidden_layers: Field required"),
        ({"model": None}, "model: "),
        ({"heads": []}, "a profile needs heads or layers"),
        ({"heads": [], "layers": [3, 1]}, "layers=(3, 1) is not a window"),
        ({"heads": [], "layers": [-1, 1]}, "layers=(-1, 1) is not a window"),
        ({"layers": [3, 5]}, "layers=(3, 5), but the model has layers 0 to 4"),
        ({"layers": [1]}, "layers"),
        ({"heads": [{**WEIGHT, "layer": 5}]}, "layer 5, head 0 is not in"),
        ({"heads": [{**WEIGHT, "head": 4}]}, "layer 0, head 4 is not in"),
        ({"heads": [{**WEIGHT, "layer": -1}]}, "heads.0.layer: "),
        ({"heads": [WEIGHT, {**WEIGHT, "reading": "mean"}]}, "heads.1.reading: "),
        ({"heads": [{**WEIGHT, "weight": "NaN"}]}, "heads.0.weight: "),
        ({"heads": [{**WEIGHT, "wieght": 2}]}, "heads.0.wieght: Extra inputs"),
        ({"heads": [WEIGHT, WEIGHT]}, "a head's reading is listed twice"),
        ({"first_stage_weight": -1}, "first_stage_weight: "),
        ({"likelihood_weight": "much"}, "likelihood_weight: "),
        ({"notes": "mine"}, "notes: Extra inputs are not permitted"),
    ],
)
def test_fields_that_are_not_allowed(tmp_path, change, said):
    path = tmp_path / "broken.json"
    path.write_text(json.dumps({**make().model_dump(mode="json"), **change}))
    for read in (lambda: Profile.load(path), lambda: rank(path)):
        with pytest.raises(ConfigError) as caught:
            read()
        assert f"profile={str(path)!r} is no profile: " in str(caught.value)
        assert said in str(caught.value)


def test_nan_is_no_weight(tmp_path):
    """Python's JSON reads it, and a ranking by it would be none."""
    path = tmp_path / "broken.json"
    values = make().model_dump(mode="json")
    values["heads"][0]["weight"] = float("nan")
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"heads\.0\.weight"):
        Profile.load(path)


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(ConfigError, match=r"cannot be read.*icr-rag profile") as caught:
            Profile.load(path)
        assert str(path) in str(caught.value)


# --- used as they say -----------------------------------------------------------------------


def rank(path, scoring="attention", framework="auto", documents=DOCUMENTS):
    reranker = Reranker.from_model(
        tiny_model("llama"), byte_tokenizer(), profile=path, scoring=scoring, framework=framework
    )
    return reranker.rank(QUERY, documents)


def readings_of_all_heads(framework, scoring="attention"):
    """Likelihoods (for "mixed") and readings [document, layer and head, reading] of all heads."""
    reranker = Reranker.from_model(
        tiny_model("llama"), byte_tokenizer(), scoring=scoring, framework=framework,
        layers="all", reading="lift",
    )  # fmt: skip
    scorer = reranker.scorer
    query = scorer.prompts.encode_query(QUERY)
    ids = scorer.prompts.encode_documents(DOCUMENTS)
    if scoring == "mixed":
        return scorer.read(query, ids, Cost())
    if framework == "listwise":
        return None, scorer.read_documents(query, ids, Cost())
    return None, scorer.read_documents(query, ids, Cost())


def attention_scores(readings, weights):
    everything = dict.fromkeys(range(SHAPE.num_hidden_layers))
    return HeadScores(weights, everything, SHAPE.num_attention_heads)(readings)


@pytest.mark.parametrize("framework", ["listwise", "pointwise"])
def test_scores_are_those_of_the_weighted_readings(tmp_path, framework):
    profile = make(framework=framework)
    profile.save(tmp_path / "p.json")
    _, readings = readings_of_all_heads(framework)
    wanted = attention_scores(readings, profile.heads)
    assert len(set(wanted)) == 4
    ranking = rank(tmp_path / "p.json")
    assert list(ranking.scores) == pytest.approx(wanted, abs=1e-5)
    assert ranking.usage.layers == (1, 3)


def test_setwise_picks_what_the_weighted_readings_put_first(tmp_path):
    profile = make()
    profile.save(tmp_path / "p.json")
    _, readings = readings_of_all_heads("listwise")
    scores = attention_scores(readings, profile.heads)
    best = max(range(4), key=lambda place: scores[place])
    assert rank(tmp_path / "p.json", framework="setwise")[0].index == best


def test_mixed_adds_the_likelihood_with_its_weight(tmp_path):
    profile = make(scoring="mixed", framework="pointwise", likelihood_weight=0.7)
    profile.save(tmp_path / "p.json")
    likelihoods, readings = readings_of_all_heads("pointwise", "mixed")
    own = torch.tensor(attention_scores(readings, profile.heads), dtype=torch.float64)
    wanted = standardise(own) + 0.7 * standardise(likelihoods.double())
    assert list(rank(tmp_path / "p.json", "mixed").scores) == pytest.approx(
        wanted.tolist(), abs=1e-5
    )


def test_the_given_order_counts_with_the_weight_of_the_profile(tmp_path):
    plain, prior = tmp_path / "plain.json", tmp_path / "prior.json"
    make(framework="pointwise").save(plain)
    make(framework="pointwise", first_stage_weight=1000.0).save(prior)
    order = sorted(range(4), key=lambda place: rank(plain).scores[place])
    worst_first = [DOCUMENTS[place] for place in order]
    assert [hit.index for hit in rank(plain, documents=worst_first)] == [3, 2, 1, 0]
    assert [hit.index for hit in rank(prior, documents=worst_first)] == [0, 1, 2, 3]


@settings(max_examples=15)
@given(
    weights=st.lists(
        st.builds(
            HeadWeight,
            layer=st.integers(0, 4),
            head=st.integers(0, 3),
            reading=st.sampled_from(READINGS),
            weight=st.floats(-2, 2),
        ),
        min_size=1,
        max_size=6,
        unique_by=lambda item: (item.layer, item.head, item.reading),
    )
)
def test_any_weights_read_no_deeper_than_they_must(tmp_path_factory, weights):
    path = tmp_path_factory.mktemp("profiles") / "p.json"
    make(heads=tuple(weights), framework="pointwise").save(path)
    ranking = rank(path)
    _, readings = readings_of_all_heads("pointwise")
    assert list(ranking.scores) == pytest.approx(attention_scores(readings, weights), abs=1e-4)
    assert ranking.usage.layers == tuple(sorted({item.layer for item in weights}))
