"""Settings of a server on several machines, as they come from `serve run` and from YAML."""

from __future__ import annotations

import pytest

from icr_rag.errors import ConfigError
from icr_rag.server.ray_settings import ClusterSettings


def test_one_model_stands_beside_the_other_settings_and_text_is_read_as_numbers(tmp_path):
    path = tmp_path / "reranker.yaml"
    path.write_text("model: org/name\nscoring: likelihood\n")
    made = ClusterSettings.of(
        {"config": str(path), "max_replicas": "4", "num_gpus": "0.25", "attempts": "2"}
    )
    assert list(made.models) == ["org/name"]
    own = made.models["org/name"]
    assert (own.max_replicas, own.num_gpus, made.attempts) == (4, 0.25, 2)
    assert own.reranker_settings()["scoring"] == "likelihood"


def test_several_models_have_settings_of_their_own():
    made = ClusterSettings.of(
        {
            "models": {
                "small": {"reranker": {"model": "smollm2-135m"}, "max_replicas": 8},
                "large": {"reranker": {"model": "org/name", "device_map": "auto"}, "num_gpus": 2},
            }
        }
    )
    assert list(made.models) == ["small", "large"]
    assert made.models["large"].reranker_settings()["device_map"] == "auto"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"max_replica": 2}, "unknown setting 'max_replica'; did you mean 'max_replicas'"),
        ({"max_replicas": "many"}, "max_replicas='many'"),
        ({"min_replicas": 3}, "min_replicas=3 is more than max_replicas=1"),
        ({"reranker": {"modell": "x"}}, "modell"),
        ({"config": "none.yaml"}, "none.yaml"),
        ({"attempts": 0}, "attempts=0"),
        ({"app": "no function"}, "app='no function'"),
        ({"models": {}}, "models"),
        ({"models": {"a": {}}, "num_gpus": 1}, "num_gpus beside models"),
        ({"models": {"a": {"num_gpus": -1}}}, r"in models\.a"),
    ],
)
def test_what_is_wrong_is_named(arguments, words):
    with pytest.raises(ConfigError, match=words):
        ClusterSettings.of(arguments)
