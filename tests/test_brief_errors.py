"""Errors name what is wrong and hold no whole documents, in the ranking and in the log."""

from __future__ import annotations

import logging
from string import ascii_letters

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import byte_tokenizer, tiny_model
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from icr_rag import Reranker
from icr_rag.errors import InputError, brief, shown

SECRET = "Tin melts at 232 degrees. " * 400
QUERY = "Which metal melts first?"
#: Longer than any error of ours, and much shorter than the document.
MOST = 600


def tiny(**fields):
    return Reranker.from_model(
        tiny_model("llama"), byte_tokenizer(), **{"layers": (1, 2), "on_error": "raise", **fields}
    )


def letters_only():
    """A tokenizer that knows no characters besides letters, and leaves others out."""
    raw = Tokenizer(models.BPE({"[PAD]": 0} | {c: i for i, c in enumerate(ascii_letters, 1)}, []))
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]")


class Telling(Reranker):
    """Fails as a library might: with all that it was given in its message."""

    def _score(self, query, given, retrieval_scores, scorer=None):
        raise ValueError(f"cannot read {query!r} and {[d.content for d in given]!r}")


WRONG = {
    "a query of many blanks": (tiny, (" \n" * 5000, ["a", "b"])),
    "a query without a known character": (
        lambda **fields: Reranker.from_model(
            tiny_model("llama"), letters_only(), **{"layers": (1, 2), **fields}
        ),
        ("§" * 5000, ["tin", "oak"]),
    ),
    "a query that leaves no room": (lambda **f: tiny(token_budget=700, **f), (SECRET, ["a", "b"])),
    "scores that are texts": (
        lambda **f: tiny(fusion="weighted", **f), (QUERY, [SECRET, "b"], None, [SECRET, 1.0]),
    ),
    "another's error": (
        lambda **fields: Telling.from_model(tiny_model("llama"), byte_tokenizer(), **fields),
        (QUERY, [SECRET, "b"]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_let_through_is_told_in_few_words(name, own_records):
    make, (query, documents, *more) = WRONG[name]
    ranker = make(on_error="passthrough")
    scores = more[1] if more else None
    ranking = ranker.rank(query, documents, retrieval_scores=scores)
    assert ranking.error is not None
    assert len(ranking.error) < MOST
    for record in own_records():
        assert len(record.getMessage()) < MOST


@pytest.mark.parametrize("name", [name for name in WRONG if name != "another's error"])
def test_what_is_raised_is_told_in_few_words(name):
    make, (query, documents, *more) = WRONG[name]
    with pytest.raises(ValueError) as caught:
        make().rank(query, documents, retrieval_scores=more[1] if more else None)
    assert len(str(caught.value)) < MOST
    assert type(caught.value).__module__ == "icr_rag.errors"


@pytest.mark.parametrize(
    "document",
    [{SECRET: 1}, {"text": [SECRET]}, [SECRET], {"text": "a", "title": [SECRET]},
     {f"{SECRET}{n}": n for n in range(9)}],
)  # fmt: skip
def test_wrong_documents_are_not_repeated(document):
    with pytest.raises(InputError, match=r"^document 1 ") as caught:
        tiny().rank(QUERY, ["a", document])
    assert len(str(caught.value)) < MOST


def test_queries_and_lists_that_do_not_pair_are_not_repeated():
    with pytest.raises(InputError) as caught:
        tiny().rank_many([SECRET], [[SECRET], [SECRET]])
    assert len(str(caught.value)) < MOST
    with pytest.raises(InputError) as caught:
        tiny().rank(QUERY, ["a"], SECRET)
    assert len(str(caught.value)) < MOST


def test_pairs_are_not_repeated():
    from icr_rag.integrations.sentence_transformers import CrossEncoder

    encoder = CrossEncoder(reranker=tiny())
    for pairs in ([[SECRET]], [(QUERY, SECRET, SECRET)], [SECRET], [([SECRET], "a")]):
        with pytest.raises(InputError) as caught:
            encoder.predict(pairs)
        assert len(str(caught.value)) < MOST


@given(st.text(max_size=200), st.integers(1, 150))
def test_brief_keeps_the_beginning(text, most):
    found = brief(text, most)
    assert found == text if len(text) <= most else found == text[:most] + "..."
    assert shown(text) == brief(repr(text), 80)


def test_the_log_of_queries_that_fail_together_is_brief(monkeypatch, caplog, own_records):
    from icr_rag.calls import rank_many as many

    def fail(*_):
        raise ValueError(SECRET)

    monkeypatch.setattr(many, "answer_together", fail)
    ranker = tiny(document_states="independent", framework="listwise", on_error="passthrough")
    with caplog.at_level(logging.WARNING):
        rankings = ranker.rank_many([QUERY, "Which is soft?"], [["a", "b"]] * 2)
    assert all(ranking.error is None for ranking in rankings)
    assert own_records()
    assert all(len(record.getMessage()) < MOST for record in own_records())
