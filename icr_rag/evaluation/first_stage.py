"""First-stage candidates by BM25, for data that bring no run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from icr_rag.errors import ConfigError, DataError, require
from icr_rag.evaluation.datasets import Dataset

#: query id -> document id -> score, best first; ``list(scores)`` of a query is its ranking
ScoredRun = dict[str, dict[str, float]]

#: The parameters of Anserini's BM25 baselines on MS MARCO and BEIR (Thakur et al., 2021).
K1, B = 0.9, 0.4
DESCRIPTION = f"BM25 (bm25s, k1={K1}, b={B}, stemmed)"


def bm25_candidates(
    dataset: Dataset,
    depth: int,
    *,
    excluded: Mapping[str, Collection[str]] | None = None,
    language: str = "english",
) -> ScoredRun:
    """The best documents for each judged query, from the whole corpus.

    Okapi BM25 as in Lucene over title and text, stop words removed, words stemmed.

    Args:
        dataset: with all of its documents.
        depth: how many documents per query, at most: one without a word of the query is no
            candidate, so that there may be fewer, or none.
        excluded: query id -> documents that must not be found for it; ``depth`` counts the others.
        language: whose stemmer, as PyStemmer names it, and stop words, where bm25s has them.

    Returns:
        Scores by query and document, higher is better, best first; equal scores in corpus order.

    Raises:
        ConfigError: for a depth below 1, or a language that PyStemmer does not know.
        DataError: for a corpus in which no word is left to search for.
        MissingDependencyError: without bm25s or PyStemmer.
    """
    if depth < 1:
        raise ConfigError(f"depth={depth} is not allowed; it must be at least 1")
    bm25s = require("bm25s", "cli", "BM25")
    tokenize = word_stems(language)
    names = list(dataset.documents)
    corpus = tokenize([document.content for document in dataset.documents.values()])
    # bm25s divides by the mean length, and asks numpy for the largest of no numbers.
    if not any(corpus):
        raise DataError(f"{dataset.name}: the corpus has no word to search for with BM25")
    index = bm25s.BM25(k1=K1, b=B)
    index.index(corpus, show_progress=False)

    queries = dataset.judged_queries
    run: ScoredRun = {}
    words = tokenize([dataset.queries[query] for query in queries])
    for query, tokens in zip(queries, words, strict=True):
        known = [token for token in tokens if token in index.vocab_dict]
        scores = np.asarray(index.get_scores(known), np.float64) if known else np.zeros(len(names))
        banned = () if excluded is None else excluded.get(query, ())
        places = _best(scores, depth + len(banned))
        found = {names[place]: float(scores[place]) for place in places}
        kept = [name for name in found if name not in banned]
        run[query] = {name: found[name] for name in kept[:depth]}
    return run


def word_stems(language: str) -> Callable[[Sequence[str]], list[list[str]]]:
    """A function from texts to their lists of stems.

    Raises:
        ConfigError: for a language that PyStemmer does not know.
        MissingDependencyError: without bm25s or PyStemmer.
    """
    bm25s = require("bm25s", "cli", "BM25")
    stemmers = require("Stemmer", "cli", "BM25")
    if language not in stemmers.algorithms():
        raise ConfigError(
            f"language={language!r} is not allowed; PyStemmer knows "
            f"{', '.join(stemmers.algorithms())}"
        )
    stemmer = stemmers.Stemmer(language)
    stopwords: str | None = language
    try:
        bm25s.tokenize([""], stopwords=language, show_progress=False)
    except ValueError:
        stopwords = None

    def tokenize(texts: Sequence[str]) -> list[list[str]]:
        return _words(texts, stopwords, stemmer)

    return tokenize


def plain_words(texts: Sequence[str]) -> list[list[str]]:
    """The words of each text as they are, in lower case.

    Raises:
        MissingDependencyError: without bm25s.
    """
    return _words(texts, None, None)


def _words(texts: Sequence[str], stopwords: str | None, stemmer: object) -> list[list[str]]:
    found: list[list[str]] = require("bm25s", "cli", "BM25").tokenize(
        list(texts),
        stopwords=stopwords,
        stemmer=stemmer,
        return_ids=False,
        show_progress=False,
    )
    return found


def _best(scores: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Places of the ``count`` highest scores above 0, highest first, ties in order of place."""
    positive = np.flatnonzero(scores > 0)
    if len(positive) > count:
        # Everything that ties with the last one; a partition alone would pick among these at will.
        least = np.partition(scores[positive], -count)[-count]
        positive = positive[scores[positive] >= least]
    return positive[np.argsort(-scores[positive], kind="stable")][:count]
