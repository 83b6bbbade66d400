"""What is read: explicit settings, then a profile, then a preset, then the middle layers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from selection_parts import (
    HEADS,
    LAYERS,
    SMOLLM2,
    TINY,
    make_profile,
    select,
)
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker, RerankerConfig
from icr_rag.errors import ConfigError
from icr_rag.frameworks.combine import rule_of
from icr_rag.frameworks.evidence import FIRST_STAGE_WEIGHT
from icr_rag.profiles import HeadWeight, Profile, Shape, shipped
from icr_rag.scoring.selection import LIKELIHOOD_WEIGHT


@pytest.fixture
def saved(tmp_path):
    """Saves a profile for the tiny model; its path."""

    def save(**changes):
        path = tmp_path / "profile.json"
        make_profile(**changes).save(path)
        return str(path)

    return save


# --- the order of precedence ----------------------------------------------------------------


def test_without_anything_known_the_middle_layers():
    found = select(TINY)
    assert (found.layers, found.heads) == ([0, 1, 2, 3], dict.fromkeys(range(4)))
    assert found.weights is None
    assert found.framework == "listwise"
    assert found.source == "no preset for this model: the middle 4 of 5"


def test_a_preset_goes_before_the_middle_layers():
    found = select(SMOLLM2)
    assert found.weights == HEADS[Shape.of(SMOLLM2)][0].heads
    assert found.layers == sorted({item.layer for item in found.weights})
    assert found.source == HEADS[Shape.of(SMOLLM2)][0].method


def test_a_profile_goes_before_a_preset(tmp_path):
    path = tmp_path / "profile.json"
    weights = (HeadWeight(layer=29, head=8, reading="max"),)
    Profile(model="mine", shape=Shape.of(SMOLLM2), heads=weights).save(path)
    found = select(SMOLLM2, profile=str(path))
    assert (found.layers, found.heads, found.weights) == ([29], {29: [8]}, weights)
    assert found.framework == "listwise"
    assert found.source == f"profile {path}"


def test_explicit_settings_go_before_a_preset():
    by_layers = select(SMOLLM2, layers=(2, 3))
    assert (by_layers.heads, by_layers.weights) == ({2: None, 3: None}, None)
    by_heads = select(SMOLLM2, heads=((7, 1), (4, 0), (7, 0)))
    assert (by_heads.layers, by_heads.heads) == ([4, 7], {4: [0], 7: [1, 0]})
    assert by_heads.weights is None
    assert by_layers.source == by_heads.source == "as asked for"


def test_all_heads_are_those_of_the_window():
    """``heads="all"`` is explicit too, and ``layers="auto"`` is then a preset's window."""
    window = LAYERS[Shape.of(SMOLLM2)]
    found = select(SMOLLM2, heads="all")
    assert found.layers == list(range(window.layers[0], window.layers[1] + 1))
    assert found.source == window.method
    assert select(SMOLLM2, layers="all").layers == list(range(30))


def test_a_whole_layer_is_read_at_once():
    pairs = tuple((2, head) for head in range(4))
    assert select(heads=(*pairs, (3, 1))).heads == {2: None, 3: [1]}


def test_a_reading_weighs_all_that_is_read_alike():
    found = select(layers=(1, 2), reading="lift")
    assert {item.reading for item in found.weights} == {"lift"}
    assert {item.weight for item in found.weights} == {1 / 8}
    assert [(item.layer, item.head) for item in found.weights] == [
        (layer, head) for layer in (1, 2) for head in range(4)
    ]


# --- profiles -------------------------------------------------------------------------------


def test_weights_of_a_profile(saved):
    found = select(profile=saved(first_stage_weight=0.25))
    assert (found.layers, found.heads) == ([1, 3], {1: [0], 3: [2]})
    assert found.weights == make_profile().heads
    assert found.first_stage_weight == 0.25


def test_layers_of_a_profile_are_added_up_as_icr_does(saved):
    found = select(profile=saved(heads=(), layers=(2, 4), framework="pointwise"))
    assert (found.layers, found.weights) == ([2, 3, 4], None)
    assert found.heads == {2: None, 3: None, 4: None}
    assert found.framework == "pointwise"


def test_layers_of_a_profile_keep_its_other_weights(saved):
    path = saved(
        heads=(), layers=(2, 3), scoring="mixed", framework="pointwise",
        likelihood_weight=0.75, first_stage_weight=0.5,
    )  # fmt: skip
    found = select(profile=path, scoring="mixed")
    assert (found.likelihood_weight, found.first_stage_weight) == (0.75, 0.5)


@pytest.mark.parametrize("framework", ["listwise", "setwise", "pointwise"])
def test_a_profile_says_the_framework_where_nobody_else_does(saved, framework):
    path = saved(framework=framework)
    assert select(profile=path).framework == framework
    assert select(profile=path, framework=framework).framework == framework


def test_listwise_and_setwise_share_profiles(saved):
    assert select(profile=saved(), framework="setwise").framework == "setwise"
    assert select(profile=saved(framework="setwise"), framework="listwise").framework == "listwise"


@pytest.mark.parametrize(
    ("settings", "of_profile"),
    [
        ({"framework": "pointwise"}, {}),
        ({"framework": "listwise"}, {"framework": "pointwise"}),
        ({"framework": "setwise"}, {"framework": "pointwise"}),
        ({"scoring": "mixed"}, {"framework": "pointwise"}),
        ({}, {"scoring": "mixed", "framework": "pointwise"}),
        ({"document_states": "independent"}, {}),
        ({"framework": "listwise"}, {"document_states": "independent"}),
    ],
)
def test_a_profile_for_another_way_of_scoring_is_refused(saved, settings, of_profile):
    path = saved(**of_profile)
    with pytest.raises(ConfigError) as caught:
        select(profile=path, **settings)
    message = str(caught.value)
    profile, config = make_profile(**of_profile), RerankerConfig(**settings).settled()
    assert f"profile={path!r}" in message
    assert f"scoring={profile.scoring!r}, framework={profile.framework!r} and " in message
    assert f"document_states={profile.document_states!r}, not for {config.scoring!r}, " in message
    assert f"{config.framework!r} and {config.document_states!r}" in message
    assert message.endswith("set these three, or make another one")


def test_pointwise_profiles_serve_kept_states_and_none(saved):
    for made in ("joint", "independent"):
        path = saved(framework="pointwise", document_states=made)
        for used in ("joint", "independent"):
            assert select(profile=path, document_states=used).weights is not None
    path = saved(document_states="independent")
    assert select(profile=path, document_states="independent").framework == "listwise"


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "qwen2"},
        {"num_hidden_layers": 6},
        {"hidden_size": 64},
        {"num_attention_heads": 8},
    ],
)
def test_a_profile_for_another_shape_is_refused(saved, change):
    path = saved(shape=Shape.of(TINY).model_copy(update=change))
    with pytest.raises(ConfigError) as caught:
        select(profile=path, model="mine")
    message = str(caught.value)
    assert path in message
    assert "was made for somebody/tiny" in message
    assert "but mine is" in message
    assert message.endswith("make one with `icr-rag profile`")


def test_a_profile_knows_a_model_by_shape_whatever_its_name(saved):
    config = RerankerConfig(model="another/name", profile=saved())
    reranker = Reranker.from_model(tiny_model("llama"), byte_tokenizer(), config)
    assert reranker.rank("q?", ["a", "b"]).usage.layers == (1, 3)
    other = Reranker.from_model(tiny_model("qwen3"), byte_tokenizer(), config)
    with pytest.raises(ConfigError, match="icr-rag profile"):
        other.rank("q?", ["a", "b"])


# --- the other weights ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fusion", "of_profile", "weight"),
    [
        ("auto", 0.0, 0.0),
        ("auto", 0.7, 0.7),
        ("none", 0.7, 0.0),
        ("rrf", 0.7, 0.0),
        ("weighted", 0.7, 0.0),
        ("prior", 0.7, 0.7),
        ("prior", 0.0, FIRST_STAGE_WEIGHT),
    ],
)
def test_weight_of_the_given_order(saved, fusion, of_profile, weight):
    for others in ({}, {"heads": (), "layers": (1, 2)}):
        found = select(profile=saved(first_stage_weight=of_profile, **others), fusion=fusion)
        assert found.first_stage_weight == of_profile
        scores = {"scores": [1.0, 2.0]} if fusion == "weighted" else {}
        rule = rule_of(fusion, 0.5, found.first_stage_weight, scores)
        assert (rule.fused["order"] if rule.name == "sum" else 0.0) == weight


def test_mixed_without_a_profile():
    found = select(scoring="mixed")
    assert found.likelihood_weight == LIKELIHOOD_WEIGHT
    assert {item.reading for item in found.weights} == {"log_mass"}


# --- what does not fit ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"layers": (3, 5)}, r"layers=\(3, 5\), but mine has layers 0 to 4"),
        ({"heads": ((5, 0),)}, r"\(5, 0\), but mine has layers 0 to 4 with heads 0 to 3"),
        ({"heads": ((4, 4),)}, r"\(4, 4\), but mine has layers 0 to 4 with heads 0 to 3"),
    ],
)
def test_layers_and_heads_that_the_model_lacks(settings, said):
    with pytest.raises(ConfigError, match=said):
        select(model="mine", **settings)


# --- what is loaded -------------------------------------------------------------------------


def loaded(folder, **settings):
    """Decoder layers in memory, and whether there is an LM head."""
    reranker = Reranker(model=folder, dtype="float32", **settings)
    ranking = reranker.rank("q?", ["a", "b"])
    assert len(ranking) == 2
    return len(reranker.engine.decoder.layers), reranker.engine.causal is not None


@pytest.mark.parametrize(
    ("settings", "layers", "lm_head"),
    [
        ({"layers": (1, 2)}, 3, False),
        ({"heads": ((1, 3), (0, 0))}, 2, False),
        ({"heads": ((1, 3),), "framework": "pointwise"}, 2, False),
        ({"heads": ((1, 3),), "framework": "setwise", "reading": "lift"}, 2, False),
        ({"layers": "all"}, 5, False),
        ({"layers": (0, 1), "scoring": "mixed"}, 5, True),
        ({"scoring": "likelihood"}, 5, True),
        ({"scoring": "generation"}, 5, True),
    ],
)
def test_layers_above_the_last_one_read_are_not_loaded(model_folder, settings, layers, lm_head):
    assert loaded(model_folder, **settings) == (layers, lm_head)


def test_a_profile_decides_what_is_loaded(model_folder, saved):
    assert loaded(model_folder, profile=saved()) == (4, False)
    assert loaded(model_folder, profile=saved(heads=(), layers=(0, 1))) == (2, False)


def test_a_folder_finds_its_preset_whatever_it_is_called(model_folder, tmp_path, monkeypatch):
    folder = tmp_path / "qwen3-8b"
    shutil.copytree(model_folder, folder)
    assert json.loads(Path(folder, "config.json").read_text())["model_type"] == "llama"
    assert loaded(str(folder)) == (4, False)
    weights = (HeadWeight(layer=1, head=0), HeadWeight(layer=0, head=3))
    replaced = make_profile(framework="pointwise", heads=weights)
    monkeypatch.setattr(shipped, "shipped_profiles", lambda: (replaced,))
    assert loaded(str(folder)) == (2, False)
