"""Every example runs and prints what docs/examples.md shows."""

from __future__ import annotations

import importlib.util
import re
import runpy
import sys
from pathlib import Path

import pytest

for module in ("sentence_transformers", "qdrant_client", "all_minilm_l6_v2", "langchain_classic"):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
SHOWN = dict(re.findall(r"^## \[`(\w+)\.py`\].*?^```text\n(.*?)\n```$", PAGE, flags=re.M | re.S))
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))


NUMBER = re.compile(r"-?\d+\.\d+")


def numbers(text):
    """The words of a line, numbers as floats."""
    return [float(word) if NUMBER.fullmatch(word) else word for word in text.split()]


def tokens(text):
    """The same; numbers may differ a little from machine to machine."""
    words = numbers(text)
    return [pytest.approx(w, abs=0.02) if isinstance(w, float) else w for w in words]


def comparable(text):
    """Without what a language model wrote: its words are not the same on every machine."""
    return [line for line in text.splitlines() if not line.startswith("answer:")]


def test_the_page_shows_every_example():
    assert sorted([*SHOWN, "first_stage"]) == EXAMPLES


@pytest.mark.real_weights
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", sorted(SHOWN))
def test_example_prints_what_the_page_shows(name, capsys, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    # Each as a program of its own, or one's patches would reach the next.
    monkeypatch.delitem(sys.modules, "first_stage", raising=False)
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    printed = comparable(capsys.readouterr().out)
    shown = comparable(SHOWN[name])
    assert [numbers(line) for line in printed] == [tokens(line) for line in shown]
    assert "Traceback" not in "".join(printed)
