"""Where a text may be cut: after its sentences, else lines, else words, else characters.

Sentences are found by sentencex (Wikimedia), which knows the marks of some 300 languages and takes
English abbreviations into account. What it says is used as places to cut at and nothing else, so
that no character can be lost or moved by it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

from icr_rag.errors import require

#: Characters given to sentencex at once: its time grows with the square of a text's length.
_BLOCK = 2000

_LINE_END = re.compile(r"[\r\n]+")
_WORD_END = re.compile(r"\s+")
_LONE_SURROGATES = re.compile("[\ud800-\udfff]")
_ZERO_WIDTH_JOINER = "\u200d"
_SKIN_TONES = ("\U0001f3fb", "\U0001f3ff")

#: Half-open range of character positions in a text: ``text[start:end]``.
Characters = tuple[int, int]


def sentences(text: str) -> list[Characters]:
    """Spans of the sentences, without the white space around them; blank ones are left out.

    A sentence of more than 2000 characters comes in pieces.

    Raises:
        MissingDependencyError: if sentencex is not installed.
    """
    segment: Callable[[str, str], Sequence[str]] = sentence_splitter()
    # One character for another, so that positions stay; half of a pair is no character.
    clean = _LONE_SURROGATES.sub("\ufffd", text)
    cuts, start = [0], 0
    while start < len(clean):
        block = clean[start : start + _BLOCK]
        found = [len(sentence) for sentence in segment("en", block)]
        ends = [start + end for end in accumulate(found) if 0 < end < len(block)]
        if start + len(block) == len(clean):
            ends.append(len(clean))
        elif not ends:
            # What may go on behind the block is looked at again with that.
            ends = [start + _last_word_end(block)]
        cuts += ends
        start = ends[-1]
    return _stripped(text, cuts)


def sentence_splitter() -> Callable[[str, str], Sequence[str]]:
    """sentencex's function: language, text -> its sentences.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    found: Callable[[str, str], Sequence[str]] = require(
        "sentencex", "passages", "splitting documents (the setting passages)"
    ).segment
    return found


def lines(text: str, span: Characters) -> list[Characters]:
    """The lines of a part of a text."""
    return _stripped(text, _cuts(text, span, _LINE_END))


def words(text: str, span: Characters) -> list[Characters]:
    """What white space separates in a part of a text."""
    return _stripped(text, _cuts(text, span, _WORD_END))


def signs(text: str, span: Characters) -> list[Characters]:
    """Characters as readers see them: with their accents, an emoji with what it is joined to."""
    start, end = span
    cuts = [place for place in range(start + 1, end) if not _belongs(text[place - 1], text[place])]
    return _stripped(text, [start, *cuts, end])


def characters(text: str, span: Characters) -> list[Characters]:
    """Single characters."""
    return _stripped(text, list(range(span[0], span[1] + 1)))


def _belongs(before: str, after: str) -> bool:
    """Whether two neighbours are one sign."""
    joined = after == _ZERO_WIDTH_JOINER or before == _ZERO_WIDTH_JOINER
    tone = _SKIN_TONES[0] <= after <= _SKIN_TONES[1]
    return joined or tone or unicodedata.category(after) in ("Mn", "Mc", "Me")


def _last_word_end(block: str) -> int:
    """Behind the last white space of a block, so that no word is cut; its end if it has none."""
    return max((found.end() for found in _WORD_END.finditer(block)), default=len(block))


def _cuts(text: str, span: Characters, pattern: re.Pattern[str]) -> list[int]:
    start, end = span
    inside = [found.end() for found in pattern.finditer(text, start, end)]
    return [start, *(cut for cut in inside if start < cut < end), end]


def _stripped(text: str, cuts: Sequence[int]) -> list[Characters]:
    """Spans between the cuts, without white space around them; blank ones are left out."""
    found = []
    for start, end in pairwise(cuts):
        part = text[start:end]
        if own := part.strip():
            begin = start + len(part) - len(part.lstrip())
            found.append((begin, begin + len(own)))
    return found
