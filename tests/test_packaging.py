"""What an installer and a first import see."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import icr_rag
from icr_rag.errors import MissingDependencyError, require

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROFILES = ROOT / "icr_rag" / "profiles"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def run_python(code, *hidden):
    """Run ``code`` in a new interpreter in which the modules ``hidden`` are not installed."""
    hide = f"import sys; sys.modules.update(dict.fromkeys({list(hidden)!r}))\n"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", hide + code], capture_output=True, text=True
    )


def test_importing_the_package_and_its_public_names_loads_no_framework():
    code = (
        "import sys, icr_rag\n"
        "from icr_rag import Reranker, RerankerConfig, Document\n"
        "Reranker(model='org/name', layers=(10, 13))\n"
        "heavy = {'torch', 'transformers', 'numpy', 'llama_index', 'langchain_core', 'typer'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    outcome = run_python(code)
    assert (outcome.stdout, outcome.stderr) == ("[]\n", "")


def test_public_names_exist_and_are_documented():
    for name in icr_rag.__all__:
        value = getattr(icr_rag, name)
        documented = (value.__doc__ or "").strip()
        # An alias of types has no docstring of its own.
        assert name in ("__version__", "DocumentLike") or documented, name
    assert dir(icr_rag) == icr_rag.__all__
    with pytest.raises(AttributeError, match="no attribute 'Rerank'"):
        _ = icr_rag.Rerank


def test_version_is_one():
    assert metadata.version("icr-rag") == icr_rag.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert icr_rag.__version__ in changelog


@pytest.mark.parametrize(
    ("code", "hidden", "extra"),
    [
        ("import icr_rag.integrations.llama_index", ["llama_index", "llama_index.core"], "llama-"),
        ("import icr_rag.integrations.langchain", ["langchain_core"], "langchain"),
        ("import icr_rag.integrations.haystack", ["haystack"], "haystack"),
        ("import icr_rag.integrations.rerankers", ["rerankers"], "rerankers"),
        ("import icr_rag.integrations.pyterrier", ["pyterrier"], "pyterrier"),
        ("from icr_rag.cli import main; sys.exit(main(['doctor']))", ["typer"], "cli"),
        ("from icr_rag.cli import main; sys.exit(main(['serve']))", ["fastapi"], "server"),
        ("from icr_rag.cli import main; sys.exit(main(['serve']))", ["uvicorn"], "server"),
        ("from icr_rag.evaluation.metrics import evaluate_run as e; e({}, {}, [])",
         ["ir_measures"], "cli"),
    ],
)  # fmt: skip
def test_what_is_not_installed_is_one_line_that_names_the_extra(code, hidden, extra):
    outcome = run_python(code, *hidden)
    assert outcome.returncode != 0
    last = outcome.stderr.strip().splitlines()[-1]
    assert f"pip install 'icr-rag[{extra}" in last


def test_the_extras_that_errors_name_exist():
    named = set()
    for path in (ROOT / "icr_rag").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "require":
                named.add(ast.literal_eval(node.args[1]))
    assert {"llama-index", "langchain", "cli", "gguf"} <= named
    assert named <= set(PROJECT["optional-dependencies"])


def test_a_module_that_is_broken_inside_shows_its_own_error(tmp_path, monkeypatch):
    (tmp_path / "broken_inside.py").write_text("import no_such_module_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        require("broken_inside", "cli", "A test")
    with pytest.raises(MissingDependencyError, match="A test needs no_such_module_at_all"):
        require("no_such_module_at_all", "cli", "A test")


def test_the_wheel_holds_the_package_and_its_data(tmp_path):
    builder = importlib.import_module("hatchling.builders.wheel")
    path = next(iter(builder.WheelBuilder(str(ROOT)).build(directory=str(tmp_path))))
    names = set(zipfile.ZipFile(path).namelist())
    assert {
        "icr_rag/py.typed",
        "icr_rag/cli/demo_corpus.jsonl",
        "icr_rag/cli/demo_queries.jsonl",
        "icr_rag/reranker.py",
    } <= names
    shipped = {f"icr_rag/profiles/{file.name}" for file in PROFILES.glob("*.json")}
    assert shipped
    assert shipped <= names
    assert not any(name.startswith(("tests", "benchmarks", "examples")) for name in names)


def test_the_readme_installs_what_there_is():
    """No name of an index where it is not, and the wheel by the name that it will have."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [line for line in readme.splitlines() if line.startswith("pip ")]
    assert commands
    for command in commands:
        assert "icr-rag" not in command
        if ".whl" in command:
            assert f"icr_rag-{icr_rag.__version__}-py3-none-any.whl" in command
        extras = command.rpartition("[")[2].partition("]")[0].split(",")
        assert set(extras) <= set(PROJECT["optional-dependencies"])
