"""`icr-rag reproduce`: entries, what can run, and what counts as the same number."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from icr_rag.cli.app import app, run
from icr_rag.errors import ConfigError
from icr_rag.evaluation import reproduce
from icr_rag.evaluation.grid_config import load_grid, systems
from icr_rag.evaluation.reproduce import load_checks, run_checks, select

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "benchmarks" / "reproduce.yaml"

#: Writes what it is given as JSON, and a line for each time it was run.
STUB = """\
import json, pathlib, sys
out, value = pathlib.Path(sys.argv[1]), sys.argv[2]
with open(sys.argv[3], "a") as log:
    log.write(value + chr(10))
if value == "broken":
    sys.exit("no such weights")
out.mkdir(exist_ok=True)
(out / "result.json").write_text(json.dumps({"deep": {"value": float(value), "text": "x"}}))
"""


@pytest.fixture
def stub(tmp_path):
    path = tmp_path / "stub.py"
    path.write_text(STUB)
    return path


@pytest.fixture
def write(tmp_path, stub):
    """Write a file of entries, of which only what differs from a stub's run is told."""

    def write_entries(*entries, **more):
        path = tmp_path / "entries.yaml"
        whole = []
        for number, entry in enumerate(entries):
            value = entry.pop("value", "0.5")
            whole.append(
                {
                    "name": f"entry {number}",
                    "source": "here",
                    "command": ["python", str(stub), "{out}", value, str(tmp_path / "log.txt")],
                    "read": ["deep", "value"],
                    **entry,
                }
            )
        path.write_text(yaml.safe_dump({"entries": whole, **more}, sort_keys=False))
        return path

    return write_entries


def outcomes(path, tmp_path, **options):
    return list(run_checks(load_checks(path), tmp_path / "out", **options))


# --- the file -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"expcted": 1}, r"unknown key 'entries\.0\.expcted'"),
        ({"command": ["rm", "-r"]}, r"a command begins with icr-rag or python"),
        ({"tolerance": -1}, r"entries\.0\.tolerance=-1"),
        ({"expected": 1, "not_run_here": "no GPU"}, r"nobody measured it"),
        ({"expected": {"a": 1}}, r"without a matrix, expected is one number"),
        ({"read": ["{what}"]}, r"nothing sets \{what\}; known are data, out"),
        ({"name": "x", "matrix": {"a": [1, 2]}}, r"two entries are called 'x'"),
        ({"name": "x {out}", "matrix": {"out": [1]}}, r"the matrix may not set 'out'"),
        ({"name": "{a}", "matrix": {"a": [1]}, "expected": {"2": 1}}, r"expected names '2'"),
    ],
)
def test_mistakes_name_the_entry(write, entry, message):
    with pytest.raises(ConfigError, match=message):
        load_checks(write(entry))


def test_a_matrix_stands_for_all_combinations(write):
    path = write(
        {
            "name": "{set}/{model}",
            "matrix": {
                "set": ["a", "b"],
                "model": [{"model": "m", "layers": "1-2"}, {"model": "n"}],
            },
            "expected": {"a/m": 0.5},
            "command": [
                "icr-rag",
                "evaluate",
                "{data}/{set}",
                "--model",
                "{model}",
                "{not a name}",
            ],
            "needs": {"data": ["{set}"]},
        }
    )
    checks = load_checks(path)
    assert [check.name for check in checks] == ["a/m", "a/n", "b/m", "b/n"]
    assert [check.expected for check in checks] == [0.5, None, None, None]
    # Folders are filled in when it runs; what is no name stays.
    assert checks[3].command[2:] == ("{data}/b", "--model", "n", "{not a name}")
    assert checks[3].needs.data == ("b",)
    assert [check.name for check in select(checks, "*/n")] == ["a/n", "b/n"]
    assert select(checks, "{set}/{model}") == checks
    assert select(checks, None) == checks
    with pytest.raises(ConfigError, match=r"matches 'c/\*'; there are \{set\}/\{model\}"):
        select(checks, "c/*")


# --- running --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected", "tolerance", "status"),
    [
        ("0.5", 0.5, 0, "passed"),
        ("0.501", 0.5, 0.001, "passed"),
        ("0.5011", 0.5, 0.001, "failed"),
        ("0.4989", 0.5, 0.001, "failed"),
        ("0.7", None, 0, "measured"),
        ("nan", 0.5, 1, "failed"),
    ],
)
def test_numbers_are_compared(write, tmp_path, value, expected, tolerance, status):
    path = write({"value": value, "expected": expected, "tolerance": tolerance})
    (outcome,) = outcomes(path, tmp_path)
    assert outcome.status == status
    assert outcome.value == pytest.approx(float(value), nan_ok=True)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"value": "broken"}, r"^exit code 1: no such weights$"),
        ({"read": ["deep", "other"]}, r"no 'other' there, only value, text"),
        ({"read": ["deep", "value", "more"]}, r"no 'more' there, only float"),
        ({"read": ["deep", "text"]}, r"'x' is no number"),
        ({"result": "{out}/nothing.json"}, r"nothing\.json cannot be read"),
    ],
)
def test_a_command_that_gives_no_number_is_an_error(write, tmp_path, entry, reason):
    good = {"value": "1", "expected": 1}
    failed, other = outcomes(write({"expected": 0.5, **entry}, good), tmp_path)
    assert failed.status == "error"
    assert re.search(reason, failed.reason)
    assert other.status == "passed"


def test_a_command_is_run_once_for_all_that_read_it(write, tmp_path):
    path = write({"expected": 0.5}, {"expected": 0.4}, {"value": "0.4", "expected": 0.4})
    begun = []
    found = outcomes(path, tmp_path, begin=lambda check: begun.append(check.name))
    assert [outcome.status for outcome in found] == ["passed", "failed", "passed"]
    assert (tmp_path / "log.txt").read_text().split() == ["0.5", "0.4"]
    assert begun == ["entry 0", "entry 1", "entry 2"]


def test_what_is_missing_is_told_and_not_run(write, tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "_has_accelerator", lambda: False)
    (tmp_path / "data" / "there").mkdir(parents=True)
    path = write(
        {"needs": {"gpu": True, "hub": True}},
        {"needs": {"hub": True}},
        {"needs": {"data": ["there"]}},
        {"needs": {"data": ["there", "gone"]}},
        {"needs": {"packages": ["no_such_package"]}},
        {"result": "{data}/x.json"},
    )
    reasons = [outcome.reason for outcome in outcomes(path, tmp_path)]
    folder = "needs a folder of data sets (--data DIR)"
    assert reasons == [
        "needs an accelerator and a hub (--hub allows it)",
        "needs a hub (--hub allows it)",
        folder,
        folder,
        "needs the package no_such_package",
        folder,
    ]
    assert not (tmp_path / "log.txt").exists()
    monkeypatch.setattr(reproduce, "_has_accelerator", lambda: True)
    found = outcomes(path, tmp_path, data=tmp_path / "data", hub=True)
    assert [outcome.status for outcome in found[:4]] == ["measured"] * 3 + ["not run"]
    assert found[3].reason == f"needs {tmp_path / 'data' / 'gone'}"


# --- the command ----------------------------------------------------------------------------


def invoke(*arguments):
    return CliRunner().invoke(app, ["reproduce", *map(str, arguments)])


def test_the_command_prints_a_table_and_fails_if_a_number_is_off(write):
    good = {"name": "good [one]", "expected": 0.5, "tolerance": 0.01}
    lacking = {"needs": {"packages": ["no_such_package"]}, "not_run_here": "nobody has it"}
    result = invoke(write(good, lacking))
    assert result.exit_code == 0
    assert "good [one]" in result.stdout
    assert "passed" in result.stdout
    assert "entry 1: not run: needs the package no_such_package; nobody has it" in result.stdout
    assert "1 passed, 1 not run" in result.stdout
    path = write(good, {"expected": 0.6}, {"value": "broken"})
    result = invoke(path)
    assert result.exit_code == 1
    assert "1 passed, 1 failed, 1 error" in result.stdout
    assert "entry 2: error: exit code 1: no such weights" in result.stdout
    assert "with --out DIR" in " ".join(result.stderr.split())
    assert invoke(path, "--only", "good*").exit_code == 0


def test_json_and_kept_output(write, tmp_path):
    path = write({"expected": 0.5}, {"name": "other", "expected": 0.6})
    result = invoke(path, "--json", "--out", tmp_path / "kept")
    assert result.exit_code == 1
    first, second = json.loads(result.stdout)
    assert (first["status"], first["value"], first["expected"]) == ("passed", 0.5, 0.5)
    assert second["status"] == "failed"
    assert len(list((tmp_path / "kept").glob("*/output.txt"))) == 1
    listed = json.loads(invoke(path, "--json", "--list").stdout)
    assert [check["name"] for check in listed] == ["entry 0", "other"]


def test_the_commands_are_run_by_this_python(write, tmp_path):
    path = write(
        {"command": ["icr-rag", "config", "schema", "--output", "{out}/result.json"],
         "read": ["properties", "set_size", "default"], "expected": 4}
    )  # fmt: skip
    assert [outcome.status for outcome in outcomes(path, tmp_path)] == ["passed"]


def test_without_the_file_the_message_says_what_to_give(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert run(["reproduce"]) == 1
    assert "there is no benchmarks" in " ".join(capfd.readouterr().err.split())


# --- the project's own entries --------------------------------------------------------------


def test_no_number_is_stated_that_nobody_measured():
    for check in load_checks(FILE):
        if check.name.startswith("paper"):
            assert check.expected is None
            assert check.not_run_here
            assert check.needs.gpu
            assert check.needs.hub
        assert check.expected is None or check.tolerance > 0


def test_the_papers_tables_are_written_out():
    names = {check.name for check in load_checks(FILE)}
    models = [
        "Qwen/Qwen3-0.6B",
        "Qwen/Qwen3-4B",
        "Qwen/Qwen3-8B",
        "meta-llama/Llama-3.1-8B-Instruct",
        "mistralai/Mistral-7B-Instruct-v0.2",
    ]
    for model in models:
        for place in ("paper/dl19", "paper/dl20", "paper/scifact", "paper-bright/pony"):
            assert f"{place}/selective-icr/{model}" in names
    for group, count in (("paper/", 11), ("paper-bright/", 12)):
        sets = {name.split("/")[1] for name in names if name.startswith(group)}
        assert len(sets) == count


def test_every_command_is_one_that_exists_and_reads_what_it_writes():
    """Parsed but not run: options exist, grids are valid, and hold the sets and systems read."""
    group = typer.main.get_command(app)
    for check in load_checks(FILE):
        if check.command[0] != "icr-rag":
            assert (ROOT / check.command[1]).is_file()
            continue
        command = group.commands[check.command[1]]
        context = command.make_context("icr-rag", list(check.command[2:]))
        path = str(context.params["dataset"])
        if not path.endswith(".yaml"):
            continue
        grid = load_grid(ROOT / path)
        labels = [entry.label for entry in grid.data]
        names = [system.name for system in systems(grid)] + [peer.label for peer in grid.peers]
        assert set(context.params["only"]) <= set(labels)
        dataset, order, depth = check.read[1].split("/")
        assert dataset in context.params["only"]
        assert order == "given"
        assert int(depth) in grid.depths
        assert check.read[2] in names
        assert check.read[3] in grid.measures
