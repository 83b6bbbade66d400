"""Settings from files and from the environment."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_rag import RerankerConfig
from icr_rag.errors import ConfigError

SETTINGS = {
    "model": "org/name",
    "revision": "1e10",
    "layers": [10, 13],
    "heads": [[10, 3], [12, 0]],
    "top_n": 5,
    "token_mask": False,
    "null_query": "no",
    "score_threshold": 0.25,
}
EXPECTED = RerankerConfig(**SETTINGS)


def test_yaml_toml_and_environment_give_the_same(tmp_path):
    (tmp_path / "a.yaml").write_text(json.dumps(SETTINGS))
    lines = [f"{name} = {json.dumps(value)}" for name, value in SETTINGS.items()]
    (tmp_path / "a.toml").write_text("\n".join(lines))
    environment = {
        "ICR_RAG_MODEL": "org/name",
        "ICR_RAG_REVISION": "1e10",
        "ICR_RAG_LAYERS": "10-13",
        "ICR_RAG_HEADS": "[[10, 3], [12, 0]]",
        "ICR_RAG_TOP_N": "5",
        "ICR_RAG_TOKEN_MASK": "false",
        "ICR_RAG_NULL_QUERY": "no",
        "ICR_RAG_SCORE_THRESHOLD": "0.25",
        "ICR_RAG_CACHE": "/elsewhere",
        "HOME": "/root",
    }
    assert RerankerConfig.from_file(tmp_path / "a.yaml") == EXPECTED
    assert RerankerConfig.from_file(str(tmp_path / "a.toml")) == EXPECTED
    assert RerankerConfig.from_env(environment=environment) == EXPECTED


def test_the_processes_own_environment_and_another_prefix(monkeypatch):
    monkeypatch.setenv("RANKER_TOP_N", "null")
    monkeypatch.setenv("RANKER_REVISION", "null")
    monkeypatch.setenv("RANKER_LAYERS", "all")
    assert RerankerConfig.from_env("RANKER_") == RerankerConfig(layers="all")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ICR_RAG_LAYER", "all", "unknown environment variable .*did you mean ICR_RAG_LAYERS"),
        ("ICR_RAG_XYZ", "", "unknown environment variable ICR_RAG_XYZ"),
        ("ICR_RAG_TOP_N", "five", "top_n='five'"),
        ("ICR_RAG_HEADS", "[[", r"ICR_RAG_HEADS='\[\[' cannot be read"),
        ("ICR_RAG_LAYERS", "13-10", "layers='13-10': a layer window"),
    ],
)
def test_a_wrong_variable_is_named(name, value, message):
    with pytest.raises(ConfigError, match=message):
        RerankerConfig.from_env(environment={name: value})


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("a.yaml", "layers: [", r"a\.yaml cannot be parsed"),
        ("a.toml", "layers = ", r"a\.toml cannot be parsed"),
        ("a.json", "{}", r"a\.json: allowed are \.yaml"),
        ("a.yaml", "- 1", "must hold fields and values, not a list"),
        ("a.yaml", "layer: all", "unknown setting 'layer'; did you mean 'layers'"),
        ("a.yaml", b"\xff", "cannot read configuration"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, file, text, message):
    (tmp_path / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=message):
        RerankerConfig.from_file(tmp_path / file)
    with pytest.raises(ConfigError, match="cannot read configuration"):
        RerankerConfig.from_file(tmp_path / "none.yaml")


def test_an_empty_file_is_the_defaults(tmp_path):
    (tmp_path / "a.yml").touch()
    assert RerankerConfig.from_file(tmp_path / "a.yml") == RerankerConfig()


@given(
    layers=st.just("auto") | st.tuples(st.integers(0, 9), st.integers(9, 20)),
    top_n=st.none() | st.integers(0, 50),
    weight=st.floats(0, 1),
    query=st.text(min_size=1, max_size=5),
)
def test_a_configuration_survives_json(layers, top_n, weight, query):
    config = RerankerConfig(
        layers=layers, top_n=top_n, fusion="rrf", fusion_weight=weight, null_query=query
    )
    assert RerankerConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_schema_holds_every_field_and_is_strict():
    jsonschema = pytest.importorskip("jsonschema")
    schema = RerankerConfig.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert set(schema["properties"]) == set(RerankerConfig.model_fields)
    jsonschema.validate(EXPECTED.to_dict(), schema)
    jsonschema.validate({"layers": "10-13"}, schema)
    for wrong in ({"layer": "all"}, {"layers": "most"}, {"top_n": -1}, {"fusion": "sum"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_lift_needs_the_null_query():
    with pytest.raises(ConfigError, match="needs calibration='null'"):
        RerankerConfig(score_mode="lift", calibration="none")
