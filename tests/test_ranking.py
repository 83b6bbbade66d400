"""From scores to a ranking: fusion, score modes, near-duplicates, thresholds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import byte_tokenizer, tiny_model

from icr_rag import Document, Reranker, RerankerConfig
from icr_rag.duplicates import near_duplicates
from icr_rag.errors import ClosedError, ConfigError, InputError
from icr_rag.frameworks.combine import combine, rule_of
from icr_rag.frameworks.listwise import rank_listwise
from icr_rag.frameworks.result import WindowedScores
from icr_rag.order import stable_order
from icr_rag.ranking import Scored, present, shown_scores

DOCUMENTS = ["the tide rises", "the moon wanes", "", "sand and salt", "a rope on the pier"]
SCORES = st.lists(st.floats(-100, 100), min_size=1, max_size=12)


def reranker(**fields):
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), layers=(1, 2), **fields)


def scored(scores):
    return Scored(stable_order(scores), list(scores), [0] * len(scores))


def ranked(scores):
    return WindowedScores(stable_order(scores), list(scores), [0] * len(scores))


@given(SCORES, st.sampled_from(["raw", "share", "rank", "lift"]))
def test_no_mode_changes_the_order_that_its_scores_give(scores, mode):
    given_ = scored(scores)
    shown = shown_scores(given_, mode)
    along = [shown[i] for i in given_.order]
    assert along == sorted(along, reverse=True)
    if mode == "share":
        assert math.isclose(sum(shown), 1)
    if mode == "rank":
        assert along == [1 / n for n in range(1, len(scores) + 1)]


def test_share_does_not_depend_on_the_scale():
    small = shown_scores(scored([0.1, 0.3, 0.2]), "share")
    large = shown_scores(scored([10.0, 30.0, 20.0]), "share")
    assert small == pytest.approx(large)
    assert small[1] > 0.6 > 0.1 > small[0]
    assert shown_scores(scored([7.0]), "share") == [1.0]


def test_share_is_of_the_window_that_decided_the_top():
    shown = shown_scores(Scored([1, 0, 2], [2.0, 3.0, 1.0], [1, 1, 0]), "share")
    assert shown[2] == 0
    assert sum(shown) == pytest.approx(1)


def test_reciprocal_rank_fusion_by_hand():
    fused = combine(ranked([5.0, 1.0, 9.0]), rule_of("rrf", 0.5, 0.0, {}))
    by_hand = [0.5 / 62 + 0.5 / 61, 0.5 / 63 + 0.5 / 62, 0.5 / 61 + 0.5 / 63]
    assert fused.scores == pytest.approx(by_hand)
    assert fused.order == [0, 2, 1]


@given(SCORES)
def test_a_weight_of_one_or_zero_is_one_of_the_two_rankings(scores):
    own = ranked(scores)
    assert combine(own, rule_of("rrf", 1.0, 0.0, {})).order == own.order
    assert combine(own, rule_of("rrf", 0.0, 0.0, {})).order == list(range(len(scores)))
    retrieval = [float(-i) for i in range(len(scores))]
    rule = rule_of("weighted", 0.0, 0.0, {"scores": retrieval})
    assert combine(own, rule).order == list(range(len(scores)))


def test_weighted_fusion_by_hand():
    rule = rule_of("weighted", 0.25, 0.0, {"scores": [4.0, 2.0, 3.0]})
    fused = combine(ranked([0.0, 10.0, 5.0]), rule)
    assert fused.scores == pytest.approx([0.75, 0.25, 0.5])
    # Equal scores favour nobody, whatever their size.
    even = rule_of("weighted", 0.5, 0.0, {"scores": [1.0, 1.0]})
    assert combine(ranked([3.0, 3.0]), even).scores == [0.5, 0.5]


@pytest.mark.parametrize("fusion", ["none", "rrf", "weighted"])
@pytest.mark.parametrize("mode", ["raw", "share", "rank", "lift"])
def test_every_combination_gives_falling_scores_and_blanks_last(fusion, mode):
    with reranker(fusion=fusion, score_mode=mode) as ranker:
        ranking = ranker.rank("the moon?", DOCUMENTS, retrieval_scores=[5, 4, 3, 2, 1.5])
    scores = [hit.score for hit in ranking]
    assert scores == sorted(scores, reverse=True)
    assert {hit.index for hit in ranking} == set(range(5))
    assert ranking[-1].index == 2
    assert all(type(score) is float for score in ranking.scores)


def test_lift_is_the_log_of_the_ratio_of_both_readings():
    with reranker(score_mode="lift", token_mask=False) as ranker:
        reading = ranker.read_attention("the moon?", DOCUMENTS)
        found = ranker.rank("the moon?", DOCUMENTS).scores
    query, null = reading.query.sum((0, 1)), reading.null.sum((0, 1))
    for index in (0, 1, 3, 4):
        span = slice(*reading.spans[index])
        expected = math.log(query[span].sum() / null[span].sum())
        assert found[index] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (None, "needs the first stage's scores"),
        ([1.0], r"one number per document \(5\)"),
        # Document 2 is blank and needs none.
        ([1, None, None, 3, 4], r"retrieval_scores\[1\] is None"),
        ([1, 2, 3, 4, math.nan], r"retrieval_scores\[4\] is nan"),
    ],
)
def test_weighted_fusion_says_what_it_lacks(scores, message):
    with reranker(fusion="weighted") as ranker, pytest.raises(InputError, match=message):
        ranker.rank("the moon?", DOCUMENTS, retrieval_scores=scores)


def test_threshold_and_top_n_cut_hits_but_no_score():
    with reranker(score_mode="rank", score_threshold=0.3) as ranker:
        ranking = ranker.rank("the moon?", DOCUMENTS)
        assert [hit.score for hit in ranking] == [1.0, 1 / 2, 1 / 3]
        assert len(ranking.scores) == 5
        assert len(ranker.rank("the moon?", DOCUMENTS, top_n=1)) == 1


def test_near_duplicates_point_to_the_better_one():
    config = RerankerConfig(near_duplicates=0.8)
    texts = ["The ship sails at noon.", "something else", "the  ship sails at noon!", " "]
    documents = [Document(text) for text in texts]
    chosen = present(Scored([2, 1, 0, 3], [1.0, 2.0, 3.0, 0.0], [0] * 4), documents, config)
    assert chosen.order == [2, 1, 3]
    assert chosen.duplicates == {0: 2}
    assert chosen.scores == [1.0, 2.0, 3.0, 0.0]


@given(st.lists(st.text("ab c", max_size=12), max_size=8), st.floats(0.05, 1))
def test_near_duplicates_equal_the_obvious_comparison(texts, limit):
    def grams(text):
        text = " ".join(text.casefold().split())
        return {text[i : i + 5] for i in range(max(1, len(text) - 4))} if text else set()

    expected, kept = {}, []
    for place, text in enumerate(texts):
        mine = grams(text)
        similar = [(len(mine & grams(texts[k])) / len(mine | grams(texts[k])), -k)
                   for k in kept if mine | grams(texts[k])]  # fmt: skip
        best = max(similar, default=(0, 0))
        if best[0] >= limit:
            expected[place] = -best[1]
        else:
            kept.append(place)
    assert near_duplicates(texts, limit) == expected


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(2, 6), st.data())
def test_scores_of_several_windows_fall_along_the_order(quality, window, data):
    """Each window sees its items on a scale of its own."""

    def score(items):
        scale, shift = data.draw(st.tuples(st.floats(0.1, 10), st.floats(-50, 50)))
        return [quality[item] * scale + shift for item in items]

    result = rank_listwise(len(quality), score, lambda items: len(items) <= window)
    along = [result.scores[item] for item in result.order]
    assert along == sorted(along, reverse=True)


# --- when ranking fails -----------------------------------------------------------------------


def failing(monkeypatch, error, **fields):
    ranker = reranker(**fields)

    def fail(*arguments):
        raise error

    monkeypatch.setattr(ranker, "_score", fail)
    return ranker


def test_passthrough_keeps_the_given_order_and_says_so(monkeypatch, caplog):
    ranker = failing(monkeypatch, RuntimeError("no memory"), on_error="passthrough")
    ranking = ranker.rank("the moon?", DOCUMENTS, top_n=3)
    assert [hit.index for hit in ranking] == [0, 1, 2]
    assert ranking.error == "RuntimeError: no memory"
    assert set(ranking.scores) == {0.0}
    assert "the documents keep their given order" in caplog.text
    assert ranker.rank("", []).error is not None


def test_without_it_the_error_is_raised_and_success_has_none(monkeypatch):
    with pytest.raises(RuntimeError, match="no memory"):
        failing(monkeypatch, RuntimeError("no memory")).rank("the moon?", DOCUMENTS)
    with reranker(on_error="passthrough") as ranker:
        assert ranker.rank("the moon?", DOCUMENTS).error is None


@pytest.mark.parametrize("error", [ConfigError("device"), ClosedError("closed")])
def test_mistakes_in_the_program_are_never_passed_through(monkeypatch, error):
    with pytest.raises(type(error)):
        failing(monkeypatch, error, on_error="passthrough").rank("the moon?", DOCUMENTS)
    with pytest.raises(InputError, match="document 0"):
        reranker(on_error="passthrough").rank("the moon?", [7])


def test_reciprocal_rank_fusion_takes_the_first_stages_scores_where_given():
    own = ranked([1.0, 2.0, 3.0])
    fused = combine(own, rule_of("rrf", 0.0, 0.0, {"scores": [5.0, 9.0, 7.0]}))
    assert fused.order == [1, 2, 0]
