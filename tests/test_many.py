"""Several queries over one list: one pass, and the same rankings."""

from __future__ import annotations

import pytest
from test_document_states import DOCUMENTS, QUERY, reranker

from icr_rag import Document
from icr_rag.errors import InputError

QUERIES = [QUERY, "zzz?", "hello there who is long", "a"]
WAYS = [
    {"document_states": "independent", "layers": (1, 2)},
    {"document_states": "independent", "heads": ((0, 1), (2, 0)), "reading": "lift"},
    {"document_states": "independent", "layers": (1, 2), "double_query": True},
    {"document_states": "blind", "heads": ((0, 1), (2, 0)), "reading": "log_mass"},
]


def counting(keeping):
    """Counts the passes of a reranker's scorer."""
    scorer = keeping.scorer
    passes = []
    plain = scorer._run
    scorer._run = lambda *arguments: (passes.append(1), plain(*arguments))[1]
    return passes


@pytest.mark.parametrize("name", ["llama", "gemma3"])
@pytest.mark.parametrize("way", WAYS)
def test_one_pass_gives_the_rankings_of_several(name, way):
    alone = reranker(name, framework="listwise", **way)
    expected = [alone.rank(query, DOCUMENTS) for query in QUERIES]
    together = reranker(name, framework="listwise", **way)
    passes = counting(together)
    found = together.rank_many(QUERIES, [DOCUMENTS] * 4)
    assert len(passes) == 1
    for one, other in zip(found, expected, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-5)
        assert (one.usage.windows, one.usage.calls) == (1, 1)
    assert sum(one.usage.tokens for one in found) < sum(one.usage.tokens for one in expected)


def test_lists_are_their_own_queries_and_contents_share():
    keeping = reranker(framework="listwise", **WAYS[0])
    first = [Document("abc", id="1", metadata={"n": [1]}), Document("b is a letter", id="2")]
    second = [Document("abc", id="3"), Document("b is a letter", id="4")]
    passes = counting(keeping)
    found = keeping.rank_many([QUERY, "zzz", "c"], [first, ["something", "else"], second])
    assert len(passes) == 2
    assert {hit.document.id for hit in found[0]} == {"1", "2"}
    assert {hit.document.id for hit in found[2]} == {"3", "4"}
    assert {hit.document.text for hit in found[1]} == {"something", "else"}


@pytest.mark.parametrize("documents", [[], ["", " "], ["one"], ["one", "", "one"]])
def test_short_and_blank_lists(documents):
    keeping = reranker(framework="listwise", **WAYS[0])
    found = keeping.rank_many(QUERIES, [documents] * 4)
    assert [ranking.scores for ranking in found] == [
        pytest.approx(keeping.rank(query, documents).scores, abs=1e-5) for query in QUERIES
    ]


def test_windows_go_one_by_one():
    keeping = reranker(framework="listwise", window=2, **WAYS[0])
    found = keeping.rank_many(QUERIES, [DOCUMENTS] * 4)
    assert [one.scores for one in found] == [
        keeping.rank(query, DOCUMENTS).scores for query in QUERIES
    ]


def test_more_queries_than_go_together_and_equal_ones():
    keeping = reranker(framework="listwise", **WAYS[0])
    passes = counting(keeping)
    found = keeping.rank_many([QUERY] * 18, [DOCUMENTS] * 18)
    assert len(passes) == 2
    assert all(one.scores == pytest.approx(found[0].scores, abs=1e-5) for one in found)


def test_a_wrong_query_fails_or_passes_through():
    keeping = reranker(framework="listwise", **WAYS[0])
    with pytest.raises(InputError, match="blank"):
        keeping.rank_many([QUERY, " "], [DOCUMENTS] * 2)
    patient = keeping.with_config(on_error="passthrough")
    found = patient.rank_many([QUERY, " "], [DOCUMENTS] * 2)
    assert found[0].error is None
    assert "blank" in found[1].error


@pytest.mark.parametrize("fields", [
    *({"framework": "listwise", **way} for way in WAYS),
    {"framework": "pointwise"}, {"framework": "listwise", "passages": "max", "passage_tokens": 24},
], ids=str)  # fmt: skip
def test_a_limit_of_tokens_per_document_is_for_all_queries(fields, caplog):
    if "passages" in fields:
        pytest.importorskip("sentencex")
        fields = {**fields, "document_states": "independent", "layers": (1, 2)}
    keeping = reranker(**fields)
    texts = ["hello there. " * 6, "who is it? It is a letter.", "abc"]
    for most in (10, 40, 900):
        expected = [keeping.rank(query, texts, max_tokens_per_doc=most) for query in QUERIES]
        shared = "document_states" in fields
        passes = counting(keeping) if shared else None
        found = keeping.rank_many(QUERIES, [texts] * 4, max_tokens_per_doc=most)
        if shared:
            assert len(passes) == 1
            del keeping.scorer._run
        for one, other in zip(found, expected, strict=True):
            assert one.scores == pytest.approx(other.scores, abs=1e-5)
            assert one.usage.truncated == other.usage.truncated
    assert "max_tokens_per_doc=10" in caplog.text
    for wrong in (0, -1, 1.5, "many"):
        with pytest.raises(InputError, match=r"max_tokens_per_doc=.*whole numbers from 1"):
            keeping.rank_many(QUERIES, [texts] * 4, max_tokens_per_doc=wrong)
