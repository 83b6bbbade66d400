"""A cheap reading of all documents, then a costly one of the best."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker, RerankerConfig
from icr_rag.calls.cascade import on_top, second_config
from icr_rag.errors import ConfigError
from icr_rag.frameworks.result import WindowedScores
from icr_rag.order import stable_order
from icr_rag.states import opening as kept_states

QUERY = "what is b?"
DOCUMENTS = [f"document {i} " + "abcdefgh"[i % 8] * (3 + 5 * i % 17) for i in range(12)]
FIRST = {"document_states": "independent", "fusion": "none", "layers": (1, 2)}


def reranker(**fields):
    # As in a process of its own: rerankers on the same weights share what is kept.
    kept_states._stores.clear()
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **fields)


@pytest.mark.parametrize("second", ["listwise", "pointwise"])
@pytest.mark.parametrize("first", ["listwise", "pointwise"])
def test_the_best_are_ranked_as_they_are_by_themselves(first, second):
    alone = reranker(**FIRST, framework=first).rank(QUERY, DOCUMENTS)
    found = reranker(**FIRST, framework=first, cascade=4, cascade_framework=second).rank(
        QUERY, DOCUMENTS
    )
    best = [hit.index for hit in alone][:4]
    again = reranker(framework=second, layers=(1, 2), fusion="none").rank(
        QUERY, [DOCUMENTS[index] for index in best]
    )
    assert [hit.index for hit in found][:4] == [best[hit.index] for hit in again]
    assert [hit.index for hit in found][4:] == [hit.index for hit in alone][4:]
    assert [hit.score for hit in found][:4] == [hit.score for hit in again]
    scores = [hit.score for hit in found]
    assert scores == sorted(scores, reverse=True)
    assert found.usage.tokens > alone.usage.tokens


def test_blank_and_equal_documents_and_short_lists():
    cascade = reranker(**FIRST, cascade=3)
    found = cascade.rank(QUERY, ["b is b", "", "b is b", "zzz", "abc", "d"])
    assert sorted(hit.index for hit in found) == list(range(6))
    assert found.scores[0] == found.scores[2]
    assert next(iter(reversed(found.hits))).index == 1
    assert len(cascade.rank(QUERY, ["one"])) == 1


def test_what_is_cut_for_the_second_reading_is_said():
    long = ["a" * 150, "b" * 150, "c" * 10]
    prompt = {"token_budget": 300, "layers": (1, 2), "fusion": "none"}
    kept = reranker(**prompt, document_states="independent", framework="pointwise")
    assert kept.rank(QUERY, long).usage.truncated == ()
    both = kept.with_config(cascade=3)
    assert both.rank(QUERY, long).usage.truncated == (0, 1)


def test_layers_of_both_readings_are_loaded(model_folder):
    fields = {"model": model_folder, "heads": ((0, 1),), "fusion": "none"}
    with Reranker(**fields, document_states="independent", cascade=2) as both:
        assert both.rank(QUERY, DOCUMENTS[:4]).usage.layers == (0,)
    ranked = reranker(document_states="independent", cascade=2, framework="pointwise",
                      scoring="likelihood").rank(QUERY, DOCUMENTS)  # fmt: skip
    assert ranked.usage.layers  # likelihood reads none; the second reading does


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cascade": 20}, "document_states='independent'"),
        ({"cascade_framework": "pointwise"}, "without cascade"),
        ({**FIRST, "framework": "listwise", "cascade": 9, "score_mode": "lift"}, "readings differ"),
        ({**FIRST, "cascade": 1}, "cascade=1"),
    ],
)
def test_mistakes(fields, message):
    with pytest.raises(ConfigError, match=message):
        RerankerConfig(**fields)


def test_the_second_reading_keeps_nothing_and_is_no_cascade():
    config = RerankerConfig(**FIRST, cascade=9, states_dtype="int8", window=5, instruction="a b c")
    second = second_config(config)
    assert (second.document_states, second.cascade, second.states_dtype) == ("joint", None, "same")
    assert (second.window, second.instruction, second.layers) == (5, "a b c", (1, 2))
    pointwise = second_config(config.replace(cascade_framework="pointwise"))
    assert (pointwise.window, pointwise.framework) == (None, "pointwise")
    assert second_config(RerankerConfig()) is None


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=9), st.data())
def test_scores_never_contradict_the_order(scores, data):
    ranked = WindowedScores(stable_order(scores), scores, [0] * len(scores))
    count = data.draw(st.integers(1, len(scores)))
    chosen = ranked.order[:count]
    own = data.draw(st.lists(st.floats(-9, 9), min_size=count, max_size=count))
    again = WindowedScores(stable_order(own), own, [0] * count)
    found = on_top(ranked, chosen, again)
    assert sorted(found.order) == list(range(len(scores)))
    assert set(found.order[:count]) == set(chosen)
    along = [found.scores[item] for item in found.order]
    assert along == sorted(along, reverse=True)
    assert [found.scores[item] for item in chosen] == own
    assert scores == ranked.scores
