"""The pages in docs/: generated ones are up to date, code in the others runs."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
MIGRATIONS = sorted((DOCS / "migrate").glob("*.md"))


def blocks(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_settings_is_up_to_date():
    generated = script("generate_config_docs").render()
    assert (DOCS / "configuration.md").read_text(encoding="utf-8") == generated


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("path", MIGRATIONS, ids=lambda path: path.stem)
def test_a_migration_runs_as_far_as_it_can_without_a_model(path):
    """Constructors load nothing; calls would, and are left out."""
    before, after = blocks(path)
    compile(before, path.name, "exec")
    lines = [line for line in after.splitlines() if not re.match(r"ranker\.\w+\(", line)]
    for package in re.findall(r"^(?:import|from) (\w+)", after, flags=re.MULTILINE):
        pytest.importorskip(package)
    names = {}
    exec("\n".join(lines), names)
    made = [value for name, value in names.items() if name in ("ranker", "rerank", "compressor")]
    assert made or "pipeline" in names
    for component in made:
        engine = component.model if hasattr(component, "model") else component
        assert getattr(engine, "reranker", component).config.model == "smollm2-135m"


def test_every_replacement_has_its_page():
    names = {path.stem for path in MIGRATIONS}
    assert len(names) == 9
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {name for name in names if f"docs/migrate/{name}.md" in readme} == names


def test_links_in_pages_lead_somewhere():
    for path in DOCS.rglob("*.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
