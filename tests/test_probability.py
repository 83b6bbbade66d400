"""Probabilities and abstention: explained scores through what a profile says they mean."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from probability_parts import (
    ATTENTION,
    DOCUMENTS,
    ISOTONIC,
    LIKELIHOOD,
    LOGISTIC,
    METHODS,
    MIXED,
    QUERY,
    YES_NO,
    chance_of_answer,
    knots,
    line,
    maker,
    of_model,
)

from icr_rag import Reranker, RerankerConfig, cli
from icr_rag.errors import ConfigError
from icr_rag.profiles import Calibration
from icr_rag.profiles.calibration import features


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    return maker(tmp_path_factory.mktemp("profiles"))


@pytest.mark.parametrize(("calibration", "direct"), [(LOGISTIC, line), (ISOTONIC, knots)])
@pytest.mark.parametrize("fields", METHODS.values(), ids=METHODS)
def test_it_equals_the_direct_computation(fields, calibration, direct, make):
    path = make(fields, calibration)
    ranker = of_model(fields, profile=path, score_mode="probability")
    explained = ranker.with_config(score_mode="explained").rank(QUERY, DOCUMENTS)
    found = ranker.rank(QUERY, DOCUMENTS)
    assert found.scores == pytest.approx([direct(s) for s in explained.scores], abs=1e-6)
    assert all(type(score) is float and 0 <= score <= 1 for score in found.scores)
    assert [hit.index for hit in found] == [hit.index for hit in explained]
    # Nothing of the first stage is in it.
    given = ranker.rank(QUERY, DOCUMENTS, retrieval_scores=[4.0, 3.0, 1.0, 9.0])
    assert given.scores == pytest.approx(found.scores, abs=1e-6)
    wanted = chance_of_answer(explained.scores)
    assert found.answerable == pytest.approx(wanted, abs=1e-6)
    assert explained.answerable == found.answerable


@pytest.mark.parametrize("fields", METHODS.values(), ids=METHODS)
@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    documents=st.lists(st.text("abc d.", max_size=40), min_size=1, max_size=24),
    size=st.sampled_from([1, 3, 8]),
    mode=st.sampled_from(["explained", "probability"]),
    kept=st.booleans(),
)
def test_splitting_a_list_changes_nothing(make, fields, documents, size, mode, kept):
    states = {"document_states": "independent"} if kept and fields is not YES_NO else {}
    ranker = of_model({**fields, **states}, profile=make(fields), score_mode=mode)
    whole = ranker.rank(QUERY, documents)
    parts = [documents[begin : begin + size] for begin in range(0, len(documents), size)]
    apart = [score for part in parts for score in ranker.rank(QUERY, part).scores]
    assert whole.scores == pytest.approx(apart, abs=1e-5)
    along = [hit.score for hit in whole]
    assert along == sorted(along, reverse=True)
    if mode == "probability":
        blank = [not text.strip() for text in documents]
        assert all((score == 0) for score, empty in zip(whole.scores, blank, strict=True) if empty)


def test_ties_are_broken_by_the_score_behind_them(make):
    flat = {"kind": "isotonic", "knots": ((50.0, 0.4), (60.0, 0.9))}
    ranker = of_model(LIKELIHOOD, profile=make(LIKELIHOOD, flat), score_mode="probability")
    found = ranker.rank(QUERY, [*DOCUMENTS, " "])
    explained = ranker.with_config(score_mode="explained").rank(QUERY, [*DOCUMENTS, " "])
    assert set(found.scores[:4]) == {0.4}
    assert [hit.index for hit in found] == [hit.index for hit in explained]
    # Not below what is not read: that is known to be nothing.
    assert found.scores[4] == 0.0


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.floats(-200, 200), min_size=2, max_size=40),
    drawn=st.lists(st.tuples(st.floats(-9, 9), st.floats(0, 1)), min_size=2, max_size=9),
    slope=st.floats(1e-3, 1e3),
    intercept=st.floats(-50, 50),
)
def test_a_higher_score_never_has_a_lower_probability(scores, drawn, slope, intercept):
    xs = sorted({x for x, _ in drawn})
    ys = sorted(y for _, y in drawn)[: len(xs)]
    maps = [Calibration(kind="logistic", slope=slope, intercept=intercept, basis={})]
    if len(xs) > 1:
        pairs = tuple(zip(xs, ys, strict=True))
        maps.append(Calibration(kind="isotonic", knots=pairs, basis={}))
    for one in maps:
        along = [one.probability(score) for score in sorted(scores)]
        assert along == sorted(along)
        assert all(0 <= value <= 1 for value in along)


def test_features_of_a_list():
    assert features([0.2]) == {"top": 0.2, "gap": 0.0, "lead": 0.0, "spread": 0.0}
    found = features([0.1, 0.7, 0.4])
    assert found == pytest.approx({"top": 0.7, "gap": 0.3, "lead": 0.3, "spread": 0.2449490})


# --- where nothing answers -------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["explained", "probability"])
def test_below_min_answerable_there_are_no_hits(mode, make):
    plain = of_model(LIKELIHOOD, profile=make(LIKELIHOOD), score_mode=mode)
    whole = plain.rank(QUERY, DOCUMENTS)
    just, more = whole.answerable, min(1.0, whole.answerable + 1e-3)
    kept = plain.with_config(min_answerable=just).rank(QUERY, DOCUMENTS)
    assert (kept.hits, kept.abstained) == (whole.hits, False)
    left = plain.with_config(min_answerable=more, top_n=2).rank(QUERY, DOCUMENTS)
    assert (left.hits, left.abstained) == ((), True)
    assert (left.scores, left.answerable) == (whole.scores, whole.answerable)
    two = plain.with_config(min_answerable=just, top_n=2).rank(QUERY, DOCUMENTS)
    assert two.hits == whole.hits[:2]
    assert not whole.abstained


def test_the_list_is_judged_by_its_distinct_contents(make):
    ranker = of_model(LIKELIHOOD, profile=make(LIKELIHOOD), score_mode="probability")
    once = ranker.rank(QUERY, DOCUMENTS)
    again = ranker.rank(QUERY, [*DOCUMENTS, "", *DOCUMENTS])
    assert again.answerable == pytest.approx(once.answerable, abs=1e-6)
    # Whatever is left out afterwards, it is a statement about what was given.
    for cut in ({"score_threshold": 1.0}, {"near_duplicates": 0.2}, {"top_n": 0}):
        found = ranker.with_config(**cut).rank(QUERY, DOCUMENTS)
        assert found.answerable == once.answerable
        assert not found.abstained


@pytest.mark.parametrize("documents", [[], ["", "  "]])
def test_of_nothing_nothing_answers(documents, make):
    ranker = of_model(
        LIKELIHOOD, profile=make(LIKELIHOOD), score_mode="probability", min_answerable=0.01
    )
    found = ranker.rank(QUERY, documents)
    assert (found.hits, found.abstained, found.answerable) == ((), True, None)
    assert found.scores == (0.0,) * len(documents)
    shown = ranker.with_config(min_answerable=None).rank(QUERY, documents)
    assert (len(shown), shown.abstained, shown.answerable) == (len(documents), False, None)


def test_a_failure_that_is_let_through_is_no_abstention(make):
    ranker = of_model(
        LIKELIHOOD, profile=make(LIKELIHOOD), score_mode="probability", min_answerable=1.0,
        on_error="passthrough",
    )  # fmt: skip
    found = ranker.rank("", DOCUMENTS)
    assert found.error
    assert (len(found), found.abstained, found.answerable) == (4, False, None)


def test_other_modes_do_not_tell(make):
    path = make(ATTENTION)
    for mode in ("raw", "share", "rank"):
        assert of_model(ATTENTION, profile=path, score_mode=mode).rank(
            QUERY, DOCUMENTS
        ).answerable is None  # fmt: skip
    weightless = make(ATTENTION, LOGISTIC, None)
    for mode in ("explained", "probability"):
        found = of_model(ATTENTION, profile=weightless, score_mode=mode).rank(QUERY, DOCUMENTS)
        assert found.answerable is None


def test_thresholds_are_in_probability(make):
    ranker = of_model(LIKELIHOOD, profile=make(LIKELIHOOD), score_mode="probability")
    whole = ranker.rank(QUERY, DOCUMENTS)
    least = sorted(whole.scores)[2]
    found = ranker.with_config(score_threshold=least).rank(QUERY, [*DOCUMENTS, " "])
    assert found.hits == whole.hits[:2]
    for value in (0.0, 1.5, -1.0):
        with pytest.raises(ConfigError, match=r"score_threshold=.* above 0 and up to 1"):
            RerankerConfig(score_mode="probability", score_threshold=value, **LIKELIHOOD)


def test_all_ways_of_ranking_say_the_same(make):
    import asyncio

    ranker = of_model(
        LIKELIHOOD, profile=make(LIKELIHOOD), score_mode="probability", min_answerable=0.01
    )
    one = ranker.rank(QUERY, DOCUMENTS)
    other = asyncio.run(ranker.arank(QUERY, DOCUMENTS))
    many = ranker.rank_many([QUERY, QUERY], [DOCUMENTS, DOCUMENTS[:2]])
    assert other.scores == many[0].scores == one.scores
    assert other.answerable == many[0].answerable == one.answerable
    assert many[1].scores == pytest.approx(one.scores[:2], abs=1e-5)
    assert copy.deepcopy(ranker).rank(QUERY, DOCUMENTS).scores == one.scores
    twin = pickle.loads(pickle.dumps(one))
    assert (twin.answerable, twin.abstained) == (one.answerable, False)


@pytest.mark.parametrize("fields", [LIKELIHOOD, ATTENTION, MIXED], ids=str)
def test_documents_without_content_cost_less_than_a_tenth(fields, make):
    documents = [" ".join(f"w{number}{word:03}" for word in range(100)) for number in range(20)]
    ranker = of_model(fields, profile=make(fields), score_mode="probability")
    raw = {"score_mode": "raw", "fusion": "none"}
    plain = of_model(
        fields, **raw, **({} if fields is LIKELIHOOD else {"profile": make(fields)})
    ).rank(QUERY, documents).usage.tokens  # fmt: skip
    first = ranker.rank(QUERY, documents).usage.tokens
    assert plain < first < 1.1 * plain
    assert ranker.rank(QUERY, documents).usage.tokens == plain


# --- the command line ----------------------------------------------------------------------------


def test_the_command_line_tells(model_folder, make, tmp_path, capsys):
    path = tmp_path / "documents.jsonl"
    lines = [json.dumps({"id": str(n), "text": text}) for n, text in enumerate(DOCUMENTS)]
    path.write_text("\n".join(lines))
    fields = {"model": model_folder, "dtype": "float32", "score_mode": "probability",
              "profile": make(LIKELIHOOD), **LIKELIHOOD}  # fmt: skip
    wanted = Reranker(**fields).rank(QUERY, DOCUMENTS)
    asked = ["rerank", QUERY, str(path), "--scoring", "likelihood", "--model", model_folder,
             "--dtype", "float32", "--profile", make(LIKELIHOOD),
             "--score-mode", "probability"]  # fmt: skip
    assert cli.main([*asked, "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["hits"][0]["score"] == wanted[0].score
    assert told["answerable"] == wanted.answerable
    assert cli.main([*asked, "--min-answerable", "0.999"]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "nothing is shown: the list answers with probability" in shown.err
