"""Passages, fields, instructions, diversity, deadlines and probabilities, two at a time."""

from __future__ import annotations

import threading

import pytest
from fake_time import fake_time
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import byte_tokenizer, tiny_model

pytest.importorskip("sentencex")

from icr_rag import Document, Reranker
from icr_rag.errors import ConfigError
from icr_rag.order import UNREAD
from icr_rag.profiles import Abstention, Calibration, Profile, Shape

QUERY = "Which metal melts first?"
LONG = [
    "Oaks carry acorns in autumn. The shop opens at nine. Tin melts at 232 degrees. Lead is soft.",
    "Tin melts.",
    " ",
    "Copper conducts heat well, so that wires are made of it. Gold is heavy. Zinc does not rust.",
    "The shop opens at nine. Sand is fine. Oaks carry acorns in autumn. Nobody knows why.",
]
LIKELIHOOD = {"scoring": "likelihood", "score_mode": "explained"}
SPLIT = {"passages": "max", "passage_tokens": 40}
WAYS = [
    {**LIKELIHOOD, **SPLIT},
    {**LIKELIHOOD, **SPLIT, "passages": "top2"},
    {**LIKELIHOOD, **SPLIT, "document_states": "independent"},
    {"framework": "pointwise", "layers": (1, 2), "score_mode": "explained", **SPLIT},
]


def tiny(**fields):
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **fields)


@pytest.fixture(scope="module")
def warm():
    """A reranker and its whole ranking, per way: made once."""
    found = {}

    def of(number):
        if number not in found:
            ranker = tiny(**WAYS[number])
            found[number] = ranker, ranker.rank(QUERY, LONG)
        return found[number]

    return of


@given(number=st.integers(0, len(WAYS) - 1), seconds=st.floats(0.001, 3))
@settings(max_examples=60)
def test_a_deadline_leaves_out_documents_of_which_a_passage_is_unread(warm, number, seconds):
    ranker, whole = warm(number)
    with fake_time(ranker) as clock:
        found = ranker.rank(QUERY, LONG, deadline_ms=1000 * seconds)
    unscored = set(found.usage.unscored)
    assert sorted(hit.index for hit in found) == list(range(len(LONG)))
    assert (found.degraded is None) == (not unscored and clock.now - 1000 <= seconds)
    for hit in found:
        if hit.index in unscored:
            assert (hit.score, hit.passage) == (UNREAD, None)
        else:
            assert hit.score == pytest.approx(whole.scores[hit.index], abs=1e-5)
    read = [hit.index for hit in found if hit.index not in unscored]
    assert read == [hit.index for hit in whole if hit.index in set(read)]
    below = [hit.index for hit in found if hit.index in unscored]
    assert below == sorted(below)


def test_some_deadline_reads_a_part(warm):
    ranker, _ = warm(0)
    counts = set()
    for step in range(1, 40):
        with fake_time(ranker):
            counts.add(len(ranker.rank(QUERY, LONG, deadline_ms=50 * step).usage.unscored))
    assert counts > {0, 4}, counts


def test_spans_are_of_the_text_or_left_out():
    documents = [
        Document(text, metadata={"year": 1900 + number}) for number, text in enumerate(LONG)
    ]
    last = tiny(**WAYS[0], rank_fields=("year", "text")).rank(QUERY, documents)
    spans = {hit.index: hit.passage for hit in last}
    assert spans[0] is not None
    assert spans[1] is None
    start, end = spans[0]
    assert LONG[0][start:end].strip()
    # What is read is then no text that a span could be of.
    first = tiny(**WAYS[0], rank_fields=("text", "year")).rank(QUERY, documents)
    assert {hit.passage for hit in first} == {None}
    assert first.usage.passages > len(LONG)


def test_fields_before_the_text_are_in_every_passage():
    documents = [Document(text, metadata={"year": 1900}) for text in LONG]
    fields = tiny(**WAYS[0], rank_fields=("year", "text")).rank(QUERY, documents)
    titled = tiny(**WAYS[0]).rank(QUERY, [Document(text, title="year: 1900") for text in LONG])
    blank = LONG.index(" ")
    same = [n for n in range(len(LONG)) if n != blank]
    assert [fields.scores[n] for n in same] == [titled.scores[n] for n in same]


def profile(path, **fields):
    """A calibration for the scores of a reranker with these settings."""
    fields = {**LIKELIHOOD, **fields}
    basis = tiny(**fields).scorer.basis()
    shape = Shape.of(tiny_model("llama").config)
    Profile(
        scoring="likelihood", framework="pointwise", likelihood=fields.get("likelihood", "query"),
        model="tiny", shape=shape,
        calibration=Calibration(kind="logistic", slope=3.0, intercept=-0.5, basis=basis),
        abstention=Abstention(
            intercept=-9.0, weights={"top": 1.0, "gap": 0.0, "lead": 0.0, "spread": 0.0},
            basis=basis,
        ),
    ).save(path)  # fmt: skip
    return str(path)


OWN = "Find a text about metals"


YES_NO = {"likelihood": "yes_no"}


@pytest.mark.parametrize("variant", [{}, YES_NO, {**YES_NO, "yes_no_template": "qwen3_reranker"}])
def test_a_calibration_is_for_one_instruction(variant, tmp_path):
    path = profile(tmp_path / "p.json", **variant)
    named = {**LIKELIHOOD, "score_mode": "probability", "profile": path, **variant}
    ranker = tiny(**named)
    assert len(ranker.rank(QUERY, LONG)) == len(LONG)
    with pytest.raises(ConfigError, match="other prompt"):
        ranker.rank(QUERY, LONG, instruction=OWN)
    with pytest.raises(ConfigError, match="other prompt"):
        tiny(**named, instruction=OWN).rank(QUERY, LONG)
    own = profile(tmp_path / "own.json", **variant, instruction=OWN)
    assert len(tiny(**{**named, "profile": own}, instruction=OWN).rank(QUERY, LONG)) == len(LONG)


def test_passages_give_the_probability_of_the_best(tmp_path):
    path = profile(tmp_path / "p.json")
    explained = tiny(**WAYS[0]).rank(QUERY, LONG)
    named = {**WAYS[0], "score_mode": "probability", "profile": path}
    found = tiny(**named).rank(QUERY, LONG)
    of = Profile.load(path).calibration.probability
    for index, score in enumerate(explained.scores):
        expected = 0.0 if index == LONG.index(" ") else of(score)
        assert found.scores[index] == pytest.approx(expected, abs=1e-9)
    assert [hit.passage for hit in found] == [hit.passage for hit in explained]


def test_nobody_abstains_from_what_was_not_read(tmp_path):
    path = profile(tmp_path / "p.json")
    ranker = tiny(**LIKELIHOOD, profile=path, min_answerable=0.5, diversity=0.5)
    assert ranker.rank(QUERY, LONG).abstained
    seen = set()
    for step in range(1, 30):
        with fake_time(ranker):
            found = ranker.rank(QUERY, LONG, deadline_ms=50 * step)
        if found.usage.unscored:
            seen.add(len(found.usage.unscored))
            assert (found.answerable, found.abstained, len(found)) == (None, False, len(LONG))
            assert "whether anything answers was not judged" in found.degraded
        else:
            assert found.abstained
    assert seen


def test_diversity_and_unread_documents():
    ranker = tiny(**LIKELIHOOD, diversity=0.9)
    plain = tiny(**LIKELIHOOD)
    for step in range(1, 30):
        with fake_time(ranker):
            found = ranker.rank(QUERY, LONG, deadline_ms=50 * step)
        assert sorted(hit.index for hit in found) == list(range(len(LONG)))
        if found.usage.unscored:
            unread = [hit.index for hit in found if hit.index in found.usage.unscored]
            assert unread == sorted(unread)
            assert found.degraded is not None
        else:
            assert found.scores == pytest.approx(plain.rank(QUERY, LONG).scores, abs=1e-5)


def test_an_instruction_of_a_call_keeps_its_passages_and_states():
    ranker = tiny(**WAYS[2], states_memory=33)
    first = ranker.rank(QUERY, LONG)
    own = ranker.rank(QUERY, LONG, instruction=OWN)
    assert own.scores != first.scores
    assert own.usage.tokens < first.usage.tokens
    # How documents are split, and how long work takes, is known to it from the start.
    (made,) = ranker._scorers.instructed._known.values()
    assert made[0].splitter is ranker.scorer.splitter
    assert made[0].pace is ranker.scorer.pace
    assert made[0].prompts is not ranker.scorer.prompts
    assert own.scores == tiny(**WAYS[2], instruction=OWN).rank(QUERY, LONG).scores


def test_a_new_instruction_waits_for_the_model_no_longer_than_there_is_time():
    ranker = tiny(**LIKELIHOOD).warm_up()
    release, held = threading.Event(), threading.Event()

    def hold():
        with ranker.engine.lock:
            held.set()
            release.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(60)
        found = ranker.rank(QUERY, LONG, instruction=OWN, deadline_ms=20)
        assert not release.is_set()
    finally:
        release.set()
        thread.join()
    assert len(found.usage.unscored) == len(LONG) - 1
    assert "other calls held the model" in found.degraded
    assert ranker.rank(QUERY, LONG, instruction=OWN).degraded is None


def test_diversity_weighs_the_same_in_both_absolute_modes(tmp_path):
    path = profile(tmp_path / "p.json")
    texts = [f"{first} melts {then}." for first in ("Tin", "Lead", "Gold", "Zinc")
             for then in ("first", "last", "slowly", "at 300 degrees")]  # fmt: skip
    plain = tiny(**LIKELIHOOD, diversity=0.4).rank(QUERY, texts)
    flat = tiny(**{**LIKELIHOOD, "score_mode": "probability"}, profile=path, diversity=0.4)
    assert [hit.index for hit in flat.rank(QUERY, texts)] == [hit.index for hit in plain]


def test_spans_are_of_what_a_caller_of_langchains_rerank_gave():
    langchain = pytest.importorskip("icr_rag.integrations.langchain")
    pytest.importorskip("langchain_cohere")
    from icr_rag.integrations.compat.langchain import CohereRerank

    def spans(adapter, documents):
        found = adapter.rerank(documents, QUERY, top_n=None)
        return {one["index"]: one.get("passage_start") for one in found}

    ranker = tiny(**WAYS[0])
    ours = langchain.ICRRerank(ranker, report_passage=True)
    with_text = spans(ours, [{"title": "On metals", "text": text} for text in LONG])
    assert None not in (with_text[0], with_text[3])
    fields = langchain.ICRRerank(tiny(**WAYS[0], rank_fields=("body",)), report_passage=True)
    assert set(spans(fields, [{"body": text} for text in LONG]).values()) == {None}
    cohere = CohereRerank(ranker, report_passage=True)
    assert set(spans(cohere, [{"year": 1900, "text": text} for text in LONG]).values()) == {None}
    assert spans(cohere, LONG)[0] is not None


@pytest.mark.parametrize("fields", [{"diversity": 0.5}, {"deadline_ms": 5.0}])
def test_pairs_get_scores_and_nothing_else(fields):
    from icr_rag.integrations._pairs import score_pairs

    (name,) = fields
    with pytest.raises(ConfigError, match=f"{name}=.*each text gets a score"):
        score_pairs(tiny(**fields), [(QUERY, "Tin melts.")])
