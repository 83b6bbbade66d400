"""Long texts as passages: whole sentences, as many as fit, each passage with the title before it.

Counted are the tokens that a document's text takes up in a prompt, by the model's own tokenizer.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from icr_rag.deadline import step
from icr_rag.errors import InputError, shown
from icr_rag.prompts.sentences import (
    Characters,
    characters,
    lines,
    sentence_splitter,
    sentences,
    signs,
    words,
)
from icr_rag.types import Document

#: Tokens that a title must leave to the text of a passage.
LEAST_ROOM = 8
#: Splits that are kept: what is asked again, by another query, is not split again.
_KEPT = 4096
#: What is measured: splitting what was not split yet, by characters.
_SPLIT = "split"


@dataclass(frozen=True)
class Split:
    """How a document is split.

    Attributes:
        spans: of its passages in its text, in order; empty where it is read as one.
        cut: whether the document has more tokens than are read of it.
    """

    spans: tuple[Characters, ...]
    cut: bool = False


class Splitter:
    """Splits documents, and remembers how.

    Args:
        encode: contents -> token ids of each; not safe under threads, and neither is this.
        tokens: most tokens of a passage, its title counted.
        overlap: most tokens that a passage repeats of the one before it, in whole sentences.

    Raises:
        MissingDependencyError: if the library that finds sentences is not installed.
    """

    def __init__(
        self, encode: Callable[[Sequence[str]], list[list[int]]], tokens: int, overlap: int
    ) -> None:
        sentence_splitter()
        self._encode = encode
        self.tokens = tokens
        self.overlap = overlap
        self._known: OrderedDict[tuple[bytes, int | None], Split] = OrderedDict()

    def split(self, document: Document, most: int | None, name: str) -> Split:
        """The passages of a document.

        Args:
            document: not blank.
            most: tokens of the whole document that are read, its title counted; None: all.
            name: how errors call it.

        Raises:
            InputError: if the title leaves no room for the text.
            OutOfTime: if it is not known yet, and splitting it would take too long.
        """
        parts = (document.title or "", document.text)
        content = "".join(f"{len(part)} {part}" for part in parts)
        # Not the text itself, which would be kept with it.
        key = (hashlib.sha256(content.encode("utf-8", "surrogatepass")).digest(), most)
        found = self._known.get(key)
        if found is None:
            with step(_SPLIT, len(content)):
                found = self._split(_Text(document, self._encode), most, name)
            self._known[key] = found
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        return found

    def _split(self, text: _Text, most: int | None, name: str) -> Split:
        end = len(text.text)
        size = text.size((0, end))
        cut = most is not None and size > most
        if min(size, size if most is None else most) <= self.tokens:
            return Split((), cut)
        if text.head_size + LEAST_ROOM > self.tokens:
            raise InputError(
                f"{name} has {text.head_size} tokens before its text, its title or metadata that "
                f"is read ({shown(text.title)}), which leaves no room for the text in passages of "
                f"passage_tokens={self.tokens}; let less of it be read or set a larger "
                "passage_tokens"
            )
        if most is not None and cut:
            end = _furthest(lambda place: text.size((0, place)) <= most, 0, end, 4 * most)
        units = self._units(text, end, name)
        return Split(tuple(self._packed(text, units)), cut)

    def _units(self, text: _Text, end: int, name: str) -> list[Characters]:
        """What is never cut: sentences, and pieces of those that are too long for a passage."""
        units = sentences(text.text[:end])
        for finer in (lines, words, signs, characters):
            large = {unit for unit, size in zip(units, text.sizes(units), strict=True)
                     if size > self.tokens}  # fmt: skip
            if not large:
                return units
            units = [
                piece
                for unit in units
                for piece in (finer(text.text, unit) if unit in large else [unit])
            ]
        if any(size > self.tokens for size in text.sizes(units)):
            raise InputError(
                f"{name} has a character that does not fit in a passage of passage_tokens="
                f"{self.tokens}; set a larger passage_tokens"
            )
        return units

    def _packed(self, text: _Text, units: Sequence[Characters]) -> list[Characters]:
        """Passages of neighbouring units: each as long as it can be."""
        sizes = [size - text.head_size for size in text.sizes(units)]

        def fits(first: int, last: int) -> bool:
            return text.size((units[first][0], units[last][1])) <= self.tokens

        spans: list[Characters] = []
        first, least, final = 0, 0, len(units) - 1
        while True:
            guess, room = first, self.tokens - text.head_size - sizes[first]
            while guess < final and sizes[guess + 1] <= room:
                guess += 1
                room -= sizes[guess]
            begin = first
            last = _furthest(lambda place: fits(begin, place), least, final, guess)  # noqa: B023
            spans.append((units[first][0], units[last][1]))
            if last == final:
                return spans
            repeated = self._repeated(text, units, first, last)
            least = last + 1
            first = next(place for place in range(repeated, least + 1) if fits(place, least))

    def _repeated(self, text: _Text, units: Sequence[Characters], first: int, last: int) -> int:
        """The first unit of a passage that is repeated in the next one; last + 1: none is."""
        begin = last + 1
        while begin > first + 1:
            if text.bare_size((units[begin - 1][0], units[last][1])) > self.overlap:
                break
            begin -= 1
        return begin


class _Text:
    """A document's text, measured in tokens with the title before each part of it."""

    def __init__(
        self, document: Document, encode: Callable[[Sequence[str]], list[list[int]]]
    ) -> None:
        self.text = document.text
        self.title = document.title or ""
        self._document = document
        self._encode = encode
        self.head_size = self.sizes([(0, 0)])[0]

    def sizes(self, spans: Sequence[Characters]) -> list[int]:
        """Tokens of passages."""
        contents = [passage(self._document, span).content for span in spans]
        return [len(ids) for ids in self._encode(contents)]

    def size(self, span: Characters) -> int:
        """Tokens of one."""
        return self.sizes([span])[0]

    def bare_size(self, span: Characters) -> int:
        """Tokens of a part of the text without the title."""
        return len(self._encode([self.text[span[0] : span[1]]])[0])


def passage(document: Document, span: Characters) -> Document:
    """A part of a document's text as a document, under its title."""
    return Document(document.text[span[0] : span[1]], document.title)


def _furthest(fits: Callable[[int], bool], low: int, high: int, guess: int) -> int:
    """The largest place from ``low`` to ``high`` that fits, where ``low`` does.

    Found from a guess outwards, because what is measured grows with the place. What it returns
    fits, and the next place does not.
    """
    guess = max(low, min(high, guess))
    good, bad, step = low, high + 1, 1
    if guess == low or fits(guess):
        good = guess
        while good + step < bad:
            if fits(good + step):
                good, step = good + step, 2 * step
            else:
                bad = good + step
    else:
        bad = guess
        while bad - step > good:
            if fits(bad - step):
                good = bad - step
            else:
                bad, step = bad - step, 2 * step
    while bad - good > 1:
        middle = (good + bad) // 2
        if fits(middle):
            good = middle
        else:
            bad = middle
    return good
