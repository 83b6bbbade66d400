"""docs/models.md says of every model type what became of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import transformers
from architectures import UNBUILDABLE, names

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "models.md").read_text(encoding="utf-8")


def test_every_model_type_of_its_version_is_on_the_page():
    version = re.search(r"transformers (\d[\w.]*) was built", PAGE)[1]
    if version != transformers.__version__:
        pytest.skip(f"the page is of transformers {version}")
    listed = re.findall(r"(?m)^\| `([\w.-]+)` \|", PAGE)
    assert sorted(listed) == names()
    assert len(set(listed)) == len(listed)
    assert not set(listed) & set(UNBUILDABLE)


def test_its_counts_are_those_of_its_tables():
    ranks, refused = (int(n) for n in re.search(r"types (\d+) rank and (\d+) are", PAGE).groups())
    tables = PAGE.split("\n## ")
    rows = {t.partition("\n")[0]: len(re.findall(r"(?m)^\| `", t)) for t in tables[1:]}
    assert (rows["Rank"], rows["Refused"]) == (ranks, refused)
