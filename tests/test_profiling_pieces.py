"""Sentences, headings, docstrings and words, in scripts of many kinds."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_rag import Document
from icr_rag.errors import ConfigError
from icr_rag.profiling.pieces import docstrings, join_sentences, sections, split_sentences
from icr_rag.profiling.terms import Search, is_unspaced, searchable, terms, word_count

ENGLISH = st.text("abc AB.!?,1é", max_size=60)


@given(text=ENGLISH)
def test_what_has_spaces_is_split_and_counted_by_them(text):
    assert [s for s in re.split(r"(?<=[.!?])\s+", text.strip()) if s] == split_sentences(text)
    assert word_count(text) == len(text.split())
    assert join_sentences(split_sentences(text)) == " ".join(split_sentences(text))


@given(text=st.text(max_size=80))
def test_no_text_breaks_anything_and_no_sign_is_lost(text):
    parts = split_sentences(text)
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert word_count(text) >= 0
    is_unspaced(text)
    terms([text])
    list(sections({"a": Document(text)}))
    list(docstrings({"a": Document(f'"""{text}"""')}))


SENTENCES = {
    "Chinese": ("东京是日本的首都。", "人口很多！", "你去过吗？"),
    "Hindi": ("दिल्ली भारत की राजधानी है।", "यह बहुत पुराना शहर है।"),
    "Arabic": ("أين المحطة؟", "هي هناك."),
    "Greek": ("Η Αθήνα είναι πόλη.", "Έχει λιμάνι."),
}


@pytest.mark.parametrize("language", SENTENCES)
def test_sentences_end_where_their_script_says(language):
    parts = list(SENTENCES[language])
    assert split_sentences(join_sentences(parts)) == parts
    assert is_unspaced(join_sentences(parts)) == (language == "Chinese")


def test_scripts_without_spaces_are_pairs():
    assert searchable("東京都 Tower").split() == ["東京", "京都", "Tower"]
    assert terms(["京"]) == [["京京"]]
    assert word_count("東京都は tall です") == 2 + 1 + 1
    # Vowel signs are no letters to a pattern of words, and would cut every word short.
    assert terms(["हिन्दी भाषा", "ที่นี่"]) == [["हनद", "भष"], ["ทน"]]
    assert terms(["cafe\u0301s"], "none") == [["cafés"]]


def test_stems_are_those_of_the_language():
    assert terms(["Die Häuser der Städte"], "german") == [["haus", "stadt"]]
    assert terms(["The houses"], "none") == [["the", "houses"]]
    with pytest.raises(ConfigError, match="PyStemmer knows"):
        terms(["a"], "elvish")


def test_what_shares_a_word_is_found():
    texts = {
        "a": Document("東京都は日本の首都です"),
        "b": Document("京都は古い都です"),
        "c": Document("x"),
    }
    search = Search(texts)
    assert search.best(["日本の首都", "古い", "nothing here"], 3, least=True) == [["a"], ["b"], []]
    assert search.best(["nothing here"], 2) == [["a", "b"]]
    assert Search({"a": Document("")}).best(["word"], 3) == [["a"]]


MARKDOWN = """\
Before any heading.

# How to set the clock

Turn it.

```
# not a heading
```

## The second part of it ##
Some text
Words
---

Underlined with equal signs
===========================
More text.
"""


def test_headings_ask_for_their_sections():
    found = sections({"a": Document(MARKDOWN)})
    assert [document.title for document in found.values()] == [
        "How to set the clock", "The second part of it", "Underlined with equal signs",
    ]  # fmt: skip
    texts = [document.text for document in found.values()]
    assert texts[0].startswith("Turn it.")
    assert "# not a heading" in texts[0]
    assert "Some text" in texts[1]
    assert texts[2] == "More text."


def test_headings_of_rest_documents():
    text = "=====\nTitle\n=====\n\nIntro.\n\nA part\n~~~~~~\n\nText.\n\nAnother\n-------\nEnd."
    found = sections({"a": Document(text)})
    assert {d.title: d.text for d in found.values()} == {
        "Title": "Intro.", "A part": "Text.", "Another": "End.",
    }  # fmt: skip


def test_headings_that_stand_twice_ask_for_nothing():
    twice = {"a": Document("# Notes\nx\n# Only here\ny"), "b": Document("# notes\nz")}
    assert [document.title for document in sections(twice).values()] == ["Only here"]


PYTHON = '''\
"""A module of things.

It has a few.
"""

class Thing:
    """A thing that counts."""

    def count(self):
        """count(x) -> int

        Count what there is
        in the box.

        One after the other.
        """

async def run():
    r"""Run \\d things.

    All of them.
    """
'''


def test_summaries_ask_for_the_rest_of_their_docstrings():
    found = docstrings({"a.py": Document(PYTHON), "b.py": Document('def broken("""'),
                        "c.txt": Document("no code")})  # fmt: skip
    assert {d.title: d.text for d in found.values()} == {
        "A module of things.": "It has a few.",
        "Count what there is in the box.": "One after the other.",
        r"Run \d things.": "All of them.",
    }
    assert len({name.split("#")[0] for name in found}) == 1
