"""Passages: what is given stays as it is, and settings that do not go together are refused."""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path

import pytest
from tiny import tiny_model

pytest.importorskip("sentencex")

from test_passages import DOCUMENTS, JOINT, LIKELIHOOD, QUERY, split_tiny, tiny

from icr_rag import Document, RerankerConfig
from icr_rag.errors import ConfigError, InputError, MissingDependencyError
from icr_rag.profiles import HeadWeight, Profile, Shape
from icr_rag.profiling.collect import profiling_config
from icr_rag.scoring.null_documents import NULL_DOCUMENTS


def test_documents_come_back_as_they_were_given():
    before = copy.deepcopy(DOCUMENTS)
    ranker = copy.deepcopy(split_tiny(**LIKELIHOOD))
    found = ranker.rank(QUERY, DOCUMENTS)
    assert before == DOCUMENTS
    assert sorted(hit.index for hit in found) == list(range(6))
    for hit in found:
        if isinstance(DOCUMENTS[hit.index], Document):
            assert hit.document is DOCUMENTS[hit.index]
        assert type(hit.score) is float
    assert len(ranker.rank(QUERY, [])) == len(ranker.rank(QUERY, ["", " "])) - 2 == 0
    # What is short is read as ever.
    short = ["Tin.", "Lead is soft."]
    assert ranker.rank(QUERY, short).scores == tiny(**LIKELIHOOD).rank(QUERY, short).scores


def test_nothing_is_counted_where_nothing_is_asked_for():
    found = tiny(**LIKELIHOOD).rank(QUERY, DOCUMENTS)
    assert found.usage.passages == 0
    assert all(hit.passage is None for hit in found)


def test_whole_documents_are_not_read_where_ranking_reads_passages():
    with pytest.raises(ConfigError, match=r"read_attention .*passages='max'.*switched"):
        split_tiny(**JOINT).read_attention(QUERY, DOCUMENTS)
    whole = split_tiny(**JOINT).switched(passages="none")
    assert len(whole.read_attention(QUERY, DOCUMENTS).spans) == 6


def test_a_title_without_room_fails_or_is_let_through():
    long = Document("Tin melts. " * 9, "A title " * 9)
    with pytest.raises(InputError, match="document 1 has 74 tokens before its text"):
        split_tiny(**LIKELIHOOD).rank(QUERY, ["Tin.", long])
    found = split_tiny(**LIKELIHOOD, on_error="passthrough").rank(QUERY, ["Tin.", long])
    assert "leaves no room" in found.error
    assert [hit.index for hit in found] == [0, 1]


def test_the_extra_that_lacks_is_named_before_a_document_is_long(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencex", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'icr-rag\[passages\]'"):
        split_tiny(**LIKELIHOOD).warm_up()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"passages": "best"}, "'none', 'max' or 'top2'"),
        ({"passage_tokens": 100}, "passage_tokens=100 means nothing without passages"),
        ({"passage_overlap": 10}, "passage_overlap=10 means nothing without passages"),
        ({"passages": "max", "passage_tokens": 15}, "passage_tokens=15"),
        ({"passages": "max", "passage_overlap": -1}, "passage_overlap=-1"),
        ({"passages": "max", "passage_overlap": 256}, "must be smaller than passage_tokens"),
        ({"passages": "max", "max_document_tokens": 256}, "no more than one passage"),
        ({"passages": "top2", "framework": "setwise"}, "set passages='max'"),
        ({"passages": "top2", "scoring": "generation"}, "set passages='max'"),
        ({"passages": "top2", "scoring": "likelihood", "framework": "pairwise"}, "attention"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        RerankerConfig(**fields)


def test_a_profile_that_chooses_sorting_has_no_two_best(tmp_path):
    path = tmp_path / "p.json"
    shape = Shape.of(tiny_model("llama").config)
    weights = (HeadWeight(layer=1, head=1, reading="log_mass"),)
    Profile(model="t", shape=shape, framework="setwise", heads=weights).save(path)
    assert len(split_tiny(profile=str(path)).rank(QUERY, DOCUMENTS)) == 6
    with pytest.raises(ConfigError, match="passages='top2' does not go with"):
        split_tiny("top2", profile=str(path)).rank(QUERY, DOCUMENTS)


def test_switching_drops_what_means_nothing():
    split = RerankerConfig(passages="top2", passage_tokens=99, passage_overlap=9)
    assert split.switched(passages="none").changed() == {}
    assert split.switched(framework="setwise").changed() == {"framework": "setwise"}
    kept = split.switched(scoring="likelihood")
    assert (kept.passages, kept.passage_tokens, kept.passage_overlap) == ("top2", 99, 9)
    assert RerankerConfig.from_dict(split.to_dict()) == split
    assert profiling_config(split).passages == "none"


def test_the_code_of_the_page_runs(model_folder, capsys):
    page = Path(__file__).resolve().parent.parent / "docs" / "long-documents.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    exec(code.replace('"smollm2-135m"', repr(model_folder)), {})
    told = capsys.readouterr().out
    # More than are found by the model's own tokenizer: here each byte is a token.
    assert int(told.splitlines()[-1].split()[0]) > 4


def test_documents_without_content_are_read_as_they_are():
    """What `explained` compares with is not split, whatever its length."""
    ranker = split_tiny(passage_tokens=16, score_mode="explained", **LIKELIHOOD)
    assert max(map(len, NULL_DOCUMENTS)) > 16
    plain = tiny(score_mode="explained", **LIKELIHOOD)
    assert ranker.rank(QUERY, ["Tin melts."]).scores == plain.rank(QUERY, ["Tin melts."]).scores
