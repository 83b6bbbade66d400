"""Passages, fields, instructions, diversity, deadlines and probabilities, two at a time."""

from __future__ import annotations

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
    assert own.scores == tiny(**WAYS[2], instruction=OWN).rank(QUERY, LONG).scores
