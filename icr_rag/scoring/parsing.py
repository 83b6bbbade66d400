"""What a model wrote -> a permutation, a choice, yes or no. Whatever it wrote, nothing is raised.

A generated ranking is a guess at what the model meant: documents it forgot, repeated or made up
are mended, and what was mended is counted, so that a ranking says how far it can be trusted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Repairs:
    """What had to be mended in a generated ranking.

    Attributes:
        missing: documents that were not named; they keep their order, below the others.
        repeated: names of a document that was named before; the first one counts.
        out_of_range: identifiers of no document.
        unparsed: True if the text names no document at all; the order is the one given.
    """

    missing: int = 0
    repeated: int = 0
    out_of_range: int = 0
    unparsed: bool = False

    @property
    def total(self) -> int:
        """All of them together, one for each identifier that is missing, repeated or wrong."""
        return self.missing + self.repeated + self.out_of_range


@dataclass(frozen=True)
class Permutation:
    """A ranking of n documents as a model wrote it, mended.

    Attributes:
        order: positions 0 to n - 1, best first; each exactly once.
        repairs: what was mended.
    """

    order: tuple[int, ...]
    repairs: Repairs


def parse_permutation(text: str, count: int) -> Permutation:
    """Read a ranking such as ``[2] > [1] > [3]`` (RankGPT, arXiv 2304.09542, section 3.2).

    Identifiers count from 1, in any script's decimal digits. If there are some in square brackets,
    other numbers do not count. Of those left, a chain with ">" is preferred to all else; where
    there are neither, identifiers with a noun ("Passage 2"), then lists ("2, 1, 3"; one a line),
    then any numbers that stand by themselves. Thoughts up to a ``</think>`` are skipped.

    Args:
        text: anything at all.
        count: how many documents there are, 0 or more.

    Returns:
        A permutation of range(count), best first.
    """
    order: dict[int, None] = {}
    repeated = out_of_range = 0
    for number in _identifiers(_answer(text)):
        if not 1 <= number <= count:
            out_of_range += 1
        elif number - 1 in order:
            repeated += 1
        else:
            order[number - 1] = None
    rest = [position for position in range(count) if position not in order]
    unparsed = count > 0 and not order
    return Permutation((*order, *rest), Repairs(len(rest), repeated, out_of_range, unparsed))


def parse_choice(text: str, labels: Sequence[str]) -> int | None:
    """The position in ``labels`` of the label that an answer names first; None if it names none.

    Case does not matter ("Passage A", "[B]", "(c)"), but a label must stand by itself. "a" and
    "I" are also words: they count where they can be none, as in "A is more relevant" or "[a]",
    or if they are the whole answer or its first line, and not as in "A passage about" or "I
    think". Where all labels are numbers, one in brackets or after a noun ("passage 2") goes
    before those of the prose. Thoughts up to a ``</think>`` are skipped.
    """
    answer = _answer(text)
    for whole in (answer, answer.strip().partition("\n")[0]):
        bare = whole.strip(_WRAPPING)
        for fold in (str, str.casefold):
            for position, label in enumerate(labels):
                if bare and fold(bare) == fold(label.strip(_WRAPPING)):
                    return position
    numbers = all(label.strip().isdecimal() for label in labels)
    named: list[tuple[bool, int, bool, int, int]] = []
    for position, label in enumerate(labels):
        for match in _standing_alone(label.strip()).finditer(answer):
            if _is_a_label(match):
                prose = numbers and not _is_marked(match)
                # Where labels begin at one place: the exact case, then the longest.
                named.append((prose, match.start(), match[0] != label, -match.end(), position))
    return min(named)[-1] if named else None


def parse_yes_no(text: str) -> bool | None:
    """True for an answer of yes, False for no, None if there is neither.

    The word at the beginning decides, else the first "yes", or "no" that is not part of a phrase
    ("no doubt"). A question repeated ("yes or no?") is no answer. Thoughts up to a ``</think>``
    are skipped.
    """
    answer = _ECHO.sub(" ", _answer(text))
    match = _YES_NO_FIRST.match(answer) or _YES_NO.search(answer)
    return None if match is None else match["word"].casefold() == "yes"


# --- the answer ---------------------------------------------------------------------------------

_FULL_WIDTH = str.maketrans("［］【】（）＞", "[][]()>")
_WRAPPING = " \t\r\n\f\v.,:;!?*_`'\"()[]{}<>#“”‘’"
_NOUN = (
    r"(?:passage|document|doc|text|paragraph|snippet|abstract|article|item|candidate|option|"
    r"choice|answer|label|identifier|id)s?"
)


def _answer(text: str) -> str:
    """The text without the thoughts before it, its brackets and arrows in one form."""
    return text.rpartition("</think>")[2].translate(_FULL_WIDTH).replace("&gt;", ">")


# --- permutations -------------------------------------------------------------------------------

# A number by itself, with its noun: not 2nd, covid-19, 2.5 or 30%.
_NUMBER = re.compile(
    rf"(?:\b(?P<noun>{_NOUN})[ \t_#:.-]{{0,3}}|(?<!\w)(?<!\d\.)(?<![^\W\d_]-))"
    r"(?P<digits>(?:(?<=\[)[-−])?\d+)(?!\w|%|\.\d)",
    re.IGNORECASE,
)
_BRACKETED = re.compile(r"\[[^\[\]]*\]")
_MARKER = re.compile(r"^[ \t*>-]*(?P<number>\d{1,9})[.):](?=\s|\Z)", re.MULTILINE)
_AFTER_MARKER = re.compile(r"[.):\s*_`\"-]*")
_SEPARATORS = re.compile(r"(?:[\s\[\](){}<>≻→»,;|/&=*_`'\"\\+~–-]|and|then)*")
_ARROW = re.compile(r"[>≻→»]")


def _identifiers(text: str) -> list[int]:
    """The identifiers that a text ranks, best first, as they are; 0 for what is none for sure."""
    pool = [
        match
        for group in _BRACKETED.finditer(text)
        if _SEPARATORS.fullmatch(_NUMBER.sub("", group[0]))
        for match in _NUMBER.finditer(text, *group.span())
    ]
    bracketed = bool(pool)
    if not bracketed:
        pool = _without_markers(text, list(_NUMBER.finditer(text)))
    chosen = [run for run in _runs(text, pool, blank=False) if _has_arrow(text, run)]
    if not chosen and not bracketed:
        runs = _runs(text, pool, blank=True)
        chosen = [run for run in runs if any(match["noun"] for match in run)]
        chosen = chosen or [run for run in runs if len(run) > 1]
    return [_number(match["digits"]) for run in chosen or [pool] for match in run]


def _runs(text: str, pool: Sequence[re.Match[str]], blank: bool) -> list[list[re.Match[str]]]:
    """The numbers, in runs between which only separators stand.

    ``blank``: spaces and line breaks alone separate too; but "Passage 3" and a plain 2 on the next
    line are no list, unless it began with a plural, "Passages: 3".
    """
    runs = [[match] for match in pool[:1]]
    for before, match in pairwise(pool):
        gap = text[before.end() : match.start()]
        joined = _SEPARATORS.fullmatch(gap) is not None
        if not gap.strip(" \t\r\n[]"):
            noun = before["noun"] or ""
            alike = bool(noun) == bool(match["noun"]) or noun.lower().endswith("s")
            joined = blank and alike
        if joined:
            runs[-1].append(match)
        else:
            runs.append([match])
    return runs


def _has_arrow(text: str, run: Sequence[re.Match[str]]) -> bool:
    return any(_ARROW.search(text, a.end(), b.start()) for a, b in pairwise(run))


def _without_markers(text: str, pool: list[re.Match[str]]) -> list[re.Match[str]]:
    """Drop the numbers of a numbered list, "1. 3" and "2. 1".

    Only if they count up from 1 and each stands right before another number. Should they have
    been identifiers after all, they stood for the order that is kept for what is not named.
    """
    starts = {match.start(): place for place, match in enumerate(pool)}
    markers = []
    for line in _MARKER.finditer(text):
        place = starts.get(line.start("number"))
        if place is None:
            return pool
        # The last one may have nothing behind it, where the model was cut short.
        end = pool[place + 1].start() if place + 1 < len(pool) else len(text)
        if not _AFTER_MARKER.fullmatch(text, line.end("number"), end):
            return pool
        markers.append(place)
    if [_number(pool[place]["digits"]) for place in markers] != list(range(1, len(markers) + 1)):
        return pool
    return [match for place, match in enumerate(pool) if place not in set(markers)]


def _number(digits: str) -> int:
    """The number; 0, which is never an identifier, for a negative or an endless one."""
    return int(digits) if len(digits) < 10 and digits.isdecimal() else 0


# --- choices ------------------------------------------------------------------------------------

_NOUN_BEFORE = re.compile(rf"\b{_NOUN}(?:\s+is)?[\s_#:.*\"'(\[-]{{0,4}}\Z", re.IGNORECASE)
# What follows a label and hardly an article or a pronoun.
_CLOSED = re.compile(r"""\s*[).:;>\]}]|[*_`"”’](?!\w)|'(?!\w)|'s\b""")
_ENDED = re.compile(r"\s*\Z|[ \t]*\n")
_LABEL_VERB = re.compile(
    r"\s+(?:is|isn't|has|answers|contains|provides|gives|addresses|discusses|describes|mentions|"
    r"because|since|over|than|and|or)\b"
)
_ASIDE = re.compile(r"\s*[,(–—-]")


def _standing_alone(label: str) -> re.Pattern[str]:
    """The label, not as a part of a word, a number or an abbreviation."""
    if not label:
        return re.compile(r"(?!)")
    before = r"(?<![^\W_])(?<!\w\.)" if label[0].isalnum() else ""
    after = r"(?![^\W_])(?!-\w|\.\w|[+#])" if label[-1].isalnum() else ""
    return re.compile(before + re.escape(label) + after, re.IGNORECASE)


def _is_a_label(match: re.Match[str]) -> bool:
    """False for what may be the article "a" or the pronoun "I"."""
    word, text, end = match[0], match.string, match.end()
    if word not in ("a", "A", "i", "I"):
        return True
    after_noun = _noun_before(match)
    if _CLOSED.match(text, end):
        return True
    if _ENDED.match(text, end) or _LABEL_VERB.match(text, end):
        return word.isupper() or after_noun
    return word == "A" and (after_noun or _ASIDE.match(text, end) is not None)


def _is_marked(match: re.Match[str]) -> bool:
    """True for "[2]", "(2)" and "passage 2"."""
    around = match.string[max(0, match.start() - 1) : match.end() + 1]
    return around in (f"[{match[0]}]", f"({match[0]})") or _noun_before(match)


def _noun_before(match: re.Match[str]) -> bool:
    return _NOUN_BEFORE.search(match.string[max(0, match.start() - 24) : match.start()]) is not None


# --- yes and no ---------------------------------------------------------------------------------

_ECHO = re.compile(r"\b(?:yes\s*(?:/|\||or)\s*no|no\s*(?:/|\||or)\s*yes)\b", re.IGNORECASE)
_YES_NO_FIRST = re.compile(
    r"[\W_]*(?:(?:the\s+)?(?:final\s+)?answer\s*(?:is\b)?[\W_]*)?"
    r"(?P<word>yes|no(?!\W+(?:doubt|question)))(?![^\W_])",
    re.IGNORECASE,
)
_YES_NO = re.compile(r"(?<![^\W_])(?P<word>yes(?![^\W_])|no(?=\s*(?:[^\w\s]|_|\Z|\n)))", re.I)
