"""``icr-rag config``."""

from __future__ import annotations

import json

import pytest

from icr_rag import RerankerConfig, cli


def test_schema_on_standard_output_and_in_a_file(capsys, tmp_path):
    assert cli.main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == RerankerConfig.json_schema()
    assert cli.main(["config", "schema", "--output", str(tmp_path / "s.json")]) == 0
    assert json.loads((tmp_path / "s.json").read_text()) == RerankerConfig.json_schema()


def test_check_shows_what_the_file_leads_to(capsys, tmp_path):
    (tmp_path / "r.toml").write_text('model = "org/name"\nlayers = "10-13"\n')
    assert cli.main(["config", "check", str(tmp_path / "r.toml")]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["model"].strip() == '"org/name"'
    assert lines["layers"].strip() == "[10, 13]"
    assert lines["fusion"].strip() == '"auto"'
    assert set(RerankerConfig.model_fields) <= set(lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("layer: all", "unknown setting 'layer'; did you mean 'layers'?"),
        ("top_n: -1", "top_n=-1"),
        ("[", "cannot be parsed"),
    ],
)
def test_a_wrong_file_is_one_line(text, said, capsys, tmp_path):
    (tmp_path / "r.yaml").write_text(text)
    assert cli.main(["config", "check", str(tmp_path / "r.yaml")]) == 1
    error = capsys.readouterr().err
    assert said in error.replace("\n", " ")
    assert error.startswith("error: ")


def test_no_command_shows_the_help(capsys):
    assert cli.main(["config"]) in (0, 2)
    captured = capsys.readouterr()
    assert "schema" in captured.out + captured.err
