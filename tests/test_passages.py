"""Passages in a ranking: as passages ranked by themselves, and folded by hand."""

from __future__ import annotations

import logging
import re

import pytest
from tiny import byte_tokenizer, tiny_model

pytest.importorskip("sentencex")

from icr_rag import Document, Reranker
from icr_rag.arguments import check_documents
from icr_rag.calls.rank_many import answer_together
from icr_rag.errors import InputError
from icr_rag.frameworks.combine import combine, rule_of
from icr_rag.frameworks.result import WindowedScores
from icr_rag.order import UNREAD, stable_order
from icr_rag.prompts import passages as splitting
from icr_rag.types import as_document

QUERY = "Which metal melts first?"
LIMIT = 60
DOCUMENTS = [
    Document("Oaks carry acorns in autumn. The shop opens at nine. Tin melts at 232 degrees. Why? "
             "Lead is soft and grey. Nobody knows when copper came.", id="a", metadata={"n": 1}),
    "Tin melts.",
    "",
    Document("Copper conducts heat well, which is why wires are made of it. Gold is heavy! "
             "Zinc does not rust.", title="On metals", id="b"),
    "The shop opens at nine. Tin melts at 232 degrees. Oaks carry acorns in autumn. Sand is fine.",
    Document("Tin melts.", id="again"),
]  # fmt: skip
LIKELIHOOD = {"scoring": "likelihood"}
KEPT = {"document_states": "independent"}
ATTENTION = {"framework": "pointwise", "layers": (1, 2)}
WEIGHTED = {**ATTENTION, "reading": "log_mass"}
MIXED = {"scoring": "mixed", "layers": (1, 2)}
YES_NO = {**LIKELIHOOD, "likelihood": "yes_no"}
#: Pointwise methods with a score of the document alone.
ALONE = [
    LIKELIHOOD, {**LIKELIHOOD, **KEPT}, YES_NO, ATTENTION, {**ATTENTION, **KEPT}, WEIGHTED,
    {**WEIGHTED, **KEPT}, MIXED, {**MIXED, **KEPT},
]  # fmt: skip
JOINT = {"framework": "listwise", "layers": (1, 2)}
#: Methods whose scores are of a list.
TOGETHER = [
    JOINT, {**JOINT, "window": 4}, {**JOINT, **KEPT}, {**JOINT, "document_states": "blind"},
    {"framework": "setwise", "layers": (1, 2), "set_size": 3, "sort_top": None},
    {**LIKELIHOOD, "framework": "pairwise", "sort_top": None},
    {**LIKELIHOOD, "framework": "setwise"}, {**LIKELIHOOD, "framework": "listwise"},
    {"scoring": "generation"}, {"scoring": "generation", "framework": "pointwise"},
]  # fmt: skip


def tiny(**fields):
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **fields)


def split_tiny(how="max", **fields):
    return tiny(passages=how, **{"passage_tokens": LIMIT, **fields})


def by_hand(document):
    """Its passages as texts, by slow obvious code: a byte is a token, a blank stands before."""
    document = as_document(document, 0)

    def tokens(text):
        return len((" " + Document(text, document.title).content).encode())

    if tokens(document.text) <= LIMIT:
        return [document.text]
    sentences = []
    for sentence in re.split(r"(?<=[.!?]) ", document.text):
        sentences += [sentence] if tokens(sentence) <= LIMIT else sentence.split(" ")
    found = [sentences[0]]
    for sentence in sentences[1:]:
        longer = f"{found[-1]} {sentence}"
        if tokens(longer) <= LIMIT:
            found[-1] = longer
        else:
            found.append(sentence)
    return found


TITLES = [as_document(document, 0).title for document in DOCUMENTS]
PARTS = [by_hand(document) for document in DOCUMENTS]
#: All of them, in order, as documents; and of each its document.
ALL = [Document(part, title) for parts, title in zip(PARTS, TITLES, strict=True) for part in parts]
OWNER = [index for index, parts in enumerate(PARTS) for _ in parts]


def shown(hit):
    text = hit.document.text
    return text if hit.passage is None else text[slice(*hit.passage)]


def test_the_slow_code_splits():
    assert [len(parts) for parts in PARTS] == [3, 1, 1, 2, 2, 1]
    # The long sentence is cut between words.
    assert PARTS[3][0] == "Copper conducts heat well, which is why wires are"


@pytest.mark.parametrize("how", ["max", "top2"])
@pytest.mark.parametrize("fields", ALONE, ids=str)
def test_it_equals_passages_scored_one_by_one(fields, how):
    joint = {name: value for name, value in fields.items() if name != "document_states"}
    alone = tiny(score_mode="explained", **joint)
    scores = [[alone.rank(QUERY, [Document(part, title)]).scores[0] for part in parts]
              for parts, title in zip(PARTS, TITLES, strict=True)]  # fmt: skip
    best = [sorted(own, reverse=True)[: 2 if how == "top2" else 1] for own in scores]
    wanted = [sum(own) / len(own) for own in best]
    ranker = split_tiny(how, score_mode="explained", **fields)
    # Cold, and with what was kept.
    for _ in range(2):
        ranking = ranker.rank(QUERY, DOCUMENTS)
        assert ranking.scores == pytest.approx(wanted, abs=1e-5)
        assert ranking.scores[2] == UNREAD
        for hit in ranking:
            parts = PARTS[hit.index]
            assert shown(hit) == parts[scores[hit.index].index(max(scores[hit.index]))]
            assert (hit.passage is None) == (len(parts) == 1)
        assert ranking.usage.truncated == ()
        distinct = {(document.title, document.text) for document in ALL if document.text}
        assert ranking.usage.passages == len(distinct)
    # In lists of one: what else is in a list does not count.
    for index, document in enumerate(DOCUMENTS):
        one = ranker.rank(QUERY, [document])
        assert one.scores == pytest.approx([wanted[index]], abs=1e-5)


def test_a_document_that_is_shared_out_over_lists_keeps_its_score():
    ranker = split_tiny("top2", score_mode="explained", **LIKELIHOOD)
    many = [f"{text} Number {i}." for i in range(5)
            for text in (DOCUMENTS[0].text, DOCUMENTS[4], "Tin.")]  # fmt: skip
    whole = ranker.rank(QUERY, many).scores
    eights = [ranker.rank(QUERY, many[begin : begin + 8]).scores for begin in (0, 8)]
    assert [score for part in eights for score in part] == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize("fields", TOGETHER, ids=str)
def test_the_best_place_of_a_passage_counts(fields):
    plain = tiny(fusion="none", **fields).rank(QUERY, ALL)
    found = split_tiny(fusion="none", **fields).rank(QUERY, DOCUMENTS)
    first = {}
    for hit in plain:
        first.setdefault(OWNER[hit.index], hit)
    # The two with one text share a place, in input order.
    order = sorted(first, key=lambda index: ([hit.index for hit in plain].index(
        next(h.index for h in plain if ALL[h.index].content == first[index].document.content)
    ), index))  # fmt: skip
    assert [hit.index for hit in found] == order
    for hit in found:
        if hit.index != 2:
            best = first[hit.index]
            assert hit.score == pytest.approx(best.score, abs=1e-5)
            assert shown(hit) == best.document.text
            assert found.score_groups[hit.index] == plain.score_groups[best.index]
    scores = [hit.score for hit in found]
    assert scores == sorted(scores, reverse=True)


def test_the_two_best_are_of_one_window():
    fields = {**JOINT, "window": 4, "fusion": "none"}
    plain = tiny(**fields).rank(QUERY, ALL)
    found = split_tiny("top2", **fields).rank(QUERY, DOCUMENTS)
    assert len(set(found.score_groups)) > 2
    for index in (0, 3, 4):
        own = sorted(
            (i for i, owner in enumerate(OWNER) if owner == index), key=lambda i: -plain.scores[i]
        )
        group = plain.score_groups[own[0]]
        assert found.score_groups[index] == group
        same = [plain.scores[i] for i in own if plain.score_groups[i] == group][:2]
        if found[0].index == index:
            assert found.scores[index] == pytest.approx(sum(same) / len(same), abs=1e-5)
    scores = [hit.score for hit in found]
    assert scores == sorted(scores, reverse=True)


# --- what comes after ------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", ["prior", "rrf", "weighted"])
def test_the_first_stage_counts_documents(fusion):
    given = [0.1, 0.9, 0.3, 0.8, 0.2, 0.5]
    plain = split_tiny(fusion="none", **LIKELIHOOD).rank(QUERY, DOCUMENTS)
    found = split_tiny(fusion=fusion, **LIKELIHOOD).rank(QUERY, DOCUMENTS, retrieval_scores=given)
    # Blank: 2; 5 repeats 1.
    places = [0, 1, 3, 4]
    scores = [plain.scores[place] for place in places]
    ranked = WindowedScores(stable_order(scores), scores, [0] * 4)
    first = {"scores": [given[place] for place in places]}
    wanted = combine(ranked, rule_of(fusion, 0.5, 0.0, first))
    assert [found.scores[place] for place in places] == pytest.approx(wanted.scores)
    assert found.scores[5] == found.scores[1]


def test_score_modes_are_of_documents():
    assert sum(split_tiny(score_mode="share", **JOINT).rank(QUERY, DOCUMENTS[:2]).scores) == (
        pytest.approx(1)
    )
    places = split_tiny(score_mode="rank", **JOINT).rank(QUERY, DOCUMENTS)
    assert [hit.score for hit in places] == pytest.approx([1 / n for n in range(1, 7)])
    lift = split_tiny(score_mode="lift", **JOINT).rank(QUERY, DOCUMENTS)
    plain = tiny(score_mode="lift", **JOINT).rank(QUERY, ALL)
    own = [score for score, owner in zip(plain.scores, OWNER, strict=True) if owner == 0]
    assert lift.scores[0] == pytest.approx(max(own), abs=1e-5)


def test_what_is_left_out_is_left_out_by_documents():
    ranker = split_tiny(near_duplicates=1.0, top_n=2, **LIKELIHOOD)
    found = ranker.rank(QUERY, DOCUMENTS)
    assert len(found) == 2
    assert found.duplicates == {5: 1}
    least = sorted(found.scores)[3]
    kept = split_tiny(score_threshold=least, **LIKELIHOOD).rank(QUERY, DOCUMENTS)
    assert {hit.index for hit in kept} == {i for i, s in enumerate(found.scores) if s >= least}


@pytest.mark.parametrize("how", ["max", "top2"])
@pytest.mark.parametrize("second", ["listwise", "pointwise"])
def test_a_cascade_reads_the_best_passages_again(second, how):
    fields = {**LIKELIHOOD, **KEPT, "fusion": "none", "layers": (1, 2), "cascade": 3,
              "cascade_framework": second}  # fmt: skip
    first = split_tiny(how, **LIKELIHOOD, fusion="none").rank(QUERY, DOCUMENTS)
    chosen = [hit for hit in first if hit.index != 5][:3]
    best = [Document(shown(hit), hit.document.title) for hit in chosen]
    again = tiny(framework=second, layers=(1, 2), fusion="none").rank(QUERY, best)
    found = split_tiny(how, **fields).rank(QUERY, DOCUMENTS)
    order = [hit.index for hit in found if hit.index != 5]
    assert order[:3] == [chosen[hit.index].index for hit in again]
    assert [shown(hit) for hit in found if hit.index != 5][:3] == [
        best[hit.index].text for hit in again
    ]
    assert found.usage.truncated == ()


def test_two_documents_with_one_best_passage_are_read_again_as_one():
    one, two = (f"{name} is known for this and that, and for being soft." for name in "XY")
    texts = [f"{one} {two}", f"{two} {one}"]
    ranker = split_tiny(**LIKELIHOOD, **KEPT, cascade=3, layers=(1, 2), fusion="none")
    found = ranker.rank(QUERY, [*texts, "Lead is soft."])
    assert shown(found[0]) == shown(found[1])
    assert found.scores[0] == found.scores[1]
    assert [hit.index for hit in found if hit.index < 2] == [0, 1]


# --- states, many queries, limits ------------------------------------------------------------


def test_states_are_of_passages():
    ranker = split_tiny(**LIKELIHOOD, **KEPT, states_memory=64)
    shared = "Tin melts at 232 degrees, and it is the first one of all."
    texts = [f"Unlike others {i}, this one is about metals. {shared}" for i in range(3)]
    assert all(len(by_hand(text)) == 2 for text in texts)
    done = ranker.encode([*texts, "", texts[0]])
    assert (done.documents, done.truncated) == (4, ())
    assert ranker.encode(texts).new == 0
    ranking = ranker.rank(QUERY, texts)
    # The query for each passage, and no token of any.
    assert ranking.usage.tokens == 4 * len(f" {QUERY}")
    assert ranking.usage.passages == 4


@pytest.mark.parametrize("fields", [
    {**JOINT, "document_states": "blind"}, {**JOINT, **KEPT}, LIKELIHOOD,
], ids=str)  # fmt: skip
def test_many_queries_agree_with_one_and_split_once(fields, monkeypatch):
    calls = []
    sentences = splitting.sentences
    monkeypatch.setattr(splitting, "sentences", lambda text: calls.append(text) or sentences(text))
    ranker = split_tiny(**fields)
    queries = [QUERY, "What is soft?", "When does the shop open?"]
    many = ranker.rank_many(queries, [DOCUMENTS] * 3)
    assert len(calls) == 3
    for query, found in zip(queries, many, strict=True):
        alone = split_tiny(**fields).rank(query, DOCUMENTS)
        assert found.scores == pytest.approx(alone.scores, abs=1e-5)
        assert [hit.passage for hit in found] == [hit.passage for hit in alone]
        assert found.usage.passages == alone.usage.passages
    if fields is not LIKELIHOOD:
        given = check_documents(DOCUMENTS)
        answered = answer_together(ranker.scorer, ranker.config, queries, given)
        # What one pass was over.
        assert len(answered._documents) == many[0].usage.passages


def test_cutting_comes_before_splitting():
    whole = split_tiny(**LIKELIHOOD).rank(QUERY, DOCUMENTS)
    cut = split_tiny(**LIKELIHOOD, max_document_tokens=100).rank(QUERY, DOCUMENTS)
    assert cut.usage.truncated == (0, 3)
    assert cut.usage.passages < whole.usage.passages
    text = DOCUMENTS[0].text
    by_itself = split_tiny(**LIKELIHOOD).rank(QUERY, [text[:99], *DOCUMENTS[1:]])
    assert cut.scores[0] == pytest.approx(by_itself.scores[0], abs=1e-6)
    for hit in cut:
        assert hit.passage is None or hit.passage[1] < 100
    states = split_tiny(**LIKELIHOOD, **KEPT, max_document_tokens=100)
    assert states.encode(DOCUMENTS).truncated == (0, 3)


@pytest.mark.parametrize("fields", [LIKELIHOOD, JOINT, {**LIKELIHOOD, **KEPT}], ids=str)
async def test_a_call_may_limit_tokens(fields, caplog):
    plain = tiny(**fields)
    wanted = plain.with_config(max_document_tokens=20).rank(QUERY, DOCUMENTS)
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        found = plain.rank(QUERY, DOCUMENTS, max_tokens_per_doc=20)
    assert "max_tokens_per_doc=20" in caplog.text
    again = await plain.arank(QUERY, DOCUMENTS, max_tokens_per_doc=20)
    assert found.scores == again.scores == wanted.scores
    assert found.usage.truncated == wanted.usage.truncated == (0, 3, 4)
    # The smaller of the two.
    both = plain.with_config(max_document_tokens=20)
    assert both.rank(QUERY, DOCUMENTS, max_tokens_per_doc=99).scores == wanted.scores
    assert plain.rank(QUERY, DOCUMENTS, max_tokens_per_doc=999).usage.truncated == ()
    # With passages: as the setting, and down to no more than one of them.
    split = split_tiny(**fields)
    by_setting = split.with_config(max_document_tokens=100).rank(QUERY, DOCUMENTS)
    by_call = split.rank(QUERY, DOCUMENTS, max_tokens_per_doc=100)
    assert by_call.scores == pytest.approx(by_setting.scores, abs=1e-5)
    assert by_call.usage.truncated == by_setting.usage.truncated
    few = split.rank(QUERY, DOCUMENTS, max_tokens_per_doc=20)
    assert few.scores == pytest.approx(wanted.scores, abs=1e-5)
    assert few.usage.truncated == (0, 3, 4)
    assert all(hit.passage is None for hit in few)


def test_a_second_reading_keeps_to_a_calls_limit():
    fields = {**LIKELIHOOD, **KEPT, "cascade": 3, "layers": (1, 2)}
    wanted = tiny(**fields, max_document_tokens=20).rank(QUERY, DOCUMENTS)
    found = tiny(**fields).rank(QUERY, DOCUMENTS, max_tokens_per_doc=20)
    assert found.scores == wanted.scores


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "9", True, float("nan")])
def test_a_limit_that_is_none_is_an_error(wrong):
    with pytest.raises(InputError, match=r"max_tokens_per_doc=.*whole numbers from 1"):
        tiny(on_error="passthrough").rank(QUERY, DOCUMENTS, max_tokens_per_doc=wrong)


def test_passages_that_a_prompt_has_no_room_for_are_told():
    around = len("Passage:\nPlease write a question based on this passage.\nQuestion:") + 30
    found = split_tiny(**LIKELIHOOD, token_budget=around + 40).rank(QUERY, DOCUMENTS)
    assert found.usage.truncated
    assert set(found.usage.truncated) <= {0, 3, 4}
