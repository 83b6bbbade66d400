"""Rankings with deadlines, for every method: by a clock that only the model's tokens move."""

from __future__ import annotations

import itertools
import logging
import math

import pytest
from fake_time import fake_time
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker, RerankerConfig
from icr_rag.errors import ConfigError, InputError
from icr_rag.methods import BUILT_IN
from icr_rag.order import UNREAD

QUERY = "Which metal melts first?"
DOCUMENTS = [
    "Oaks carry acorns in autumn.",
    "Tin melts at 232 degrees, long before copper.",
    "Lead is soft.",
    " ",
    "Oaks carry acorns in the autumn!",
    "Copper conducts heat well, which is why wires and pots are made of it.",
    "Lead is soft.",
    "The shop opens at nine.",
]
READABLE = [0, 1, 2, 4, 5, 6, 7]
AMPLE = 1e9


def of_method(row, states):
    variant = {"likelihood": row.variant} if row.variant else {}
    return {"scoring": row.scoring, "framework": row.framework, "document_states": states,
            **variant}  # fmt: skip


ATTENTION = {"layers": (1, 2)}
KEPT = {"document_states": "independent"}
POINTWISE = {**ATTENTION, "framework": "pointwise"}
LIKELIHOOD = {"scoring": "likelihood"}
EXPLAINED = {"score_mode": "explained"}
METHODS = [
    *(of_method(row, states) for row in BUILT_IN for states in row.document_states),
    {**ATTENTION, "window": 3, "stride": 1},
    {**ATTENTION, **KEPT, "framework": "listwise", "window": 3},
    {**ATTENTION, **KEPT, "framework": "listwise", "cascade": 3},
    {**ATTENTION, **KEPT, "framework": "listwise", "states_memory": 0},
    {**POINTWISE, **KEPT, "states_memory": 0},
    {**POINTWISE, **KEPT, "cascade": 3, "cascade_framework": "pointwise"},
    {**ATTENTION, "framework": "setwise", "sort": "bubble", "set_size": 2},
    {**LIKELIHOOD, "framework": "pairwise", "sort": "all_pairs"},
    {**POINTWISE, "reading": "log_mass"},
    {**POINTWISE, **EXPLAINED},
    {**LIKELIHOOD, **EXPLAINED},
    {**LIKELIHOOD, **KEPT, **EXPLAINED},
    {"scoring": "mixed", **ATTENTION, **EXPLAINED},
    {**LIKELIHOOD, "likelihood": "yes_no", **EXPLAINED},
    {**LIKELIHOOD, "fusion": "rrf"},
    {**LIKELIHOOD, "score_mode": "share", "near_duplicates": 0.7},
    {**LIKELIHOOD, "score_mode": "rank", "score_threshold": 0.3},
]
#: Scores are of the document alone.
ALONE = [
    {**LIKELIHOOD, **KEPT},
    {**POINTWISE, **KEPT, "states_memory": 0},
    *(fields for fields in METHODS if fields.get("score_mode") == "explained"),
]


def tiny(**fields):
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **fields)


@pytest.fixture(scope="module")
def warm():
    """A warm reranker and its whole ranking, per method: made once."""
    made = {}

    def of(fields):
        key = repr(sorted(fields.items()))
        if key not in made:
            ranker = tiny(**fields).warm_up()
            whole = tiny(**fields).rank(QUERY, DOCUMENTS)
            made[key] = ranker, whole
        return made[key]

    return of


def check(found, whole, milliseconds, clock):
    """What is true of every answer."""
    unscored = found.usage.unscored
    order = [hit.index for hit in found]
    assert len(set(order)) == len(order)
    along = [hit.score for hit in found]
    assert along == sorted(along, reverse=True)
    assert all(type(score) is float and math.isfinite(score) for score in found.scores)
    assert [n for n, group in enumerate(found.score_groups) if group == -1] == sorted(
        {3, *unscored}
    )
    assert set(unscored) <= set(READABLE)
    assert [index for index in order if index in unscored] == [n for n in unscored if n in order]
    late = found.usage.seconds["total"] - milliseconds / 1000
    # By what cannot be stopped once it has begun, and no more.
    assert late <= clock.longest + 1e-9
    if unscored or late > 0:
        assert found.degraded.startswith(f"deadline of {milliseconds:g} ms: ")
    if found.degraded is None:
        assert order == [hit.index for hit in whole]
        assert found.scores == pytest.approx(whole.scores, abs=1e-4)
        assert found.score_groups == whole.score_groups
    elif unscored:
        assert f"{len(READABLE) - len(unscored)} of 7" in found.degraded or (
            len(unscored) == 7 and "none of 7" in found.degraded
        )
    return unscored


@pytest.mark.parametrize("fields", METHODS, ids=str)
def test_an_ample_deadline_changes_nothing(fields, warm, caplog):
    ranker, whole = warm(fields)
    with fake_time(ranker) as clock:
        for _ in range(2):
            found = ranker.rank(QUERY, DOCUMENTS, deadline_ms=AMPLE)
            assert found.degraded is None
            assert check(found, whole, AMPLE, clock) == ()
    assert "deadline" not in caplog.text


@settings(max_examples=80, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(fields=st.sampled_from(METHODS), tenths=st.lists(st.integers(1, 70), min_size=1, max_size=3))
def test_every_answer_is_in_time_or_says_how_late_it_is(fields, tenths, warm):
    ranker, whole = warm(fields)
    with fake_time(ranker) as clock:
        for tenth in tenths:
            milliseconds = 10.0 * 1.13**tenth
            found = ranker.rank(QUERY, DOCUMENTS, deadline_ms=milliseconds)
            check(found, whole, milliseconds, clock)


@settings(max_examples=25, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(fields=st.sampled_from(ALONE), milliseconds=st.floats(100, 1500))
def test_what_was_scored_has_the_scores_of_a_whole_ranking(fields, milliseconds, warm):
    plain = {"fusion": "none", **fields}
    ranker, whole = warm(plain)
    with fake_time(ranker) as clock:
        found = ranker.rank(QUERY, DOCUMENTS, deadline_ms=milliseconds)
        unscored = check(found, whole, milliseconds, clock)
    for index in set(READABLE) - set(unscored):
        assert found.scores[index] == pytest.approx(whole.scores[index], abs=1e-5)
    for index in {3, *unscored}:
        if fields.get("score_mode") == "explained":
            assert found.scores[index] == UNREAD


MEMORIES = itertools.count(100)


def apart(fields):
    """The same settings with states of their own: rerankers of the same settings share them, and
    nothing that another test kept must be there."""
    return {**fields, **({"states_memory": next(MEMORIES)} if "document_states" in fields else {})}


def shares(fields, deadlines):
    """How many documents have no score, for each deadline; one call after the other."""
    ranker = tiny(**apart(fields))
    with fake_time(ranker):
        ranker.warm_up()
        return [
            len(ranker.rank(QUERY, DOCUMENTS, deadline_ms=one).usage.unscored) for one in deadlines
        ]


@pytest.mark.parametrize(
    "fields",
    [{}, POINTWISE, LIKELIHOOD, {**LIKELIHOOD, "framework": "pairwise", "sort": "all_pairs"},
     {"scoring": "mixed"}, {**LIKELIHOOD, "likelihood": "yes_no"},
     {"scoring": "generation", "framework": "pointwise"}, {**ATTENTION, "framework": "setwise"},
     {**ATTENTION, **KEPT, "framework": "listwise"}, {**POINTWISE, **KEPT}],
    ids=str,
)  # fmt: skip
def test_more_time_scores_more(fields):
    """Some deadline is met by a part of the documents: all or nothing would be too easy."""
    whole = tiny(**apart(fields)).warm_up()
    with fake_time(whole) as clock:
        before = clock.now
        whole.rank(QUERY, DOCUMENTS, deadline_ms=AMPLE)
        needed = 1000 * (clock.now - before)
    left = shares(fields, [needed * share for share in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)])
    assert any(0 < count < 7 for count in left), left
    assert shares(fields, [20 * needed]) == [0]


@pytest.mark.parametrize("framework", ["listwise", "pointwise"])
@pytest.mark.parametrize("states", ["independent", "blind"])
def test_what_is_kept_is_scored_and_the_rest_is_below(framework, states):
    if (framework, states) == ("pointwise", "blind"):
        pytest.skip("no such method")
    # With a memory of its own: equal ones are shared.
    ranker = tiny(
        framework=framework,
        document_states=states,
        states_memory=len(framework + states),
        **ATTENTION,
    )
    chosen = [1, 5, 7]
    with fake_time(ranker) as clock:
        # By this clock from the beginning: nothing is to be known of how long work really takes.
        ranker.warm_up().encode([DOCUMENTS[place] for place in chosen])
        # A first call learns what encoding and reading cost.
        ranker.rank(QUERY, [DOCUMENTS[1], "Something else that is new."], deadline_ms=AMPLE)
        before = clock.now
        ranker.rank(QUERY, [DOCUMENTS[place] for place in chosen], deadline_ms=AMPLE)
        needed = 1000 * (clock.now - before)
        found = ranker.rank(QUERY, DOCUMENTS, deadline_ms=1.1 * needed + 8)
    assert found.usage.unscored == (0, 2, 4, 6)
    assert {hit.index for hit in found[:3]} == {1, 5, 7}
    assert [hit.index for hit in found[3:]] == [0, 2, 4, 6, 3]
    assert "3 of 7 documents were scored, the rest keep their given order below them" in (
        found.degraded
    )


@pytest.mark.parametrize(
    "fields", [{**ATTENTION, **KEPT, "framework": "listwise"}, {**LIKELIHOOD, **KEPT}], ids=str
)
def test_what_a_degraded_call_has_kept_is_right(fields):
    whole = tiny(**fields, states_memory=40).rank(QUERY, DOCUMENTS)
    ranker = tiny(**fields, states_memory=41).warm_up()
    with fake_time(ranker):
        for milliseconds in (30, 60, 90, 120, 200, 300):
            ranker.rank(QUERY, DOCUMENTS, deadline_ms=milliseconds)
    after = ranker.rank(QUERY, DOCUMENTS)
    assert after.usage.tokens < whole.usage.tokens
    assert after.scores == whole.scores
    assert after.degraded is None


def test_a_second_reading_that_cannot_be_finished_leaves_the_first():
    fields = {**ATTENTION, **KEPT, "framework": "listwise"}
    plain = tiny(**fields)
    ranker = tiny(**fields, cascade=4)
    ranker.encode(DOCUMENTS)
    first = plain.rank(QUERY, DOCUMENTS)
    with fake_time(ranker):
        ranker.warm_up()
        both = ranker.rank(QUERY, DOCUMENTS)
        needed = first.usage.tokens + 0.5 * (both.usage.tokens - first.usage.tokens)
        ranker.rank(QUERY, DOCUMENTS, deadline_ms=AMPLE)
        found = ranker.rank(QUERY, DOCUMENTS, deadline_ms=needed)
        assert [hit.index for hit in found] == [hit.index for hit in first]
        assert found.scores == pytest.approx(first.scores, abs=1e-5)
        assert found.usage.unscored == ()
        assert found.degraded.endswith("the best 4 were not read again")


def test_writing_stops_between_two_tokens():
    whole = tiny(scoring="generation", framework="listwise").rank(QUERY, DOCUMENTS)
    assert whole.usage.generated_tokens > 8
    # One that knows nothing of how long it will take.
    ranker = tiny(scoring="generation", framework="listwise")
    assert ranker.scorer
    with fake_time(ranker) as clock:
        prompts = whole.usage.tokens
        found = ranker.rank(QUERY, DOCUMENTS, deadline_ms=prompts + 9)
    # The prompt was run and the answer begun; there was no time to end it.
    assert 1 < clock.passes < whole.usage.generated_tokens
    assert found.usage.unscored == tuple(READABLE)
    assert found.usage.seconds["total"] <= (prompts + 9) / 1000


def test_loading_counts_and_is_told(monkeypatch, caplog):
    ranker = tiny(**LIKELIHOOD)
    plain = ranker._make_scorers
    with fake_time(ranker) as clock:
        monkeypatch.setattr(ranker, "_make_scorers", lambda due: (clock.run(3000), plain(due))[1])
        found = ranker.rank(QUERY, DOCUMENTS, deadline_ms=50)
        assert [hit.index for hit in found] == [0, 1, 2, 4, 5, 6, 7, 3]
        assert found.usage.seconds["total"] == pytest.approx(3.0)
        assert found.degraded == (
            "deadline of 50 ms: none of 7 documents was scored, all keep their given order; the "
            "answer is 2.95e+03 ms late; loading the model took 3000 ms"
        )
        # It is loaded now.
        assert ranker.rank(QUERY, DOCUMENTS, deadline_ms=AMPLE).degraded is None
    (line,) = [
        record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING
    ]
    assert line == found.degraded


def test_a_threshold_keeps_what_has_no_score_and_repeats_are_not_looked_for():
    ranker = tiny(**LIKELIHOOD, **EXPLAINED, score_threshold=0.99, near_duplicates=0.5)
    assert [hit.index for hit in ranker.rank(QUERY, DOCUMENTS)] == []
    found = ranker.rank(QUERY, DOCUMENTS, deadline_ms=1e-9)
    assert [hit.index for hit in found] == READABLE
    assert set(found.scores) == {UNREAD}
    assert "texts were not compared with each other" in found.degraded
    assert found.duplicates == {}


@pytest.mark.parametrize(("mode", "scores"), [
    ("raw", [0.0] * 8), ("share", [0.0] * 8),
    ("rank", [1, 1 / 2, 1 / 3, 1 / 8, 1 / 4, 1 / 5, 1 / 6, 1 / 7]),
])  # fmt: skip
def test_scores_of_what_was_not_read(mode, scores):
    found = tiny(**LIKELIHOOD, score_mode=mode, deadline_ms=1e-9).rank(QUERY, DOCUMENTS, 3)
    assert [hit.index for hit in found] == [0, 1, 2]
    assert found.scores == pytest.approx(scores)
    assert set(found.score_groups) == {-1}


def test_mistakes_and_failures_are_as_without_a_deadline(monkeypatch):
    ranker = tiny(**LIKELIHOOD, deadline_ms=1e-9)
    with pytest.raises(InputError, match="blank"):
        ranker.rank(" ", DOCUMENTS)
    assert ranker.rank(QUERY, []).degraded is None
    assert ranker.rank(QUERY, [" ", ""]).degraded is None
    patient = ranker.with_config(on_error="passthrough")
    assert "blank" in patient.rank(" ", DOCUMENTS).error
    late = patient.rank(QUERY, DOCUMENTS)
    assert (late.error, late.degraded is None) == (None, False)
    broken = patient.with_config(deadline_ms=AMPLE)
    monkeypatch.setattr(broken, "_make_scorers", lambda due: 1 / 0)
    failed = broken.rank(QUERY, DOCUMENTS)
    assert ("ZeroDivisionError" in failed.error, failed.degraded) == (True, None)


@pytest.mark.parametrize("value", [0, -1, float("nan"), -math.inf, "5", True, [5]])
def test_what_is_no_deadline_is_refused(value):
    for call in ("rank", "rank_many"):
        given = ([QUERY], [DOCUMENTS]) if call == "rank_many" else (QUERY, DOCUMENTS)
        with pytest.raises(InputError, match=r"deadline_ms=.*allowed are milliseconds above 0"):
            getattr(tiny(), call)(*given, deadline_ms=value)
    if value not in ("5", True):
        with pytest.raises(ConfigError, match="deadline_ms"):
            RerankerConfig(deadline_ms=value)


def test_a_calls_own_deadline_goes_before_the_configurations():
    ranker = tiny(**LIKELIHOOD, deadline_ms=1e-9)
    assert ranker.rank(QUERY, DOCUMENTS).degraded is not None
    assert ranker.rank(QUERY, DOCUMENTS, deadline_ms=math.inf).degraded is None
    assert ranker.rank(QUERY, DOCUMENTS, deadline_ms=AMPLE).degraded is None
    # What has no deadline is not held back by one.
    assert ranker.warm_up().read_attention(QUERY, DOCUMENTS).token_ids
    kept = tiny(**LIKELIHOOD, **KEPT, deadline_ms=1e-9)
    assert kept.encode(DOCUMENTS).documents == 6


def test_one_slow_moment_does_not_last():
    ranker = tiny(**LIKELIHOOD).warm_up()
    with fake_time(ranker) as clock:
        whole = ranker.rank(QUERY, DOCUMENTS, deadline_ms=AMPLE)
        needed = 1.0 * whole.usage.tokens
        clock.rate = 1.0
        ranker.rank(QUERY, DOCUMENTS, deadline_ms=needed * 30)
        clock.rate = 0.001
        left = [len(ranker.rank(QUERY, DOCUMENTS, deadline_ms=needed * 8).usage.unscored)
                for _ in range(60)]  # fmt: skip
    assert left[-1] == 0
