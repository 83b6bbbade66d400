"""BM25 candidates, against the formula written out."""

import math
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_rag import Document
from icr_rag.errors import ConfigError, DataError, MissingDependencyError
from icr_rag.evaluation.datasets import Dataset
from icr_rag.evaluation.first_stage import _best, bm25_candidates

TEXTS = {
    "a": "tin melts early",
    "b": "lead melts late and melts again",
    "c": "oaks carry acorns",
    "d": "an acorn grows",
    "e": "",
    "f": "tin melts early",
}


def make(queries, texts=TEXTS):
    documents = {name: Document(text, id=name) for name, text in texts.items()}
    return Dataset("x", documents, queries, {query: {"a": 1} for query in queries})


def test_the_formula():
    run = bm25_candidates(make({"q": "tin melts"}), 10)
    # Stop words out, stemmed.
    bags = {
        "a": ["tin", "melt", "earli"],
        "b": ["lead", "melt", "late", "melt", "again"],
        "c": ["oak", "carri", "acorn"],
        "d": ["acorn", "grow"],
        "e": [],
        "f": ["tin", "melt", "earli"],
    }
    mean = sum(map(len, bags.values())) / len(bags)
    expected = {}
    for name, bag in bags.items():
        count, total = Counter(bag), 0.0
        for word in ("tin", "melt"):
            found = sum(word in other for other in bags.values())
            weight = math.log(1 + (len(bags) - found + 0.5) / (found + 0.5))
            norm = 0.9 * (1 - 0.4 + 0.4 * len(bag) / mean)
            total += weight * count[word] / (count[word] + norm)
        if total > 0:
            expected[name] = total
    assert run["q"] == pytest.approx(expected, rel=1e-5)
    # Best first; the two that tie in corpus order.
    assert list(run["q"]) == ["a", "f", "b"]


def test_words_are_found_in_other_forms_and_in_titles():
    texts = Dataset(
        "x",
        {"t": Document("other", "Acorns", "t"), "u": Document("nothing here", id="u")},
        {"q": "an acorn"},
        {"q": {"t": 1}},
    )
    assert list(bm25_candidates(texts, 5)["q"]) == ["t"]


def test_depth_counts_what_is_not_excluded():
    dataset = make({"q": "melts", "r": "melts"})
    run = bm25_candidates(dataset, 2, excluded={"q": frozenset({"b", "unknown"})})
    assert list(run["q"]) == ["a", "f"]
    assert list(run["r"]) == ["b", "a"]


def test_a_query_without_a_known_word_has_no_candidates():
    run = bm25_candidates(make({"q": "uranium", "r": "the", "s": "tin"}), 3)
    assert run["q"] == run["r"] == {}
    assert run["s"]


def test_only_judged_queries():
    dataset = make({"q": "tin"})
    dataset.queries["r"] = "tin"
    assert list(bm25_candidates(dataset, 3)) == ["q"]


def test_long_queries():
    assert list(bm25_candidates(make({"q": "why does tin melt " * 2000}), 1)["q"]) == ["a"]


@pytest.mark.parametrize(("language", "found"), [("german", ["g"]), ("finnish", [])])
def test_languages(language, found):
    dataset = make({"q": "Häuser"}, {"g": "das Haus", "h": "der Baum"})
    assert list(bm25_candidates(dataset, 5, language=language)["q"]) == found


def test_settings_that_are_not_allowed():
    dataset = make({"q": "tin"})
    with pytest.raises(ConfigError, match="depth=0 is not allowed"):
        bm25_candidates(dataset, 0)
    with pytest.raises(ConfigError, match="language='klingon' is not allowed; PyStemmer knows"):
        bm25_candidates(dataset, 1, language="klingon")


@pytest.mark.parametrize("texts", [{}, {"a": ""}, {"a": "the of and"}])
def test_a_corpus_without_words(texts):
    with pytest.raises(DataError, match="the corpus has no word to search for"):
        bm25_candidates(make({"q": "tin"}, texts), 1)


@pytest.mark.parametrize("module", ["bm25s", "Stemmer"])
def test_what_must_be_installed(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=rf"needs {module}: .*icr-rag\[cli\]"):
        bm25_candidates(make({"q": "tin"}), 1)


@given(st.lists(st.integers(0, 5)), st.integers(1, 12))
def test_the_best_are_those_of_a_stable_sort(scores, count):
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    expected = [place for place in order if scores[place] > 0][:count]
    assert list(_best(np.array(scores, np.float64), count)) == expected
