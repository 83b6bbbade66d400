"""The fields that the model reads: what is composed, and that it is read as such a text."""

from __future__ import annotations

import asyncio
import copy
import pickle

import pytest
from fields_parts import LIKELIHOOD, LINES, NAMES, QUERY, SHOPS, content, tiny, told

from icr_rag import Document, Reranker, RerankerConfig
from icr_rag.errors import ConfigError, InputError
from icr_rag.methods import BUILT_IN


@pytest.mark.parametrize("row", BUILT_IN, ids=lambda row: row.label)
def test_it_is_ranked_as_a_text_of_these_words(row):
    fields = {"scoring": row.scoring, "framework": row.framework,
              "document_states": row.document_states[0],
              **({"likelihood": row.variant} if row.variant else {})}  # fmt: skip
    # Rerankers of the same settings share what is kept, and both are to encode it.
    kept = row.document_states[0] != "joint"
    first, second = ({"states_memory": 61}, {"states_memory": 62}) if kept else ({}, {})
    wanted = tiny(**fields, **first).rank(QUERY, LINES)
    found = tiny(**fields, **second, rank_fields=NAMES).rank(QUERY, SHOPS)
    assert told(found) == told(wanted)
    assert (found.usage.tokens, found.usage.calls) == (wanted.usage.tokens, wanted.usage.calls)


@pytest.mark.parametrize("layout", ["lines", "yaml"])
def test_hits_are_what_was_given(layout):
    before = copy.deepcopy(SHOPS)
    ranker = tiny(**LIKELIHOOD, rank_fields=NAMES, rank_fields_format=layout)
    for hit in ranker.rank(QUERY, SHOPS):
        assert hit.document.metadata is SHOPS[hit.index]
        assert hit.document.text == content(SHOPS[hit.index], NAMES, layout)
        assert hit.document.id == ("7" if hit.index == 0 else None)
    documents = [Document("Tin.", "Metal", "i", {"year": 3}), Document("Oak.")]
    ranker = tiny(**LIKELIHOOD, rank_fields=("year", "text"), rank_fields_format=layout)
    assert all(hit.document is documents[hit.index] for hit in ranker.rank(QUERY, documents))
    assert before == SHOPS


def test_all_calls_read_them(tmp_path):
    fields = {"framework": "listwise", "layers": (1, 2), "document_states": "independent"}
    ranker = tiny(**fields, rank_fields=NAMES, states_dir=str(tmp_path))
    plain = tiny(**fields)
    wanted = told(plain.rank(QUERY, LINES))
    assert ranker.encode(SHOPS).new == 4
    assert ranker.rank(QUERY, SHOPS).usage.tokens < len(LINES[0]) * 4
    assert told(asyncio.run(ranker.arank(QUERY, SHOPS))) == wanted
    queries = [QUERY, "What is old?"]
    many = ranker.rank_many(queries, [SHOPS, [dict(shop) for shop in SHOPS]])
    # One pass, because the same is read, whatever else documents have.
    apart = [[Document(f"{side} {n}", metadata=shop) for n, shop in enumerate(SHOPS)]
             for side in ("left", "right")]  # fmt: skip
    asked: list[int] = []
    score_queries = ranker.scorer.score_queries

    def counted(own, *arguments):
        asked.append(len(own))
        return score_queries(own, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranker.scorer, "score_queries", counted)
        found = ranker.rank_many(queries, apart)
    assert list(map(told, found)) == list(map(told, many))
    assert asked == [2]
    assert list(map(told, many)) == list(map(told, plain.rank_many(queries, [LINES] * 2)))
    assert many[0][0].document.metadata is SHOPS[many[0][0].index]
    # Lists are the same where what is read is, and only there.
    years = [[Document(text, metadata={"year": year}) for text in "ab"] for year in (1, 2, 1)]
    dated = tiny(**fields, rank_fields=("year", "text")).rank_many([QUERY] * 3, years)
    for year, ranking in zip((1, 2, 1), dated, strict=True):
        texts = [f"year: {year}\n{text}" for text in "ab"]
        assert ranking.scores == pytest.approx(plain.rank(QUERY, texts).scores, abs=1e-5)
    assert dated[0].scores != dated[1].scores
    found = ranker.read_attention(QUERY, SHOPS)
    assert found.token_ids == plain.read_attention(QUERY, LINES).token_ids


@pytest.mark.parametrize("more", [
    {"near_duplicates": 0.9}, {"diversity": 0.8}, {"score_mode": "explained"}, {"top_n": 2},
    {"score_threshold": -6.9}, {"max_document_tokens": 12}, {"score_mode": "share"},
    {"document_states": "independent", "cascade": 2},
], ids=str)  # fmt: skip
def test_what_else_is_asked_for_looks_at_what_is_read(more):
    # By their other fields they would repeat each other, or would not.
    shops = [*SHOPS, {"name": "Oak", "secret": "x" * 99}, {"name": "", "secret": "y" * 99}]
    lines = [*LINES, "name: Oak", ""]
    found = tiny(**LIKELIHOOD, **more, rank_fields=NAMES).rank(QUERY, shops)
    wanted = tiny(**LIKELIHOOD, **more).rank(QUERY, lines)
    assert told(found) == told(wanted)
    assert found.duplicates == wanted.duplicates
    assert found.usage.truncated == wanted.usage.truncated


def test_failures_that_are_let_through_and_first_stages():
    ranker = tiny(**LIKELIHOOD, rank_fields=NAMES, on_error="passthrough")
    ranking = ranker.rank(" ", SHOPS)
    assert ranking.error is not None
    assert [hit.document.metadata for hit in ranking] == SHOPS
    with pytest.raises(InputError, match="none of the fields"):
        ranker.rank(QUERY, [*SHOPS, {"colour": "red"}])
    with pytest.raises(InputError, match="rank_fields"):
        tiny(**LIKELIHOOD).rank(QUERY, SHOPS)
    scores = [4, 3, 2, 1]
    fused = tiny(**LIKELIHOOD, rank_fields=NAMES, fusion="weighted")
    assert told(fused.rank(QUERY, SHOPS, retrieval_scores=scores)) == told(
        tiny(**LIKELIHOOD, fusion="weighted").rank(QUERY, LINES, retrieval_scores=scores)
    )


def test_the_setting_is_checked_and_goes_along(model_folder):
    assert RerankerConfig(rank_fields="name, year").rank_fields == ("name", "year")
    assert RerankerConfig(rank_fields=["name"]).rank_fields == ("name",)
    environment = {"ICR_RAG_RANK_FIELDS": "name,year"}
    assert RerankerConfig.from_env(environment=environment).rank_fields == ("name", "year")
    for wrong in ((), "", "a,,b", ("a", "a"), ("a\nb",), (" ",), 5, (5,)):
        with pytest.raises(ConfigError, match="rank_fields"):
            RerankerConfig(rank_fields=wrong)
    with pytest.raises(ConfigError, match="rank_fields_format='yaml' means nothing without"):
        RerankerConfig(rank_fields_format="yaml")
    config = RerankerConfig(rank_fields=NAMES, rank_fields_format="yaml")
    assert config.switched(rank_fields=None).rank_fields_format == "lines"
    assert config.switched(scoring="likelihood").rank_fields == NAMES
    assert RerankerConfig.from_dict(config.to_dict()) == config
    ranker = pickle.loads(pickle.dumps(Reranker(model=model_folder, rank_fields=NAMES)))
    assert ranker.config.rank_fields == NAMES
