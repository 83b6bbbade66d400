"""The house as it is drawn: how far a ranking travels, how much is typed, how long files are."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "icr_rag").rglob("*.py"))


def trace():
    path = ROOT / "scripts" / "trace_ranking.py"
    spec = importlib.util.spec_from_file_location("trace_ranking", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.files_touched()


def test_a_warm_ranking_goes_down_the_floors_and_no_further():
    touched = trace()
    assert touched[0] == "reranker.py"
    assert len(touched) <= 37, touched
    floors = {name.partition("/")[0].removesuffix(".py") for name in touched}
    assert len(floors) <= 13, floors
    # What loads, proves, keeps, measures or adapts has no part in it.
    for name in touched:
        assert not re.match(r"(states|profiles|evaluation|profiling|integrations|cli)/", name), name
        assert name not in ("model/loading.py", "model/proof.py", "config.py", "methods.py"), name


def test_few_things_are_of_any_type():
    texts = [path.read_text(encoding="utf-8") for path in FILES]
    lines = sum(text.count("\n") for text in texts)
    anything = sum(len(re.findall(r"\bAny\b", line)) > 0 for t in texts for line in t.splitlines())
    assert anything / lines < 0.010


def test_files_are_short():
    long = {
        str(path.relative_to(ROOT)): count
        for path in FILES
        if (count := path.read_text(encoding="utf-8").count("\n")) > 400
    }
    assert long == {}
