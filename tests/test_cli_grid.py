"""``icr-rag evaluate GRID.yaml``."""

from __future__ import annotations

import csv
import json

import pytest
from beir import FakeReranker, write_beir
from typer.testing import CliRunner

pytest.importorskip("matplotlib")

import icr_rag.reranker
from icr_rag.cli.app import app, run

GRID = """\
data: [tiny]
orders: [given, 1]
depths: [3]
systems:
  plain:
  reverse: {layers: all}
peers: [bm25]
baseline: plain
"""


class Fake(FakeReranker):
    """A reranker made from a configuration, as the grid makes it."""

    made: list[Fake] = []

    def __init__(self, config):
        super().__init__(config, reverse=config.layers == "all")
        if config.framework == "setwise":
            self.rank = self._fail
        Fake.made.append(self)

    def warm_up(self):
        return self

    def close(self):
        pass

    def _fail(self, *arguments, **options):
        raise ValueError("no luck")


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(icr_rag.reranker, "Reranker", Fake)
    monkeypatch.setattr(Fake, "made", [])
    return Fake


@pytest.fixture
def grid(tmp_path):
    write_beir(tmp_path / "data" / "tiny")
    path = tmp_path / "grid.yaml"
    path.write_text(GRID)
    return path


def evaluate(grid, *arguments, out="out"):
    folder = grid.parent
    given = ["evaluate", grid, "--out", folder / out, "--data", folder / "data", *arguments]
    return CliRunner().invoke(app, [str(argument) for argument in given])


def test_writes_the_report_and_shows_its_tables(fake, grid):
    result = evaluate(grid)
    assert result.exit_code == 0
    for words in ("tiny, given order, top 3", "tiny, shuffled (seed 1), top 3", "reverse", "bm25"):
        assert words in result.stdout
    assert "report.html" in result.stdout
    assert "1/6 plain on tiny, given order, top 3" in result.stderr
    out = grid.parent / "out"
    values = json.loads((out / "results.json").read_text())
    assert [row["status"] for row in values["rows"]] == ["done"] * 6
    assert values["rows"][1]["difference"]["p_holm"] <= 1
    assert {path.name for path in out.iterdir()} == {
        "results.json", "results.csv", "per_query.csv", "frontier.png", "frontier.svg",
        "report.md", "report.html", "runs", "state",
    }  # fmt: skip
    assert len(list((out / "state").glob("*.jsonl"))) == 6


def calls(fake):
    return sum(len(made.calls) for made in fake.made)


def test_goes_on_and_starts_over(fake, grid):
    evaluate(grid, "--limit", 2)
    assert calls(fake) == 2 * 2 * 2
    evaluate(grid)
    assert calls(fake) == 2 * 2 * 4
    evaluate(grid)
    assert calls(fake) == 2 * 2 * 4
    evaluate(grid, "--fresh")
    assert calls(fake) == 2 * 2 * 8


def test_an_interrupted_grid_says_how_to_go_on(fake, grid, monkeypatch, capfd):
    made = Fake.__init__

    def interrupted(self, config):
        made(self, config)
        self.fail_at = 1

    monkeypatch.setattr(Fake, "__init__", interrupted)
    arguments = ["evaluate", grid, "--out", grid.parent / "o", "--data", grid.parent / "data"]
    assert run([str(argument) for argument in arguments]) == 130
    said = " ".join(capfd.readouterr().err.split())
    assert "finished queries are kept; give the same command again to go on" in said
    assert not (grid.parent / "o" / "results.json").exists()


def test_a_system_that_fails_makes_the_exit_code_1_but_leaves_a_report(fake, grid):
    grid.write_text(GRID.replace("  plain:\n", "  plain:\n  bad: {framework: setwise}\n"))
    result = evaluate(grid)
    assert result.exit_code == 1
    assert result.stderr.count("note: bad: failed: ValueError: no luck") == 1
    with (grid.parent / "out" / "results.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["status"] for row in rows] == ["done", "failed", "done", "done"] * 2
    assert rows[1]["reason"] == "ValueError: no luck"


def test_what_cannot_run_here_is_no_failure(fake, grid, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rank_llm.data", None)
    grid.write_text(GRID.replace("[bm25]", "[bm25, rank_llm]"))
    result = evaluate(grid)
    assert result.exit_code == 0
    assert "rank_llm: not run: rank_llm cannot be imported" in result.stderr


def test_settings_on_the_command_line_are_shared_by_all_systems(fake, grid):
    evaluate(grid, "--model", "some/model", "--layers", "2-3", "--max-document-tokens", 9)
    assert [made.config.layers for made in fake.made] == [(2, 3), "all"]
    assert {made.config.model for made in fake.made} == {"some/model"}
    assert {made.config.max_document_tokens for made in fake.made} == {9}


def test_one_data_set_of_several(fake, grid):
    write_beir(grid.parent / "data" / "other")
    grid.write_text(GRID.replace("[tiny]", "[tiny, other]"))
    evaluate(grid, "--only", "other")
    values = json.loads((grid.parent / "out" / "results.json").read_text())
    assert {row["dataset"] for row in values["rows"]} == {"other"}
    result = evaluate(grid, "--only", "third")
    assert "has no data set 'third'; it has tiny, other" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--depth", "5"], "--depth does not go with a grid"),
        (["--json", "x.json"], "--json does not go with a grid"),
        (["--config", "x.yaml"], "cannot read configuration x.yaml"),
        (["--top-n", "3"], "--top-n"),
    ],
)
def test_what_the_grid_says_is_not_said_twice(fake, grid, arguments, message):
    result = evaluate(grid, *arguments)
    assert result.exit_code != 0
    assert message in " ".join(result.stderr.split()) + str(result.exception)
    assert fake.made == []


def test_options_of_a_grid_go_with_nothing_else(fake, grid, capfd):
    folder = grid.parent / "data" / "tiny"
    assert run(["evaluate", str(grid)]) == 2
    assert "a grid needs --out DIR" in " ".join(capfd.readouterr().err.split())
    for flag in ("--out", "--data", "--only"):
        assert run(["evaluate", str(folder), flag, "x"]) == 2
        assert f"{flag} is for a grid" in " ".join(capfd.readouterr().err.split())


def test_a_mistake_in_the_grid_is_one_line(fake, grid, capfd):
    grid.write_text(GRID.replace("depths: [3]", "depth: 3"))
    assert run(["evaluate", str(grid), "--out", str(grid.parent / "o")]) == 1
    said = " ".join(capfd.readouterr().err.split())
    assert "unknown key 'depth'; did you mean 'depths'?" in said
    assert not (grid.parent / "o").exists()


def test_real_weights_take_the_same_way(grid, model_folder):
    """One system of each mechanism, and the peer on the same weights."""
    pytest.importorskip("sentence_transformers.cross_encoder.modules")
    grid.write_text(
        f"""\
data: [tiny]
depths: [3]
reranker: {{model: "{model_folder}", dtype: float32}}
systems:
  icr: {{layers: all}}
  likelihood: {{scoring: likelihood}}
  setwise: {{scoring: generation, framework: setwise, set_size: 3}}
peers: [bm25, cross_encoder]
baseline: bm25
"""
    )
    result = evaluate(grid, "--limit", 2)
    assert result.exit_code == 0, result.output
    rows = json.loads((grid.parent / "out" / "results.json").read_text())["rows"]
    assert [row["status"] for row in rows] == ["done"] * 5
    by_name = {row["system"]: row for row in rows}
    assert by_name["icr"]["per_query_means"]["calls"] == 1
    assert by_name["likelihood"]["per_query_means"]["calls"] == 2.5
    assert by_name["setwise"]["generated_tokens"] > 0
    assert by_name["cross_encoder"]["calls"] == 5
    assert by_name["icr"]["devices"] == ["cpu float32"]
