"""Several queries with documents of their own in shared passes: each is ranked as if alone."""

from __future__ import annotations

import logging

import pytest
from fake_time import fake_time
from hypothesis import given, settings
from hypothesis import strategies as st
from test_document_states import reranker
from tiny import FAMILIES, NARROW, byte_tokenizer, tiny_model

from icr_rag import Reranker
from icr_rag.calls import pairs
from icr_rag.errors import InputError, NonFiniteScoreError, PromptTooLongError
from icr_rag.model.runner import Runner
from icr_rag.scoring.base import Cost
from icr_rag.states import per_document

QUERIES = ["what is b?", "zzz?", "hello there, who of you is long and who is not?", "a"]
LISTS = [
    ["abc def", "hello there, this one is longer " * 3, "zzz"],
    ["b is a letter"],
    ["é ü", "abc def", "x", "and one more of them"],
    ["one " * 9, "two"],
]
LIKELIHOOD = {"scoring": "likelihood"}
YES_NO = {"scoring": "likelihood", "likelihood": "yes_no"}
ATTENTION = {"framework": "pointwise", "heads": ((0, 1), (2, 0)), "reading": "log_mass"}
WAYS = {
    "likelihood": LIKELIHOOD,
    "yes_no": YES_NO,
    "yes_no, query first": {**YES_NO, "yes_no_template": "qwen3_reranker"},
    "attention": {"framework": "pointwise", "layers": (1, 2)},
    "heads": ATTENTION,
    "lift": {**ATTENTION, "reading": "lift"},
    "mixed": {"scoring": "mixed"},
    "mixed heads": {"scoring": "mixed", "heads": ((0, 1), (2, 0)), "reading": "log_mass"},
}
STATES = {"cold": {}, "independent": {"document_states": "independent"}}
EXPLAINED = {
    way: {**fields, "score_mode": "explained"}
    for way, fields in WAYS.items()
    if way in ("likelihood", "yes_no", "heads", "mixed heads")
}


def close(found, wanted, way=""):
    # Standardised scores are divided by their spread over the list, which may be small.
    tolerance = 1e-5 if not way.startswith("mixed") and way not in ("heads", "lift") else 2e-4
    size = max([1.0, *(abs(score) for score in wanted)])
    return found == pytest.approx(wanted, abs=tolerance * size)


def keeps(way, states):
    return states == "cold" or not way.startswith("yes_no")


@pytest.fixture
def batches(monkeypatch):
    """How many prompts each group held that was run."""
    seen = []
    plain = Runner._finish

    def counted(self, cache, members, *arguments):
        seen.append(len(members))
        return plain(self, cache, members, *arguments)

    monkeypatch.setattr(Runner, "_finish", counted)
    # However unlike the tails are, so that they are padded.
    monkeypatch.setattr(per_document, "_PADDING", 10**6)
    return seen


def agree(together, alone, queries=QUERIES, lists=LISTS, way=""):
    """Each ranking is that of its query by itself."""
    found = together.rank_many(queries, lists)
    for query, documents, one in zip(queries, lists, found, strict=True):
        wanted = alone.rank(query, documents)
        assert close(one.scores, wanted.scores, way)
        assert [hit.index for hit in one] == [hit.index for hit in wanted]
    return found


@pytest.mark.parametrize(
    ("name", "way"),
    [
        *((name, way) for name in FAMILIES for way in ("likelihood", "mixed heads")),
        # Heads that do not see whole documents are not ranked by, and yes/no sees none of them.
        *((name, "likelihood") for name in NARROW),
        *((name, way) for name in ("llama", "gemma3") for way in WAYS),
    ],
)
@pytest.mark.parametrize("states", STATES)
def test_rankings_are_those_of_each_query_alone(name, states, way, batches):
    if not keeps(way, states):
        pytest.skip("yes/no keeps no states")
    together = reranker(name, **WAYS[way], **STATES[states])
    together.warm_up()
    batches.clear()
    together.rank_many(QUERIES, LISTS)
    assert batches == [10]
    agree(together, reranker(name, **WAYS[way], **STATES[states]), way=way)


@pytest.mark.parametrize("states", STATES)
@pytest.mark.parametrize("way", EXPLAINED)
def test_absolute_scores_too(way, states, batches):
    if not keeps(way, states):
        pytest.skip("yes/no keeps no states")
    fields = {**EXPLAINED[way], **STATES[states]}
    together, alone = reranker(**fields), reranker(**fields)
    # The second time, and for queries that come twice, the null documents' values are known.
    for _ in range(2):
        agree(together, alone, [*QUERIES, QUERIES[0]], [*LISTS, LISTS[1]])
    batches.clear()
    together.rank_many([*QUERIES, "new", "new"], [*LISTS, ["a"], ["b"]])
    assert sum(batches) == 10 + 2 + (0 if "yes" in way else 3)


@settings(max_examples=20)
@given(
    name=st.sampled_from(["llama", "gemma3", "qwen2_sliding", "gpt_oss"]),
    way=st.sampled_from(["likelihood", "yes_no", "attention", "mixed"]),
    states=st.sampled_from([*STATES]),
    asked=st.lists(
        st.tuples(
            st.text("abcé .", min_size=1, max_size=30).filter(str.strip),
            st.lists(st.text("abcé .", max_size=60), max_size=5),
        ),
        min_size=2,
        max_size=6,
    ),
    chunk=st.sampled_from([16, 100, 4096]),
)
def test_random_lists(name, way, states, asked, chunk):
    fields = {**WAYS[way], **(STATES[states] if keeps(way, states) else {})}
    fields["prefill_chunk"] = chunk
    queries, lists = zip(*asked, strict=True)
    found = reranker(name, **fields).rank_many(queries, lists)
    alone = reranker(name, **fields)
    for query, documents, one in zip(queries, lists, found, strict=True):
        wanted = alone.rank(query, documents)
        if way != "mixed":
            assert close(one.scores, wanted.scores, way)
        assert one.usage.calls == wanted.usage.calls
        assert one.usage.windows == wanted.usage.windows


def test_a_pair_is_read_as_a_plain_forward_pass_reads_it():
    from test_likelihood import log_likelihood

    model = tiny_model("llama")
    scorer = reranker(**LIKELIHOOD).scorer
    queries = [scorer.prompts.encode_query(query) for query in QUERIES]
    lists = [scorer.prompts.encode_documents(documents) for documents in LISTS]
    found = scorer.read_pairs(queries, lists, [Cost() for _ in lists])
    for query, documents, rows in zip(queries, lists, found, strict=True):
        batch = scorer.prompts.build(query, documents)
        wanted = [log_likelihood(model, [*batch.head_ids, *b], query).mean() for b in batch.bodies]
        assert rows.tolist() == pytest.approx([float(value) for value in wanted], abs=1e-4)


@pytest.mark.parametrize("states", STATES)
def test_what_they_cost_is_what_each_would_less_the_head(states):
    fields = {**LIKELIHOOD, **STATES[states]}
    together = reranker(**fields).warm_up()
    found = together.rank_many(QUERIES, LISTS)
    alone = reranker(**fields).warm_up()
    wanted = [alone.rank(*pair) for pair in zip(QUERIES, LISTS, strict=True)]
    head = 0 if states != "cold" else len(alone.scorer.prompts.head_ids)
    for place, (one, other) in enumerate(zip(found, wanted, strict=True)):
        assert one.usage.calls == other.usage.calls
        assert one.usage.windows == 1
        # "abc def" is in two lists, and is encoded for that which is read first.
        if states == "cold" or place in (1, 3):
            assert 0 <= other.usage.tokens - one.usage.tokens <= head
        assert one.usage.seconds["total"] >= one.usage.seconds["forward"] > 0
    saved = sum(r.usage.tokens for r in wanted) - sum(r.usage.tokens for r in found)
    assert saved == head * (len(LISTS) - 1)
    again = together.rank_many(QUERIES, LISTS)
    if states != "cold":
        tail = [len(together.scorer.prompts.encode_query(query)) for query in QUERIES]
        counts = [n * len(documents) for n, documents in zip(tail, LISTS, strict=True)]
        assert [ranking.usage.tokens for ranking in again] == counts


@pytest.mark.parametrize("way", [*WAYS])
def test_settings_of_the_call(way):
    fields = {**WAYS[way], "near_duplicates": 0.9, "top_n": 2}
    if way == "likelihood":
        fields |= {"cascade": 2}
        fields |= STATES["independent"]
    together, alone = reranker(**fields), reranker(**fields)
    asked = {"instruction": "Which letters are in it?", "max_tokens_per_doc": 9}
    found = together.rank_many(QUERIES, LISTS, **asked)
    for query, documents, one in zip(QUERIES, LISTS, found, strict=True):
        wanted = alone.rank(query, documents, **asked)
        assert close(one.scores, wanted.scores, way)
        assert one.usage.truncated == wanted.usage.truncated
        assert [hit.index for hit in one] == [hit.index for hit in wanted]


def test_blank_and_empty_lists_and_few_that_can_be_read():
    together = reranker(**LIKELIHOOD)
    lists = [[], ["", "abc"], [" "], ["b"]]
    found = agree(together, reranker(**LIKELIHOOD), QUERIES, lists)
    assert [len(ranking.scores) for ranking in found] == [0, 2, 1, 1]
    untouched = Reranker(model="/nowhere", **LIKELIHOOD)
    assert [len(one) for one in untouched.rank_many(QUERIES, [[], [" "], [], []])] == [0, 1, 0, 0]


# --- what fails, fails for itself ---------------------------------------------------------------


@pytest.mark.parametrize("bad", [" ", "long " * 900])
def test_a_wrong_query_is_its_own_affair(bad, batches):
    patient = reranker(**LIKELIHOOD, on_error="passthrough").warm_up()
    wanted = [patient.rank(q, d).scores for q, d in zip(QUERIES[:3], LISTS, strict=False)]
    batches.clear()
    found = patient.rank_many([*QUERIES[:3], bad], LISTS)
    assert batches == [8]
    assert [one.error is None for one in found] == [True] * 3 + [False]
    assert all(close(one.scores, own) for one, own in zip(found, wanted, strict=False))
    with pytest.raises((InputError, PromptTooLongError)):
        reranker(**LIKELIHOOD).rank_many([*QUERIES[:3], bad], LISTS)


@pytest.mark.parametrize("on_error", ["raise", "passthrough"])
def test_a_query_that_gives_nan_does_not_spoil_the_others(on_error, monkeypatch, caplog):
    ranker = reranker(**LIKELIHOOD, on_error=on_error)
    plain = type(ranker.scorer).read_pairs
    asked = []

    def spoiled(self, queries, lists, costs):
        asked.append(len(queries))
        if self.prompts.encode_query("zzz?") in queries:
            raise NonFiniteScoreError("NaN likelihoods")
        return plain(self, queries, lists, costs)

    wanted = [ranker.rank(*pair).scores for pair in zip(QUERIES, LISTS, strict=True)]
    monkeypatch.setattr(type(ranker.scorer), "read_pairs", spoiled)
    if on_error == "raise":
        # By its own ranking; the server asks for those before and behind it again.
        with pytest.raises(NonFiniteScoreError, match="NaN"):
            ranker.rank_many(QUERIES, LISTS)
        assert asked == [4, 1, 1]
        return
    with caplog.at_level(logging.WARNING):
        found = ranker.rank_many(QUERIES, LISTS)
    assert asked == [4, 1, 1, 1, 1]
    assert "reading 4 lists together failed: NaN likelihoods" in caplog.text
    assert [one.error is None for one in found] == [True, False, True, True]
    for place in (0, 2, 3):
        assert close(found[place].scores, wanted[place])


def test_errors_that_are_not_the_librarys_own_are_not_hidden(monkeypatch):
    ranker = reranker(**LIKELIHOOD)
    monkeypatch.setattr(type(ranker.scorer), "read_pairs", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ranker.rank_many(QUERIES, LISTS)


# --- how much goes together ---------------------------------------------------------------------


def test_lists_that_fill_passes_go_in_several_readings(monkeypatch):
    ranker = reranker(**LIKELIHOOD, prefill_chunk=64)
    read = []
    plain = type(ranker.scorer).read_pairs
    monkeypatch.setattr(
        type(ranker.scorer), "read_pairs",
        lambda self, queries, *rest: (read.append(len(queries)), plain(self, queries, *rest))[1],
    )  # fmt: skip
    many = [*QUERIES * 5], [*LISTS * 5]
    found = ranker.rank_many(*many)
    # A list that is left over is read by itself; none twice.
    assert sum(read) == 20
    assert 1 < len(read) < 20
    monkeypatch.setattr(pairs, "_LISTS", 3)
    read.clear()
    again = reranker(**LIKELIHOOD).rank_many(*many)
    assert read == [3] * 6 + [2]
    for one, other in zip(found, again, strict=True):
        assert close(one.scores, other.scores)


def test_models_that_cannot_be_padded_go_prompt_by_prompt(batches):
    from test_architectures import build

    model = build("qwen3_next").model
    together = Reranker.from_model(model, byte_tokenizer(), **LIKELIHOOD)
    alone = Reranker.from_model(model, byte_tokenizer(), **LIKELIHOOD)
    assert together.engine.anatomy(None).way != "packed"
    agree(together, alone)
    assert batches == []


# --- under a deadline ---------------------------------------------------------------------------

AMPLE = 10_000_000


@pytest.mark.parametrize("states", STATES)
def test_under_a_deadline_they_share_once_it_is_known_what_it_takes(states, batches):
    ranker = reranker(**LIKELIHOOD, **STATES[states]).warm_up()
    wanted = [ranker.rank(*pair).scores for pair in zip(QUERIES, LISTS, strict=True)]
    with fake_time(ranker) as clock:
        ranker.rank_many(QUERIES, LISTS, deadline_ms=AMPLE)
        clock.passes = 0
        found = ranker.rank_many(QUERIES, LISTS, deadline_ms=AMPLE)
        assert clock.passes == (1 if states != "cold" else 2)
    for one, own in zip(found, wanted, strict=True):
        assert one.degraded is None
        assert close(one.scores, own)


@pytest.mark.parametrize("states", STATES)
def test_each_has_its_own_deadline_and_nobody_loses_by_the_others(states):
    ranker = reranker(**LIKELIHOOD, **STATES[states])
    with fake_time(ranker.warm_up()) as clock:
        ranker.rank(QUERIES[0], LISTS[2], deadline_ms=AMPLE)
        for milliseconds in (50, 400, 800, 3000, AMPLE):
            started = clock.now
            found = ranker.rank_many(QUERIES, LISTS, deadline_ms=milliseconds)
            assert clock.now - started <= 4 * (milliseconds / 1000 + clock.longest)
            for ranking in found:
                assert (ranking.degraded is None) == (not ranking.usage.unscored)
                assert ranking.usage.seconds["total"] - milliseconds / 1000 <= clock.longest
        assert [ranking.degraded for ranking in found] == [None] * 4
