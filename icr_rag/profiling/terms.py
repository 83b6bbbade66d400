"""Words of texts in any script, and BM25 over documents by them.

Scripts that set no spaces between words (Chinese, Japanese, Thai and others) are cut into pairs of
neighbouring characters, which find what words would find (Ogawa & Matsuda, SIGIR 1997); Korean has
spaces. All other words are stemmed where the language is known.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np

from icr_rag.errors import require
from icr_rag.evaluation.first_stage import K1, B, plain_words, word_stems
from icr_rag.types import Document

#: Words are taken as they are.
NO_LANGUAGE = "none"

#: Han, kana and their marks; Thai, Lao, Myanmar, Khmer.
_UNSPACED = (
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
)
_RUN = re.compile(f"[{_UNSPACED}]+")


def word_count(text: str) -> int:
    """How long a text is in words: what spaces separate; of scripts without, two characters."""
    unspaced = sum(len(run) for run in _RUN.findall(text))
    return len(_RUN.sub(" ", text).split()) + (unspaced + 1) // 2


def is_unspaced(text: str) -> bool:
    """Whether most of a text's letters are of scripts without spaces."""
    letters = sum(character.isalpha() for character in text)
    return 2 * sum(len(run) for run in _RUN.findall(text)) > letters


def searchable(text: str) -> str:
    """The text for a search by words: scripts without spaces as pairs of characters with spaces
    between, and without the marks that are no letters, at which words would be broken (vowel signs
    of Indic scripts and Thai); accented letters stay."""
    composed = unicodedata.normalize("NFC", text)
    letters = "".join(sign for sign in composed if unicodedata.category(sign)[0] != "M")
    return _RUN.sub(lambda found: f" {_pairs(found[0])} ", letters)


def terms(texts: Sequence[str], language: str = "english") -> list[list[str]]:
    """The terms of each text, in order, without stop words.

    Args:
        language: whose stems and stop words, as PyStemmer names it; `NO_LANGUAGE`: words as they
            are.

    Raises:
        ConfigError: for a language that PyStemmer does not know.
        MissingDependencyError: without bm25s or PyStemmer.
    """
    cut = plain_words if language == NO_LANGUAGE else word_stems(language)
    return cut([searchable(text) for text in texts])


class Search:
    """BM25 over documents.

    Args:
        documents: id -> document, at least one.
        language: as for `terms`.
    """

    def __init__(self, documents: Mapping[str, Document], language: str = "english") -> None:
        self.names = sorted(documents)
        self._language = language
        found = terms([documents[name].content for name in self.names], language)
        self._index = None
        # bm25s divides by the mean length.
        if any(found):
            self._index = require("bm25s", "cli", "Finding candidates").BM25(k1=K1, b=B)
            self._index.index(found, show_progress=False)

    def scores(self, queries: Sequence[str]) -> list[np.ndarray]:
        """Per query, the score of each document, in the order of ``names``; 0: no common word."""
        result = []
        for words in terms(queries, self._language):
            known = [w for w in words if self._index is not None and w in self._index.vocab_dict]
            if known and self._index is not None:
                result.append(np.asarray(self._index.get_scores(known), dtype=np.float64))
            else:
                result.append(np.zeros(len(self.names)))
        return result

    def best(self, queries: Sequence[str], count: int, *, least: bool = False) -> list[list[str]]:
        """Per query, the ids of the best ``count`` documents; equal scores in order of id.

        Args:
            least: leave out documents that have no word of the query.
        """
        found = []
        for scores in self.scores(queries):
            places = np.argsort(-scores, kind="stable")[:count]
            found.append([self.names[p] for p in places if not least or scores[p] > 0])
        return found


def _pairs(run: str) -> str:
    if len(run) == 1:
        # A single character would be passed over as no word.
        return run * 2
    return " ".join(run[place : place + 2] for place in range(len(run) - 1))
