"""benchmarks/make_profiles.py: all profiles of several models, on random weights."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
from test_cli_calibrate import LIKELIHOOD, folders, heads
from test_profiling_queries import CORPUS
from tiny import tiny_model

from icr_rag import Reranker, cli
from icr_rag.profiles import Profile, Shape

__all__ = ["folders", "heads"]

PATH = Path(__file__).resolve().parent.parent / "benchmarks" / "make_profiles.py"
SMALL = "--limit 6 --depth 8 --max-document-tokens 40 --dtype float32 --device cpu"


@pytest.fixture
def program(monkeypatch):
    """The program, with calls in this process, and the calls that were made."""
    spec = importlib.util.spec_from_file_location("make_profiles", PATH)
    module = importlib.util.module_from_spec(spec)
    # Its dataclass looks its module up.
    monkeypatch.setitem(sys.modules, "make_profiles", module)
    spec.loader.exec_module(module)
    module.calls = []

    def run(arguments):
        module.calls.append(arguments)
        return cli.main(arguments)

    monkeypatch.setattr(module, "run", run)
    return module


@pytest.fixture
def given(tmp_path, model_folder):
    notes = tmp_path / "notes.jsonl"
    rows = [{"id": n, "title": d.title, "text": d.text} for n, d in CORPUS.items()]
    notes.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    shutil.copytree(model_folder, tmp_path / "Tiny")
    return [
        str(notes), "--models", str(tmp_path / "absent"), str(tmp_path / "Tiny"),
        "--out", str(tmp_path / "out"), "--options", SMALL,
    ]  # fmt: skip


def test_every_way_of_reading_of_every_model_that_loads(program, given, tmp_path, capsys):
    assert program.main(given) == 1
    told = capsys.readouterr().out
    assert told.count("FAILED, exit code 1") == told.count("absent.") == len(program.HEADS)
    for name in program.HEADS:
        assert f"tiny.{name}.json: made" in told
        path = tmp_path / "out" / "tiny" / f"tiny.{name}.json"
        made = Profile.load(path)
        states = [] if made.document_states == "joint" else [made.document_states]
        assert name == ".".join([made.scoring, made.framework, *states])
        fields = {"document_states": made.document_states, "profile": str(path)}
        with Reranker(model=str(tmp_path / "Tiny"), dtype="float32", **fields) as reranker:
            assert reranker.rank("tin", ["Tin melts.", "Gold."]).usage.scoring == made.scoring
    # The same command again does what is missing.
    program.calls.clear()
    (tmp_path / "out" / "tiny" / "tiny.mixed.pointwise.json").unlink()
    tiny = [argument for argument in given if not argument.endswith("absent")]
    assert program.main(tiny) == 0
    assert ["mixed" in call for call in program.calls] == [True]
    assert capsys.readouterr().out.count("there already") == len(program.HEADS) - 1


def test_probabilities_are_added_to_what_has_absolute_scores(program, given, folders, capsys):
    pytest.importorskip("sklearn")
    labelled = folders("likelihood", LIKELIHOOD)
    tiny = [argument for argument in given if not argument.endswith("absent")]
    tiny += ["--purposes", "attention.listwise.blind", "--calibrate", str(labelled)]
    assert program.main(tiny) == 0
    assert capsys.readouterr().out.endswith("tiny.likelihood.query.json: made\n")
    made = Profile.load(program.calls[-1][program.calls[-1].index("--out") + 1])
    assert made.calibration is not None
    assert (made.scoring, made.likelihood) == ("likelihood", "query")


def test_heads_are_calibrated_as_they_were_made(program, given, tmp_path, monkeypatch):
    """And not at all where there are none: nothing is calibrated in their place."""
    monkeypatch.setattr(program, "run", lambda call: program.calls.append(call) or 1)
    arguments = [*given, "--calibrate", "labelled", "--teach", "--read lift", "--kind", "isotonic"]
    assert program.main(arguments) == 1
    choosing, fitting = [], []
    for call in program.calls:
        (fitting if "--calibrate" in call else choosing).append(call)
    assert len(choosing) == 2 * len(program.HEADS)
    assert all("--read" in call for call in choosing)
    assert ["likelihood" in call for call in fitting] == [True, True]
    assert not any("--read" in call for call in fitting)
    program.calls.clear()
    shape = Shape.of(tiny_model("llama").config)
    path = tmp_path / "out" / "tiny" / "tiny.mixed.pointwise.json"
    made = Profile(scoring="mixed", framework="pointwise", model="t", shape=shape, layers=(1, 2))
    made.save(path)
    program.main([*arguments, "--purposes", "mixed.pointwise"])
    (call,) = [call for call in program.calls if "mixed" in call and "Tiny" in " ".join(call)]
    assert call[1] == "labelled"
    tail = ["--calibrate", "isotonic", "--model", str(tmp_path / "Tiny"), "--out", str(path),
            "--method", "none", "--profile", str(path)]  # fmt: skip
    assert call[-len(tail) :] == tail


def test_a_call_is_a_process_of_its_own(monkeypatch):
    spec = importlib.util.spec_from_file_location("make_profiles", PATH)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "make_profiles", module)
    spec.loader.exec_module(module)
    assert module.run(["--version"]) == 0
    assert module.run(["no-such-command"]) == 2


def test_a_dry_run_prints_the_calls_and_does_nothing(program, given, tmp_path, capsys):
    labelled = str(tmp_path / "labelled")
    assert program.main([*given, "--calibrate", labelled, "--dry-run"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2 * (len(program.HEADS) + len(program.CALIBRATED))
    assert all(": icr-rag profile " in line and SMALL in line for line in told)
    assert program.calls == []
    assert not (tmp_path / "out").exists()
