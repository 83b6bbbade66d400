"""The pages in docs/: generated ones are up to date, code in the others runs."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import icr_rag
from icr_rag.errors import MissingDependencyError

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


def test_the_page_of_public_names_is_up_to_date():
    generated = script("generate_api_docs").render()
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    assert page == generated
    named = re.findall(r"^- `(\w+)`", page, flags=re.MULTILINE)
    assert sorted([*named, "__version__"]) == icr_rag.__all__


def test_the_table_of_methods_is_up_to_date():
    page = (DOCS / "scoring.md").read_text(encoding="utf-8")
    assert script("generate_method_docs").render(page) == page


@pytest.fixture
def given(llama, tokenizer):
    """What a reader of a migration page has already, by page."""
    texts = ["Lead is soft.", "Tin melts at 232 degrees.", "Zinc.", "Copper conducts heat."]

    def nodes():
        schema = pytest.importorskip("llama_index.core.schema")
        return [schema.NodeWithScore(node=schema.TextNode(text=text)) for text in texts]

    def documents():
        langchain = pytest.importorskip("langchain_core.documents")
        return [langchain.Document(page_content=text) for text in texts]

    def bm25():
        pandas, pyterrier = pytest.importorskip("pandas"), pytest.importorskip("pyterrier")
        rows = [{"qid": "1", "docno": f"d{i}", "text": text} for i, text in enumerate(texts)]
        frame = pandas.DataFrame(rows).assign(score=1.0, rank=range(4))
        return pyterrier.Transformer.from_df(frame)

    def llm():
        return SimpleNamespace(_model=llama, _tokenizer=tokenizer)

    makers = {"nodes": nodes, "documents": documents, "bm25": bm25, "llm": llm}

    def of(code):
        return {name: make() for name, make in makers.items() if re.search(rf"\b{name}\b", code)}

    return of


@pytest.mark.parametrize("path", MIGRATIONS, ids=lambda path: path.stem)
def test_code_after_a_migration_runs(path, given, model_folder):
    """As it stands, but on a tiny model."""
    _, after = blocks(path)
    for package in re.findall(r"^(?:import|from) (\w+)", after, flags=re.MULTILINE):
        pytest.importorskip(package)
    if "llm=llm" not in after:
        assert after.count('"smollm2-135m"') == 1
    # A name that stands in the code is not given.
    names = given(re.sub(r"^documents = .*", "", after, flags=re.MULTILINE))
    try:
        exec(after.replace('"smollm2-135m"', repr(model_folder)), names)
    except MissingDependencyError as missing:
        pytest.skip(str(missing))
    assert 1 <= len(names["best"]) <= 4


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("path", MIGRATIONS, ids=lambda path: path.stem)
def test_code_before_a_migration_is_the_owners(path):
    """What it imports is there, and little changes: the calls are the same afterwards."""
    before, after = blocks(path)
    for node in ast.parse(before).body:
        if isinstance(node, ast.ImportFrom) and importlib.util.find_spec(node.module.split(".")[0]):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names), node.module
    last = [line for line in after.splitlines() if line.startswith("best = ")]
    assert last == [line for line in before.splitlines() if line.startswith("best = ")]


def test_settings_named_in_pages_are_settings():
    from icr_rag import RerankerConfig

    for path in MIGRATIONS:
        named = re.findall(r"`(\w+)=`", path.read_text(encoding="utf-8").split("|---|")[1])
        assert set(named) <= set(RerankerConfig.model_fields), path.name


def test_every_replacement_has_its_page():
    names = {path.stem for path in MIGRATIONS}
    assert len(names) == 9
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {name for name in names if f"docs/migrate/{name}.md" in readme} == names


def test_links_in_pages_lead_somewhere():
    for path in DOCS.rglob("*.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
