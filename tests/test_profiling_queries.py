"""Label-free queries: made from documents, with the document as the only answer."""

from __future__ import annotations

import copy
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icr_rag import Document
from icr_rag.errors import InputError
from icr_rag.profiling.queries import label_free

WORDS = (
    "tide", "moon", "harbour", "sand", "cliff", "boat", "rope", "gull", "salt", "wave", "depth",
    "current", "anchor", "storm", "pier", "light", "stone", "shell", "crab", "fog", "kelp", "dune",
    "reef", "bay", "swell",
)  # fmt: skip


def document(number, sentences=8, title=True):
    text = " ".join(
        " ".join(WORDS[(number * 3 + s * 5 + w * (number + 1)) % len(WORDS)] for w in range(12))
        + f" {number}x{s}."
        for s in range(sentences)
    )
    return Document(text, f"about {WORDS[number % 25]} and number {number}" if title else None)


CORPUS = {f"d{number}": document(number) for number in range(30)}


@settings(max_examples=20)
@given(
    kinds=st.lists(st.sampled_from(["title", "sentence", "passage"]), min_size=1, unique=True),
    count=st.integers(1, 12),
    depth=st.integers(2, 8),
    seed=st.integers(0, 99),
)
def test_what_is_asked_for_is_not_in_the_answer(kinds, count, depth, seed):
    before = copy.deepcopy(CORPUS)
    data, run = label_free(CORPUS, kinds=kinds, count=count, depth=depth, seed=seed)
    assert before == CORPUS
    assert len(data.queries) == count
    for query, text in data.queries.items():
        (answer,) = data.judgements[query]
        names = run[query]
        assert names.count(answer) == 1
        assert 2 <= len(names) <= depth
        assert len(set(names)) == len(names)
        assert text not in data.documents[answer].content
        assert len(data.documents[answer].text.split()) >= 30
        assert all(name in data.documents for name in names)
    again = label_free(CORPUS, kinds=kinds, count=count, depth=depth, seed=seed)
    assert again == (data, run)


def test_titles_ask_for_bodies_without_titles():
    data, run = label_free(CORPUS, kinds=["title"], count=5, depth=4)
    for query, names in run.items():
        assert data.queries[query].startswith("about ")
        # A title on the others alone would give the answer away.
        assert all(data.documents[name].title is None for name in names)


def test_passages_are_longer_than_sentences():
    one, _ = label_free(CORPUS, kinds=["sentence"], count=5)
    some, _ = label_free(CORPUS, kinds=["passage"], count=5)
    assert max(len(q.split()) for q in one.queries.values()) <= 40
    assert all(30 <= len(q.split()) <= 80 for q in some.queries.values())


def test_keywords_are_the_rarest_words_of_a_sentence_that_others_have():
    data, _ = label_free(CORPUS, kinds=["keywords"], count=12)
    often = Counter(word for d in CORPUS.values() for word in set(words(d.content)))
    for query, text in data.queries.items():
        (answer,) = data.judgements[query]
        source = CORPUS[answer.split("#")[0]]
        (taken,) = [s for s in source.text.split(". ") if s.rstrip(".") not in
                    data.documents[answer].text]  # fmt: skip
        own = words(text)
        assert 2 <= len(own) <= 4
        assert [word for word in words(taken) if word in own] == own
        # Numbers that stand nowhere else are no keywords.
        others = [word for word in words(taken) if often[word] > 1 and word not in own]
        assert not others or max(often[w] for w in own) <= min(often[w] for w in others)


def words(text):
    return list(dict.fromkeys(re.findall(r"[a-z0-9]{2,}", text)))


def test_parts_of_documents_compete_with_their_like():
    body = " ".join(WORDS[n % 25] for n in range(40))
    corpus = {
        f"f{n}.md": Document(
            "\n".join(f"# the {WORDS[n + k]} of place {n}\n{body} {n}" for k in range(3))
        )
        for n in range(4)
    }
    code = "".join(f'def f{n}():\n    """Find the {WORDS[n]} of it.\n\n    {body} {n}"""\n'
                   for n in range(9))  # fmt: skip
    data, run = label_free({**corpus, "x.py": Document(code)}, kinds=["heading", "docstring"],
                           count=6, depth=3)  # fmt: skip
    assert len(data.queries) == 6
    parts = {"the": "#section-", "Find": "x.py#"}
    for query, names in run.items():
        part = parts[data.queries[query].split()[0]]
        assert all(part in name for name in names)
        assert data.queries[query] not in " ".join(data.documents[name].content for name in names)
    assert sum(text.startswith("Find") for text in data.queries.values()) == 3
    # What one kind cannot give the others do.
    data, _ = label_free(corpus, kinds=["docstring", "heading"], count=6, depth=3)
    assert len(data.queries) == 6


def test_texts_without_spaces_give_queries():
    marks = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏"
    corpus = {
        f"d{n}": Document(
            "。".join("".join(marks[(n * 5 + s * 7 + c * (n + 1)) % 24] for c in range(20))
                      for s in range(8)) + "。",
            "".join(marks[(n + c * 3) % 24] for c in range(8)),
        )
        for n in range(12)
    }  # fmt: skip
    data, run = label_free(corpus, kinds=["title", "sentence", "passage", "keywords"], count=8)
    assert len(data.queries) == 8
    for query, names in run.items():
        (answer,) = data.judgements[query]
        assert answer in names
        assert " " not in data.documents[answer].text


def test_near_copies_are_no_negatives():
    corpus = {**CORPUS, **{f"copy{n}": document(n) for n in range(30)}}
    data, run = label_free(corpus, kinds=["sentence"], count=20, depth=6)
    for query, names in run.items():
        (answer,) = data.judgements[query]
        source = answer.split("#")[0]
        twin = source.removeprefix("copy") if source.startswith("copy") else f"copy{source[1:]}"
        assert not any(name.split("#")[0] == twin for name in names)


def test_questions_are_written_by_the_function_given():
    data, _ = label_free(
        CORPUS, kinds=["question"], count=3, write=lambda text: f"what is {text[:9]}?"
    )
    assert all(text.startswith("what is ") for text in data.queries.values())


def test_mistakes():
    with pytest.raises(
        InputError, match="title, sentence, passage, keywords, heading, docstring, question"
    ):
        label_free(CORPUS, kinds=["abstract"])
    with pytest.raises(InputError, match="write="):
        label_free(CORPUS, kinds=["question"])
    with pytest.raises(InputError, match="none of 1 documents"):
        label_free({"a": Document("short")})
