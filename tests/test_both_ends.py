"""`make test-oldest` tests the lower bounds themselves, and not what happens to lie above them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("ends", ROOT / "scripts" / "test_versions.py")
ends = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ends)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with these bounds."""
    (tmp_path / "pyproject.toml").write_text(
        'dependencies = ["One>=1.2", "two>=3.0; python_version < \'3.11\'"]\n'
        'dev = [\n    "tool>=1",\n]\n'
    )
    monkeypatch.setattr(ends, "ROOT", tmp_path)


@pytest.mark.parametrize(
    ("resolved", "told"),
    [
        ("one==1.2\ntwo==3.0\n", []),
        ("one==1.2.0\ntwo==3\n", []),
        ("one==1.20\n", ["one"]),
        ("one==1.2.1\ntwo==3.0.1\n", ["one", "two"]),
        # What others bring, and tools, have no bound to be held to.
        ("brought==9\ntool==7\n", []),
    ],
)
def test_what_is_above_its_bound_is_told(project, resolved, told):
    lines = ends.above_bounds(resolved)
    assert [re.match(r" +([\w-]+): the lower bound is", line)[1] for line in lines] == told


def test_both_ends_install_every_extra_but_those_for_a_gpu_a_cluster_and_for_us():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    extras = set(re.findall(r"(?m)^([\w-]+) = \[", section))
    assert set(ends.EXTRAS) == extras - {"quantization", "ray", "all", "dev"}


def test_what_is_run_exists():
    assert all((ROOT / test).exists() for test in ends.TESTS)
