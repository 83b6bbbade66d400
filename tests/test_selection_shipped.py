"""Layers and heads by the profiles that ship."""

from __future__ import annotations

import copy

import pytest
import transformers
from selection_parts import (
    CLASSES,
    HEADS,
    QWEN3,
    SMOLLM2,
    known,
    select,
)


@pytest.mark.parametrize(
    "shape", HEADS, ids=lambda shape: f"{shape.model_type}-{shape.hidden_size}"
)
@pytest.mark.parametrize("name", ["smollm2-135m", "/a/local/folder", "Qwen/Qwen3-8B"])
def test_presets_are_found_by_shape_and_never_by_name(shape, name):
    config = getattr(transformers, CLASSES[shape.model_type])(
        **shape.model_dump(exclude={"model_type"}), name_or_path="some/mirror"
    )
    wider = copy.copy(config)
    wider.hidden_size *= 2
    for preset in HEADS[shape]:
        settings = {
            "model": name,
            "scoring": preset.scoring,
            "framework": preset.framework,
            "document_states": preset.document_states,
        }
        found = select(config, **settings)
        assert (found.weights, found.source) == (preset.heads, preset.method)
        other = select(wider, **settings)
        assert other.weights != preset.heads
        assert other.source.startswith("no preset for this model")


def test_presets_are_for_one_way_of_scoring():
    assert select(QWEN3, framework="pointwise").source.startswith("no preset")
    assert select(QWEN3, scoring="mixed").source.startswith("no preset")
    assert select(QWEN3, framework="setwise").weights == select(QWEN3).weights
    # What was found on prompts whose documents see each other is not used on others.
    apart = select(QWEN3, framework="listwise", document_states="independent")
    assert apart.source.startswith("no preset")
    # The embedded model's is pointwise: listwise reads the window of layers instead.
    assert select(SMOLLM2, framework="listwise").layers == [18]
    assert select(SMOLLM2, framework="auto").framework == "pointwise"
    kept = {"framework": "auto", "document_states": "independent"}
    assert select(SMOLLM2, **kept).framework == "pointwise"
    shared = select(SMOLLM2, **{**kept, "framework": "listwise"})
    assert shared.weights not in (None, select(SMOLLM2, **kept).weights)


def test_published_heads_are_those_of_their_paper():
    mistral = known("mistral")
    pairs = [(item.layer, item.head) for item in select(mistral).weights]
    assert pairs == [(15, 21), (15, 1), (16, 12), (15, 7), (9, 26), (12, 11), (12, 7), (18, 0)]
    for shape, presets in HEADS.items():
        for preset in presets:
            assert all(item.layer < shape.num_hidden_layers for item in preset.heads)
            assert all(item.head < shape.num_attention_heads for item in preset.heads)
            assert preset.method


#: A setting of ICR's own sum or prompt is a wish for these, not for weighted heads.
OWN = [
    {"aggregation": "mean"},
    {"token_mask": False},
    {"calibration": "none"},
    {"score_mode": "lift"},
    {"double_query": True},
    {"order": "given"},
    {"window": 5},
    {"stride": 2},
    {"reading": "calibrated"},
    {"heads": "all"},
    {"layers": "all"},
]


@pytest.mark.parametrize("settings", OWN, ids=lambda settings: next(iter(settings)))
@pytest.mark.parametrize("text_config", [SMOLLM2, QWEN3], ids=["smollm2", "qwen3"])
def test_settings_of_icr_itself_switch_presets_off(settings, text_config):
    found = select(text_config, **settings)
    assert found.weights is None
    assert found.framework == "listwise"
    assert found.first_stage_weight == 0.0


@pytest.mark.parametrize(
    "settings",
    [
        {"fusion": "rrf"},
        {"top_n": 3},
        {"max_document_tokens": 9},
        {"instruction": "question_answering"},
        {"instruction": "Find what refutes this claim."},
    ],
)
def test_other_settings_leave_presets_on(settings):
    assert select(SMOLLM2, **settings).weights == select(SMOLLM2).weights
