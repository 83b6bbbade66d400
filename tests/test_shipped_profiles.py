"""The profiles in the package: files as `Profile.save` writes them, each for one purpose."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest

import icr_rag
from icr_rag.errors import ConfigError
from icr_rag.profiles import Profile, Shape, shipped

FOLDER = Path(icr_rag.__file__).parent / "profiles"
FILES = sorted(FOLDER.glob("*.json"))
SMOLLM2 = Shape(model_type="llama", num_hidden_layers=30, hidden_size=576, num_attention_heads=9)
QWEN3_4B = Shape(model_type="qwen3", num_hidden_layers=36, hidden_size=2560, num_attention_heads=32)
LLAMA_8B = Shape(model_type="llama", num_hidden_layers=32, hidden_size=4096, num_attention_heads=32)
LLAMA_1B = Shape(model_type="llama", num_hidden_layers=16, hidden_size=2048, num_attention_heads=32)
LLAMA_3B = Shape(model_type="llama", num_hidden_layers=28, hidden_size=3072, num_attention_heads=24)
QWEN25_7B = Shape(
    model_type="qwen2", num_hidden_layers=28, hidden_size=3584, num_attention_heads=28
)
MISTRAL_7B = LLAMA_8B.model_copy(update={"model_type": "mistral"})
FRAMEWORKS = ("listwise", "setwise", "pointwise")
STATES = ("joint", "independent", "blind")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_file_is_a_profile_that_says_where_it_comes_from(path):
    profile = Profile.load(path)
    assert profile in shipped.shipped_profiles()
    assert "/" in profile.model
    # A paper, or a page of this repository, and programs in it.
    assert "arXiv" in profile.method or "docs/" in profile.method
    assert all("benchmarks/" in figures["from"] for figures in profile.measured.values())
    assert profile.data
    assert ("published" in profile.data) == ("arXiv" in profile.method) == (not profile.measured)
    # Its name says what it is for.
    kind = [profile.scoring, profile.framework] if profile.heads else ["layers"]
    if profile.layers is None and not profile.heads:
        kind = [profile.scoring, profile.likelihood]
    states = [] if profile.document_states == "joint" else [profile.document_states]
    assert path.stem.endswith("." + ".".join(kind + states))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_file_is_as_it_would_be_written(path, tmp_path):
    Profile.load(path).save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    assert Profile.load(tmp_path / "again.json") == Profile.load(path)


def test_no_two_serve_the_same():
    assert len(shipped.shipped_profiles()) == len(FILES) > 0
    served = [
        (bool(profile.heads), profile.shape, profile.scoring, profile.likelihood, framework, states)
        for profile in shipped.shipped_profiles()
        for framework, states in product(FRAMEWORKS, STATES)
        if profile.serves(framework, states)
    ]
    assert len(set(served)) == len(served)
    windows = [profile.shape for profile in shipped.shipped_profiles() if profile.layers]
    assert len(set(windows)) == len(windows)


def config(shape):
    return SimpleNamespace(**shape.model_dump())


def heads_of(shape, scoring, framework, states="joint"):
    profile = shipped.shipped_profile(config(shape), scoring, framework, states)
    return [(item.layer, item.head, item.reading, item.weight) for item in profile.heads]


@pytest.mark.parametrize(
    ("scoring", "framework", "states", "first", "last"),
    [
        ("attention", "pointwise", "joint", (16, 4, 0.3354), (19, 7, 0.0177)),
        ("attention", "pointwise", "independent", (16, 4, 0.3354), (19, 7, 0.0177)),
        ("attention", "auto", "joint", (16, 4, 0.3354), (19, 7, 0.0177)),
        ("attention", "auto", "independent", (16, 4, 0.3354), (19, 7, 0.0177)),
        ("mixed", "pointwise", "joint", (16, 4, 0.3253), (18, 3, 0.0463)),
        ("attention", "listwise", "independent", (8, 0, 0.4493), (9, 0, 0.0315)),
        ("attention", "setwise", "independent", (8, 0, 0.4493), (9, 0, 0.0315)),
        ("attention", "listwise", "blind", (8, 0, 0.4113), (19, 0, -0.0462)),
        ("attention", "auto", "blind", (8, 0, 0.4113), (19, 0, -0.0462)),
    ],
)
def test_heads_of_the_embedded_model(scoring, framework, states, first, last):
    heads = heads_of(SMOLLM2, scoring, framework, states)
    # Likelihood runs all layers anyhow; attention alone leaves a quarter of them unrun.
    assert len(heads) == (128 if scoring == "mixed" else 64)
    assert max(layer for layer, *_ in heads) == (29 if scoring == "mixed" else 21)
    assert {reading for _, _, reading, _ in heads} == {"log_mass"}
    assert heads[0] == (*first[:2], "log_mass", first[2])
    assert heads[-1] == (*last[:2], "log_mass", last[2])
    profile = shipped.shipped_profile(config(SMOLLM2), scoring, framework, states)
    assert profile.first_stage_weight == 0.3
    assert profile.likelihood_weight == (1.0 if scoring == "mixed" else 0.0)


def test_held_out_figures_stand_in_both_files_of_one_way_of_reading():
    found = [
        shipped.shipped_profile(config(SMOLLM2), scoring, "pointwise", "joint").held_out
        for scoring in ("attention", "mixed")
    ]
    assert found[0] == found[1] is not None
    assert set(found[0].figures()) == {"attention", "likelihood", "mixed"}


@pytest.mark.parametrize(
    ("shape", "first", "last", "count"),
    [
        (QWEN3_4B, (20, 15), (21, 31), 16),
        (LLAMA_8B, (13, 18), (14, 20), 8),
        (MISTRAL_7B, (15, 21), (18, 0), 8),
        (LLAMA_1B, (8, 21), (8, 20), 16),
        (LLAMA_3B, (13, 16), (18, 11), 16),
        (QWEN25_7B, (16, 19), (20, 21), 16),
    ],
)
def test_published_heads_weigh_the_same(shape, first, last, count):
    heads = heads_of(shape, "attention", "listwise")
    assert len(heads) == count
    assert {item[2:] for item in heads} == {("calibrated", 1 / count)}
    assert (heads[0][:2], heads[-1][:2]) == (first, last)
    assert heads_of(shape, "attention", "setwise") == heads
    assert shipped.shipped_profile(config(shape), "attention", "pointwise") is None
    assert shipped.shipped_profile(config(shape), "mixed", "auto") is None
    assert shipped.shipped_profile(config(shape), "attention", "auto", "blind") is None


@pytest.mark.parametrize(
    ("shape", "window", "name"),
    [
        (SMOLLM2, [18], "SmolLM2-135M: best single layer"),
        (("qwen3", 28, 1024, 16), [10, 11, 12, 13], "arXiv 2602.22591"),
        (("qwen3", 36, 4096, 32), [18, 19, 20, 21], "arXiv 2602.22591"),
    ],
)
def test_windows_are_for_layers_alone(shape, window, name):
    if isinstance(shape, tuple):
        shape = Shape(**dict(zip(Shape.model_fields, shape, strict=True)))
        assert shipped.shipped_profile(config(shape), "attention", "listwise") is None
    layers, reason = shipped.auto_layers(config(shape))
    assert layers == window
    assert name in reason
    assert shipped.auto_layers(config(QWEN3_4B))[0] == [16, 17, 18, 19]


def test_looking_one_up_loads_nothing_else():
    code = (
        "import sys, types\n"
        "from icr_rag.profiles import shipped\n"
        "before = shipped.shipped_profiles.cache_info().currsize\n"
        f"config = types.SimpleNamespace(**{SMOLLM2.model_dump()!r})\n"
        "for _ in range(2):\n"
        "    assert shipped.shipped_profile(config, 'attention', 'auto').heads\n"
        "heavy = {'torch', 'transformers', 'numpy', 'icr_rag.evaluation', 'icr_rag.model'}\n"
        "print(before, shipped.shipped_profiles.cache_info().misses, heavy & set(sys.modules))"
    )
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (outcome.stdout, outcome.stderr) == ("0 1 set()\n", "")


def test_an_installation_without_the_files_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped.resources, "files", lambda package: tmp_path)
    with pytest.raises(ConfigError, match="install icr_rag again"):
        shipped.shipped_profiles.__wrapped__()


def test_another_file_is_found_by_being_there(tmp_path, monkeypatch):
    values = json.loads((FOLDER / "qwen3-8b.layers.json").read_text(encoding="utf-8"))
    values["shape"]["hidden_size"] = 123
    (tmp_path / "mine.layers.json").write_text(json.dumps(values))
    (tmp_path / "shipped.py").write_text("")
    monkeypatch.setattr(shipped.resources, "files", lambda package: tmp_path)
    (found,) = shipped.shipped_profiles.__wrapped__()
    assert found.shape.hidden_size == 123
