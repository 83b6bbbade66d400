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
        scores = frame[frame["qid"] == qid]["score"].tolist()
        expected = tiny_reranker.rank(query, TEXTS, retrieval_scores=scores)
        assert rows["docno"].tolist() == [f"d{hit.index}" for hit in expected]
        assert rows["score"].tolist() == [hit.score for hit in expected]
        assert rows["rank"].tolist() == [0, 1, 2, 3]
        assert (rows["year"] - 1900).tolist() == [hit.index for hit in expected]


def test_candidates_are_taken_by_rank_then_score_then_row(tiny_reranker):
    # The order decides where in the prompt a document stands.
    frame = make_frame()
    tiny_reranker = tiny_reranker.with_config(fusion="none")
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


def test_pyterriers_own_inspection_knows_the_columns(ours):
    needed = ["qid", "query", "docno", "text"]
    assert pt.inspect.transformer_inputs(ours) == [needed]
    assert pt.inspect.transformer_outputs(ours, [*needed, "year"]) == [
        *needed, "year", "score", "rank"
    ]  # fmt: skip


def test_in_an_experiment(ours):
    topics = pandas.DataFrame([{"qid": q, "query": t} for q, t in QUERIES.items()])
    qrels = pandas.DataFrame([{"qid": q, "docno": "d1", "label": 1} for q in QUERIES])
    systems = [
        pt.Transformer.from_df(make_frame()),
        pt.Transformer.from_df(make_frame()) >> ours,
    ]
    table = pt.Experiment(systems, topics, qrels, ["recip_rank"])
    frame = ours(make_frame())
    places = frame[frame["docno"] == "d1"]["rank"]
    assert table["recip_rank"].tolist() == pytest.approx([0.5, (1 / (places + 1)).mean()])


def test_records_go_in_and_come_out(ours):
    records = make_frame().to_dict("records")
    assert ours(records) == ours(make_frame()).to_dict("records")


def test_missing_text_is_blank_and_ties_keep_their_order(ours):
    frame = make_frame().iloc[:4].copy()
    frame["text"] = [None, "Zinc.", float("nan"), "Zinc."]
    found = ours(frame)
    assert found["docno"].tolist() == ["d1", "d3", "d0", "d2"]
    assert ours(frame.iloc[1:2])["docno"].tolist() == ["d1"]


def test_a_threshold_may_leave_nothing(tiny_reranker):
    found = ICRRanker(tiny_reranker.with_config(score_threshold=1e9))(make_frame())
    assert len(found) == 0
    assert list(found.columns) == list(make_frame().columns)


def test_one_qid_with_several_queries_is_an_error(ours):
    frame = make_frame().assign(qid="q")
    with pytest.raises(InputError, match="qid 'q' has 2 queries"):
        ours(frame)


def test_passthrough_says_so(tiny_reranker, monkeypatch):
    engine = tiny_reranker.with_config(on_error="passthrough")

    def fail(*arguments):
        raise RuntimeError("no memory")

    monkeypatch.setattr(engine, "_score", fail)
    found = ICRRanker(engine)(make_frame())
    assert found["docno"].tolist() == ["d0", "d1", "d2", "d3"] * 2
    assert set(found["rerank_error"]) == {"RuntimeError: no memory"}


def test_another_text_column(tiny_reranker):
    frame = make_frame().rename(columns={"text": "body"})
    assert len(ICRRanker(tiny_reranker, text_field="body")(frame)) == 8
    with pytest.raises(InputError, match=r"lacks the columns text \(it has qid"):
        ICRRanker(tiny_reranker)(frame)


def test_unknown_settings_are_named():
    with pytest.raises(ConfigError, match="did you mean 'layers'"):
        ICRRanker(layer=1)
