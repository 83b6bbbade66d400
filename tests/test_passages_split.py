"""Passages as spans of a text: nothing lost, none too long, whole sentences where it can be."""

from __future__ import annotations

import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import byte_tokenizer

pytest.importorskip("sentencex")

from icr_rag.errors import InputError, MissingDependencyError
from icr_rag.prompts import passages as module
from icr_rag.prompts.passages import Splitter, passage
from icr_rag.prompts.query_likelihood import QueryLikelihoodPrompts
from icr_rag.prompts.sentences import sentences
from icr_rag.types import Document

PROMPTS = QueryLikelihoodPrompts(byte_tokenizer())
KINDS = {
    "english": "Dr. Smith saw tin melt, e.g. at 232 degrees. Why? Nobody knows! It is so. ",
    "german": "Zinn schmilzt z. B. bei 232 Grad. Das ist wenig, oder? Blei folgt erst später. ",
    "chinese": "锡在232度时熔化。铅很软!为什么?没有人知道。",
    "japanese": "錫は232度で溶ける。鉛は柔らかい。「なぜ？」誰も知らない。",
    "arabic": "ينصهر القصدير عند 232 درجة. لماذا؟ لا أحد يعرف! الرصاص لين. ",
    "hindi": "टिन 232 डिग्री पर पिघलता है। सीसा नरम है। क्यों? ",
    "thai": "ดีบุกหลอมเหลวที่อุณหภูมิ232องศา ตะกั่วอ่อนนุ่ม ",
    "code": "def melt(tin):\n    if tin > 232:\n        return True\n\n\n",
    "markdown": "# Metals\n\n- tin: *232*\n- lead\n\n| metal | melts |\n|---|---|\n| tin | 232 |\n",
    "crlf": "Tin melts.\r\nLead is soft.\r\n\r\nOaks carry\r\nacorns. ",
    "emoji": "Tin melts 👩🏽‍🔬 at 232 🔥. Lead 👨‍👩‍👧‍👦 is soft 🇩🇪! ",
    "accents": "e\u0301tain fond a\u0300 232 degre\u0301s. Le plomb est mou. ",
    "long line": "tinleadcopper" * 9,
    "controls": "<|im_start|>user tin. <|im_end|> lead.\x00 \x1c oak. \u200b\u2028 zinc. ",
    "surrogates": "tin \ud83d melts. \udc00 lead. ",
}


def size(document):
    return len(PROMPTS.encode_documents([document.content])[0])


def split(document, tokens=40, overlap=0, most=None):
    return Splitter(PROMPTS.encode_documents, tokens, overlap).split(document, most, "document 3")


def check(document, tokens, overlap, most=None):
    """What is true of every split."""
    text, whole = document.text, size(document)
    found = split(document, tokens, overlap, most)
    assert found.cut == (most is not None and whole > most)
    read = whole if most is None else min(whole, most)
    assert bool(found.spans) == (read > tokens)
    if not found.spans:
        return found
    covered = set()
    for start, end in found.spans:
        assert 0 <= start < end <= len(text)
        assert text[start:end].strip() == text[start:end]
        assert size(passage(document, (start, end))) <= tokens
        covered.update(range(start, end))
    end = found.spans[-1][1]
    lost = [place for place in range(end) if place not in covered and not text[place].isspace()]
    assert lost == []
    for (_, before), (start, after) in zip(found.spans, found.spans[1:], strict=False):
        assert before < after
        if start < before:
            shared = PROMPTS.encode_documents([text[start:before]])[0]
            assert len(shared) <= overlap
    if found.cut:
        assert size(passage(document, (0, end))) <= most
        rest = text[end:].lstrip()
        more = len(text) - len(rest) + 1
        assert not rest or size(passage(document, (0, more))) > most
    else:
        assert text[end:].strip() == ""
    return found


ALPHABET = [
    *"ab Dr.!?。！？।؟\n\t\"'()[]|#é漢ก1-,;:", "\r\n", "\n\n", "e.g. ", "Tin melts. ",
    "\U0001f469\u200d\U0001f52c", "\u0301", "\u200d", "\u3000", "\x85", "\ud800",
    "<|im_end|>", "sentence without an end ", "long" * 6,
]  # fmt: skip
TEXTS = st.one_of(
    st.lists(st.sampled_from(ALPHABET), max_size=60).map("".join), st.text(max_size=60)
)


@settings(max_examples=150, deadline=None)
@given(
    TEXTS,
    st.sampled_from([None, "Metals", "錫"]),
    st.integers(20, 60),
    st.integers(0, 15),
    st.sampled_from([None, 70, 100]),
)
@example("\ud800. " * 30, None, 20, 3, None)
@example("a" * 100, "Metals", 20, 0, 70)
def test_nothing_is_lost_and_no_passage_is_too_long(text, title, tokens, overlap, most):
    document = Document(text, title)
    if document.content.strip():
        check(document, tokens, overlap, most)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize(("title", "overlap"), [(None, 0), ("Metals", 30)])
def test_every_kind_of_text_is_covered(kind, title, overlap):
    document = Document(KINDS[kind] * 12, title)
    found = check(document, 60, overlap)
    assert len(found.spans) > 3


def slow_passages(document, tokens):
    """Sentences one after the other, for as long as they fit; those that fit by themselves."""
    if size(document) <= tokens:
        return ()
    found, units = [], sentences(document.text)
    while units:
        count = 1
        while (
            count < len(units) and size(passage(document, (units[0][0], units[count][1]))) <= tokens
        ):
            count += 1
        found.append((units[0][0], units[count - 1][1]))
        units = units[count:]
    return tuple(found)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from(["Tin melts.", "Lead is soft!", "Oaks?", "錫は溶ける。"]), min_size=9),
    st.sampled_from([None, "Metals"]),
    st.integers(40, 90),
)
def test_passages_are_as_long_as_they_can_be(parts, title, tokens):
    document = Document(" ".join(parts), title)
    assert split(document, tokens).spans == slow_passages(document, tokens)


def test_passages_end_with_sentences():
    text = "Dr. Smith saw it, e.g. here. Tin melts at 232 degrees! Is lead soft? Yes. Oaks grow."
    found = split(Document(text), 30)
    assert [text[slice(*span)] for span in found.spans] == [
        "Dr. Smith saw it, e.g. here.", "Tin melts at 232 degrees!",
        "Is lead soft? Yes. Oaks grow.",
    ]  # fmt: skip
    found = split(Document(text), 50, overlap=20)
    assert [text[slice(*span)] for span in found.spans] == [
        "Dr. Smith saw it, e.g. here.", "Tin melts at 232 degrees! Is lead soft? Yes.",
        "Is lead soft? Yes. Oaks grow.",
    ]  # fmt: skip


def test_long_sentences_are_cut_at_lines_then_words_then_signs():
    lines = "| tin | 232 degrees |\n| lead | 327 degrees |\n| zinc | 419 degrees |"
    assert [lines[slice(*s)] for s in split(Document(lines), 30).spans] == lines.split("\n")
    words = "tin and lead and zinc and copper and gold"
    assert [words[slice(*s)] for s in split(Document(words), 20).spans] == [
        "tin and lead and", "zinc and copper and", "gold",
    ]  # fmt: skip
    accents = "e\u0301" * 20
    assert all(start % 2 == 0 for start, _ in split(Document(accents), 18).spans)
    # Longer than what the library is given at once, and without an end.
    assert len(check(Document("tin " * 1500), 500, 0).spans) == 12
    assert len(check(Document("錫" * 3000), 500, 0).spans) == 19


def test_a_split_document_comes_again_without_being_split_again(monkeypatch):
    calls = []
    splitter = Splitter(PROMPTS.encode_documents, 40, 0)
    monkeypatch.setattr(module, "sentences", lambda text: calls.append(text) or sentences(text))
    document = Document(KINDS["english"] * 3)
    first = splitter.split(document, None, "document 0")
    assert splitter.split(Document(document.text), None, "document 1") == first
    assert len(calls) == 1
    # The same characters, shared out otherwise.
    other = splitter.split(Document("b" + document.text, "a"), None, "document 2")
    assert other != splitter.split(Document(document.text, "a\nb"), None, "document 3")
    monkeypatch.setattr(module, "_KEPT", 1)
    splitter.split(Document(KINDS["german"] * 3), None, "document 4")
    splitter.split(document, None, "document 5")
    splitter.split(Document(KINDS["german"] * 3), None, "document 6")
    assert len(calls) > 4


def test_a_title_that_leaves_no_room_is_an_error():
    with pytest.raises(InputError, match="document 3 has 33 tokens before its text"):
        split(Document("Tin melts. Lead is soft.", "A title that is far too long ..."[:31]), 40)
    # Nothing is split, and so nothing is repeated.
    assert split(Document("Tin.", "A title that is long enough"), 40).spans == ()


def test_a_character_that_fits_nowhere_is_an_error():
    wide = Splitter(lambda texts: [[0] * 50 * len(text) for text in texts], 20, 0)
    with pytest.raises(InputError, match="a character that does not fit"):
        wide.split(Document("ab"), None, "document 0")


def test_the_extra_that_lacks_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencex", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'icr-rag\[passages\]'"):
        Splitter(PROMPTS.encode_documents, 40, 0)
