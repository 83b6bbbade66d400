"""The PyTerrier transformer, in pipelines of PyTerrier's own operators."""

from __future__ import annotations

import pytest

pt = pytest.importorskip("pyterrier")

import pandas  # noqa: E402

from icr_rag.errors import ConfigError, InputError  # noqa: E402
from icr_rag.integrations.pyterrier import ICRRanker  # noqa: E402

QUERIES = {"q2": "Which metal melts first?", "q1": "What is soft?"}
TEXTS = ["Tin melts at 232 degrees.", "Lead is soft.", "Copper conducts heat well.", "Zinc."]


def make_frame():
    return pandas.DataFrame(
        [
            {"qid": qid, "query": query, "docno": f"d{i}", "text": text, "score": 9.0 - i,
             "rank": i, "year": 1900 + i}
            for qid, query in QUERIES.items()
            for i, text in enumerate(TEXTS)
        ]
    )  # fmt: skip


@pytest.fixture
def ours(tiny_reranker):
    return ICRRanker(tiny_reranker)


def test_scores_are_the_rerankers_and_nothing_is_changed(ours, tiny_reranker):
    frame = make_frame()
    before = frame.copy(deep=True)
    found = ours(frame)
    pandas.testing.assert_frame_equal(frame, before)
    assert list(found.columns) == list(frame.columns)
    assert list(dict.fromkeys(found["qid"])) == ["q2", "q1"]
    for qid, query in QUERIES.items():
        rows = found[found["qid"] == qid]
        expected = tiny_reranker.rank(query, TEXTS)
        assert rows["docno"].tolist() == [f"d{hit.index}" for hit in expected]
        assert rows["score"].tolist() == [hit.score for hit in expected]
        assert rows["rank"].tolist() == [0, 1, 2, 3]
        assert (rows["year"] - 1900).tolist() == [hit.index for hit in expected]


def test_candidates_are_taken_by_rank_then_score_then_row(tiny_reranker):
    # The order decides where in the prompt a document stands.
    frame = make_frame()
    expected = ICRRanker(tiny_reranker)(frame)
    shuffled = frame.sample(frac=1, random_state=3)
    for given in (shuffled, shuffled.drop(columns="rank"), frame.drop(columns=["rank", "score"])):
        found = ICRRanker(tiny_reranker)(given)
        for qid in QUERIES:
            mine, theirs = found[found["qid"] == qid], expected[expected["qid"] == qid]
            assert mine["docno"].tolist() == theirs["docno"].tolist()
            assert mine["score"].tolist() == theirs["score"].tolist()


def test_in_a_pipeline(ours):
    first_stage = pt.Transformer.from_df(make_frame())
    topics = pandas.DataFrame([{"qid": q, "query": t} for q, t in QUERIES.items()])
    found = (first_stage % 3 >> ours % 2)(topics)
    assert found.groupby("qid").size().tolist() == [2, 2]


def test_top_n_of_the_settings_cuts_each_query(tiny_reranker):
    found = ICRRanker(tiny_reranker.with_config(top_n=1))(make_frame())
    assert found["rank"].tolist() == [0, 0]


def test_weighted_fusion_reads_the_frames_scores(tiny_reranker):
    engine = tiny_reranker.with_config(fusion="weighted", fusion_weight=0.0)
    assert ICRRanker(engine)(make_frame())["docno"].tolist() == ["d0", "d1", "d2", "d3"] * 2


def test_an_empty_frame_stays_empty_with_the_columns(ours):
    found = ours(make_frame().iloc[:0].drop(columns=["score", "rank"]))
    assert len(found) == 0
    assert {"score", "rank"} <= set(found.columns)


def test_another_text_column(tiny_reranker):
    frame = make_frame().rename(columns={"text": "body"})
    assert len(ICRRanker(tiny_reranker, text_field="body")(frame)) == 8
    with pytest.raises(InputError, match=r"lacks the columns text \(it has qid"):
        ICRRanker(tiny_reranker)(frame)


def test_unknown_settings_are_named():
    with pytest.raises(ConfigError, match="did you mean 'layers'"):
        ICRRanker(layer=1)
