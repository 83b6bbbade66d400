"""The given order as weak evidence: arithmetic, invariants, and that it can be turned off."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker
from icr_rag.frameworks.combine import combine, prior, rule_of
from icr_rag.frameworks.result import WindowedScores
from icr_rag.order import standardised

TEXTS = ["Tin melts at 232 degrees.", "Lead is soft.", "Copper conducts heat.", "Gold."]
QUERY = "Which metal melts first?"


def ranked(scores):
    order = sorted(range(len(scores)), key=lambda item: -scores[item])
    return WindowedScores(order, list(scores), [0] * len(scores))


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30),
    st.floats(0.01, 5),
    st.randoms(),
)
def test_it_is_the_sum_of_two_standardised_scores(scores, weight, random):
    result = combine(ranked(scores), prior(weight))
    count = len(scores)
    reciprocal = standardised([1 / (rank + 10) for rank in range(1, count + 1)])
    wanted = [a + weight * b for a, b in zip(standardised(scores), reciprocal, strict=True)]
    assert result.scores == pytest.approx(wanted)
    assert sorted(result.order) == list(range(count))
    along = [result.scores[item] for item in result.order]
    assert along == sorted(along, reverse=True)
    assert len(set(result.groups)) == 1


def test_where_scores_say_nothing_the_order_stays():
    assert combine(ranked([1.0] * 5), prior(0.3)).order == [0, 1, 2, 3, 4]
    assert combine(ranked([1.0] * 3), prior(0.3, [1.0, 3.0, 2.0])).order == [1, 2, 0]


def test_no_weight_changes_nothing():
    given_ranking = ranked([0.5, 2.0])
    assert combine(given_ranking, rule_of("auto", 0.5, 0.0, {})) is given_ranking
    assert combine(ranked([7.0]), prior(1.0)).scores == [7.0]


def tiny(**fields):
    if fields.get("scoring") != "likelihood":
        fields = {"layers": (1, 2), **fields}
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **fields)


def test_a_prior_moves_scores_towards_the_given_order():
    plain = tiny().rank(QUERY, TEXTS)
    assert tiny(fusion="none").rank(QUERY, TEXTS).scores == plain.scores
    prior = tiny(fusion="prior").rank(QUERY, TEXTS)
    own, reciprocal = standardised(plain.scores), standardised([1 / 11, 1 / 12, 1 / 13, 1 / 14])
    assert list(prior.scores) == pytest.approx(
        [a + 0.3 * b for a, b in zip(own, reciprocal, strict=True)]
    )


def test_first_stage_scores_give_the_order_of_a_prior():
    reversed_scores = [1.0, 2.0, 3.0, 4.0]
    given_scores = tiny(fusion="prior", framework="pointwise").rank(
        QUERY, TEXTS, retrieval_scores=reversed_scores
    )
    reversed_texts = tiny(fusion="prior", framework="pointwise").rank(QUERY, TEXTS[::-1])
    assert list(given_scores.scores) == pytest.approx(reversed_texts.scores[::-1], abs=1e-4)


class CountsTheOrder(Reranker):
    """Its profile counts the first stage."""

    def _make_scorers(self, due=None):
        scorer, second = super()._make_scorers(due)
        scorer.first_stage_weight = 0.3 if self.config.fusion == "auto" else 0.0
        return scorer, second


def test_auto_orders_its_prior_by_scores_that_are_given(own_records):
    fields = {"layers": (1, 2), "framework": "pointwise"}
    auto = CountsTheOrder.from_model(tiny_model("llama"), byte_tokenizer(), **fields)
    prior = tiny(fusion="prior", framework="pointwise")
    assert auto.rank(QUERY, TEXTS).scores == prior.rank(QUERY, TEXTS).scores
    for scores in ([1.0, 2.0, 3.0, 4.0], [0.0, 5.0, 5.0, -1.0]):
        found = auto.rank(QUERY, TEXTS, retrieval_scores=scores)
        assert found.scores == prior.rank(QUERY, TEXTS, retrieval_scores=scores).scores
        assert found.scores != auto.rank(QUERY, TEXTS).scores
    assert own_records() == []


def test_none_leaves_the_scores_out():
    plain = tiny(fusion="none", framework="pointwise")
    for scores in ([1.0, 2.0, 3.0, 4.0], [None, "x"]):
        found = plain.rank(QUERY, TEXTS, retrieval_scores=scores)
        assert found.scores == plain.rank(QUERY, TEXTS).scores


def test_the_same_text_twice_shares_a_score():
    for scoring in ("attention", "likelihood", "mixed"):
        ranking = tiny(fusion="prior", scoring=scoring).rank(QUERY, [*TEXTS, TEXTS[0], " "])
        assert ranking.scores[0] == ranking.scores[4]
        assert ranking[-1].index == 5
        assert all(math.isfinite(score) for score in ranking.scores)


@pytest.mark.real_weights
def test_the_embedded_models_profile_counts_the_order_a_little():
    model = Reranker(local_files_only=True)
    texts = ["Onions make you cry.", "The museum is closed.", "Chill an onion before you cut it."]
    query = "How do I cut onions without tears?"
    own = model.with_config(fusion="none").rank(query, texts)
    # Mixed scoring, by the held-out figures, runs all layers.
    assert (own.usage.scoring, own.usage.layers[-1]) == ("mixed", 29)
    assert own.usage.calls == 3
    turned = model.with_config(fusion="none").rank(query, texts[::-1])
    assert own.scores == pytest.approx(turned.scores[::-1], abs=1e-3)
    given_order = model.rank(query, texts)
    assert given_order.scores != pytest.approx(own.scores, abs=1e-3)
    best_last = model.rank(query, texts, retrieval_scores=[1, 2, 3])
    assert best_last.scores == pytest.approx(model.rank(query, texts[::-1]).scores[::-1], abs=1e-3)
    assert best_last.scores != pytest.approx(given_order.scores, abs=1e-3)
