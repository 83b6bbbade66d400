"""What deploy/ says to other programs: it parses, fits their schemas where these are here, and
names what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from icr_rag import RerankerConfig

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
FILES = sorted(path for path in DEPLOY.rglob("*") if path.suffix in (".yaml", ".json"))


def load(name):
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_files_parse(path):
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)


def test_the_dashboard_asks_for_metrics_that_there_are():
    pytest.importorskip("prometheus_client", reason="needs icr-rag[server]")
    from icr_rag.server.meters import Meters

    meters = Meters()
    meters.show_states(lambda: (1, 1, 1, 1))
    there = {
        sample.name for family in meters.registry.collect() for sample in family.samples
    } | {  # With labels, there is no sample before the first request.
        family.name + ending
        for family in meters.registry.collect()
        for ending in {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(
            family.type, [""]
        )
    }
    dashboard = load("grafana/dashboards/icr_rag.json")
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"\b(?:icr_rag|process)_\w+", target["expr"])
        if name != "icr_rag"
    }
    assert len(asked) > 12
    assert asked <= there, asked - there


def test_the_reranker_s_settings_are_settings():
    assert RerankerConfig.from_file(DEPLOY / "reranker.yaml").states_dir == "/data/states"


def test_the_server_in_the_image_needs_a_key():
    pytest.importorskip("fastapi", reason="needs icr-rag[server]")
    from icr_rag.errors import ConfigError
    from icr_rag.server.settings import ServerSettings

    lines = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").splitlines()
    entry = json.loads(next(x for x in lines if x.startswith("ENTRYPOINT")).split(" ", 1)[1])
    assert entry[:2] == ["icr-rag", "serve"]
    flags = dict(zip(entry[2::2], entry[3::2], strict=True))
    with pytest.raises(ConfigError, match="there is no API key"):
        ServerSettings(host=flags["--host"], port=int(flags["--port"]))
    # As compose gives one.
    assert (
        "--keys-file=/run/secrets/api_key" in load("compose.yaml")["services"]["icr_rag"]["command"]
    )
    assert next(line for line in lines if line.startswith("USER")) == "USER 1000"


def test_the_cluster_s_settings_are_settings(monkeypatch):
    from icr_rag.server.ray_ingress import make_server
    from icr_rag.server.ray_settings import ClusterSettings

    monkeypatch.setenv("ICR_RAG_API_KEY", "long-enough-for-a-key")
    service = load("rayservice.yaml")
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    settings = ClusterSettings.of(application["args"])
    for own in settings.models.values():
        assert own.reranker_settings()["model"]
    assert make_server(settings.server)
    module, _, function = application["import_path"].partition(":")
    source = Path(__file__).resolve().parents[1] / (module.replace(".", "/") + ".py")
    assert f"def {function}(" in source.read_text(encoding="utf-8")


def test_serve_takes_its_part_of_the_cluster():
    schema = pytest.importorskip("ray.serve.schema", reason="needs icr-rag[ray]")
    config = yaml.safe_load(load("rayservice.yaml")["spec"]["serveConfigV2"])
    assert schema.ServeDeploySchema.model_validate(config)
