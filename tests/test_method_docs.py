"""The pages on scoring and profiles say what is so, and their code runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from icr_rag.cli.app import app
from icr_rag.methods import frameworks_of, scorings
from icr_rag.profiles import Profile
from icr_rag.profiles.shipped import shipped_profiles
from icr_rag.profiling.queries import KINDS
from icr_rag.profiling.study import METHODS

FRAMEWORKS = {scoring: frameworks_of(scoring) for scoring in scorings()}
DOCS = Path(__file__).resolve().parent.parent / "docs"
SCORING = (DOCS / "scoring.md").read_text(encoding="utf-8")
PROFILES = (DOCS / "profiles.md").read_text(encoding="utf-8")


def snippets(page):
    return re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)


@pytest.mark.real_weights
def test_the_scoring_snippet_runs(capsys):
    (code,) = snippets(SCORING)
    exec(code, {})
    assert re.fullmatch(r"3 prompts, \d+ tokens\n", capsys.readouterr().out)


@pytest.mark.real_weights
def test_the_states_snippet_pays_for_the_query_only(capsys):
    code, cascade = snippets((DOCS / "states.md").read_text(encoding="utf-8"))
    exec(cascade, {})
    assert capsys.readouterr().out == "3\n"
    exec(code, {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(".")[0] for line in lines] == [
        "Tin melts at 232 degrees",
        "Oaks carry acorns",
    ]
    assert all(int(line.split()[-2]) <= 3 * 8 for line in lines)


def test_the_recipe_of_a_service_that_teaches_runs(notes, model_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _ = snippets(PROFILES)
    recipe = PROFILES[PROFILES.index("### The re-ranker that you trust") :]
    ask, learn = re.findall(r"```bash\nicr-rag (profile notes\.jsonl .*)\n```", recipe)[:2]
    small = f" --model {model_folder} --limit 6 --depth 4 --max-document-tokens 40"
    for step in (ask, code, learn):
        if step is code:
            exec(code, {})
        else:
            result = CliRunner().invoke(app, (step + small).split())
            assert result.exit_code == 0, result.output
    assert Profile.load("profile.json").data["taught by"] == "scores.jsonl"


def test_the_profile_snippet_runs():
    _, code = snippets(PROFILES)
    names: dict = {}
    exec(code, names)
    assert names["config"].profile == "profile.json"


def test_the_table_has_every_pair():
    rows = [line.split("|")[1:3] for line in SCORING.splitlines() if line.startswith("| ")]
    found: dict = {}
    scoring = ""
    for first, second in rows:
        scoring = re.sub(r"\W", "", first) or scoring
        found.setdefault(scoring, set()).update(re.findall(r"`(\w+wise)`", second))
    assert {name: found[name] for name in FRAMEWORKS} == {
        name: set(frameworks) for name, frameworks in FRAMEWORKS.items()
    }


def test_profiles_page_names_what_ships():
    rows = [line for line in PROFILES.splitlines() if line.startswith("| ")]
    for profile in shipped_profiles():
        name = profile.model.partition("/")[2]
        named = [row for row in rows if row.startswith(f"| {name.removesuffix('-Instruct')}")]
        said = f"`{profile.scoring}`, `{profile.framework}`"
        if profile.layers is not None:
            first, last = profile.layers
            said = f"| {first} |" if first == last else f"| {first}-{last} |"
        paper = re.findall(r"arXiv \S+", profile.method)
        assert any(all(part in row for part in (said, *paper)) for row in named), name


def test_profiles_page_names_methods_kinds_and_fields():
    for name in (*METHODS, *KINDS, *Profile.model_fields):
        assert f"`{name}`" in PROFILES, name
