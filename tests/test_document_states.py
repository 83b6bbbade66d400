"""Document states: what is kept gives the scores that reading everything anew gives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import FAMILIES, byte_tokenizer, tiny_model

from icr_rag import Reranker
from icr_rag.errors import ConfigError, DeviceMemoryError
from icr_rag.model.forward import read_tails
from icr_rag.model.reading import TokenReader
from icr_rag.states import opening as kept_states
from icr_rag.states.shared_tail import run_shared_tail

QUERY = "what is b?"
DOCUMENTS = ["abc def", "hello there, this one is longer " * 3, "zzz", "b is a letter", "é ü"]
KEPT = {"document_states": "independent"}
WAYS = {
    "attention": {"framework": "pointwise", "layers": (1, 2)},
    "heads": {"framework": "pointwise", "heads": ((0, 1), (2, 0)), "reading": "log_mass"},
    "lift": {"framework": "pointwise", "heads": ((0, 1), (2, 0)), "reading": "lift"},
    "likelihood": {"scoring": "likelihood"},
    "mixed": {"scoring": "mixed"},
}


def reranker(name="llama", **fields):
    # As in a process of its own: rerankers on the same weights share what is kept.
    kept_states._stores.clear()
    return Reranker.from_model(tiny_model(name), byte_tokenizer(), **fields)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("way", WAYS)
def test_kept_states_give_the_scores_of_running_everything(name, way):
    fresh = reranker(name, **WAYS[way]).rank(QUERY, DOCUMENTS)
    keeping = reranker(name, **WAYS[way], **KEPT)
    cold, warm = keeping.rank(QUERY, DOCUMENTS), keeping.rank(QUERY, DOCUMENTS)
    # Mixed scores are divided by the spread over the documents.
    tolerance = 2e-3 if way == "mixed" else 1e-4
    assert cold.scores == pytest.approx(fresh.scores, abs=tolerance)
    assert warm.scores == cold.scores
    tails = cold.usage.tokens - warm.usage.tokens
    assert tails > sum(len(text) for text in DOCUMENTS)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("double_query", [False, True])
def test_one_document_reads_as_the_prompt_from_left_to_right(name, double_query):
    keeping = reranker(name, framework="listwise", layers=(1, 2), double_query=double_query, **KEPT)
    scorer = keeping.scorer
    prompts = scorer.prompts
    prompt = prompts.build_independent(
        [prompts.encode_query(QUERY)], prompts.encode_documents(DOCUMENTS[1:2])
    )
    reader = TokenReader({1: None, 2: None})
    run_shared_tail(scorer.engine, scorer.states, prompt, [1, 2], reader)
    prefix = [*prompt.head_ids, *prompt.bodies[0], *prompt.stem_ids]
    plain = read_tails(scorer.engine.decoder, prefix, prompt.tails, [1, 2], chunk=4096)
    for number, expected in enumerate(plain):
        for place, layer in enumerate((1, 2)):
            found = reader.readings[layer][number]
            torch.testing.assert_close(found, expected[place], atol=1e-5, rtol=1e-4)


@settings(max_examples=30)
@given(
    name=st.sampled_from(["llama", "gemma3"]),
    way=st.sampled_from([*WAYS, "shared"]),
    texts=st.lists(st.text("abcé .", min_size=1, max_size=60), min_size=2, max_size=6, unique=True),
    order=st.randoms(use_true_random=False),
)
def test_the_order_of_the_candidates_changes_not_a_bit(name, way, texts, order):
    fields = {"framework": "listwise", "layers": (1, 2)} if way == "shared" else WAYS[way]
    keeping = reranker(name, **fields, **KEPT)
    first = dict(zip(texts, keeping.rank(QUERY, texts).scores, strict=True))
    mixed = list(texts)
    order.shuffle(mixed)
    again = reranker(name, **fields, **KEPT).rank(QUERY, mixed).scores
    tolerance = 1e-9 if way in ("mixed", "heads", "lift") else 0
    for text, score in zip(mixed, again, strict=True):
        if text.strip():
            assert score == pytest.approx(first[text], abs=tolerance, rel=0)


@pytest.mark.parametrize("way", ["attention", "likelihood"])
def test_scores_of_a_document_do_not_depend_on_the_others(way):
    keeping = reranker(**WAYS[way], **KEPT)
    together = keeping.rank(QUERY, DOCUMENTS).scores
    alone = [keeping.rank(QUERY, [text]).scores[0] for text in DOCUMENTS]
    assert together == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("way", [*WAYS, "shared"])
def test_encoding_ahead_of_time(way):
    fields = {"framework": "listwise", "layers": (1, 2)} if way == "shared" else WAYS[way]
    keeping = reranker(**fields, **KEPT)
    seen = []
    done = keeping.encode([*DOCUMENTS, DOCUMENTS[0], "  "], lambda *pair: seen.append(pair))
    assert (done.documents, done.new, done.truncated) == (len(DOCUMENTS), len(DOCUMENTS), ())
    assert seen[-1] == (len(DOCUMENTS), len(DOCUMENTS))
    assert keeping.encode(DOCUMENTS).new == 0
    ahead = keeping.rank(QUERY, DOCUMENTS)
    fresh = reranker(**fields, **KEPT).rank(QUERY, DOCUMENTS)
    assert ahead.scores == fresh.scores
    assert ahead.usage.tokens == fresh.usage.tokens - done.tokens


def test_documents_are_cut_as_in_a_ranking():
    keeping = reranker(max_document_tokens=6, **WAYS["likelihood"], **KEPT)
    done = keeping.encode(["abc", "much longer than six", "abc"])
    assert done.truncated == (1,)
    ranking = keeping.rank(QUERY, ["abc", "much longer than six"])
    assert ranking.usage.tokens < 2 * 40
    assert keeping.encode(["much longer still"]).new == 0  # the same tokens, once cut


@pytest.mark.parametrize(
    "fields",
    [
        {"scoring": "generation"},
        {"scoring": "likelihood", "likelihood": "yes_no"},
        {"scoring": "likelihood", "framework": "setwise"},
        {"framework": "setwise"},
        {"framework": "listwise", "order": "given"},
    ],
)
def test_what_cannot_be_kept_is_an_error(fields):
    with pytest.raises(ConfigError):
        Reranker(**fields, **KEPT)


@pytest.mark.parametrize("name", ["states_dir", "states_dtype", "states_memory"])
def test_settings_of_states_without_states_are_an_error(name):
    value = {"states_dir": "x", "states_dtype": "int8", "states_memory": 7}[name]
    with pytest.raises(ConfigError, match=f"{name}.*independent"):
        Reranker(**{name: value})


def test_encode_without_states_is_an_error():
    with pytest.raises(ConfigError, match="document_states='independent'"):
        reranker().encode(["a"])


def test_long_lists_do_not_use_up_the_context():
    keeping = reranker(framework="listwise", layers=(1, 2), **KEPT)
    texts = [f"document {n} with some words in it" for n in range(120)]
    ranking = keeping.rank(QUERY, texts)
    assert ranking.usage.windows == 1
    assert len(ranking) == 120


def in_batches(monkeypatch, states):
    """As on an accelerator."""
    groups = states._groups
    monkeypatch.setattr(states, "_groups", lambda bodies, **_: groups(bodies, alone=False))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("last", [2, None])
def test_documents_encoded_in_a_batch_have_the_states_of_each_alone(name, last, monkeypatch):
    alone, together = (reranker(name, **WAYS["likelihood"], **KEPT) for _ in range(2))
    bodies = [list(range(5, 9)), list(range(3, 40)), list(range(7, 9)), list(range(40, 60))]
    found = []
    for one in (alone, together):
        states = one.scorer.states
        states.last, states._depth = last, 4 if last is None else last + 1
        if one is together:
            in_batches(monkeypatch, states)
            assert [len(group) for group in states._groups(dict(enumerate(bodies)))] == [4]
        found.append(states.states(bodies)[0])
    for one, other in zip(*found, strict=True):
        assert len(one.keys) == len(other.keys)
        for kept in ("keys", "values"):
            for mine, its in zip(getattr(one, kept), getattr(other, kept), strict=True):
                torch.testing.assert_close(mine, its, atol=1e-5, rtol=1e-5)


def test_too_little_memory_to_encode(monkeypatch):
    from icr_rag.states import document_states

    run_pass = document_states.run_pass

    def small(model, current, rows, *rest):
        if len(rows) * len(rows[0]) > 70:
            raise torch.OutOfMemoryError("no room")
        return run_pass(model, current, rows, *rest)

    expected = reranker(**WAYS["likelihood"], **KEPT).rank(QUERY, DOCUMENTS).scores
    keeping = reranker(**WAYS["likelihood"], **KEPT)
    in_batches(monkeypatch, keeping.scorer.states)
    monkeypatch.setattr(document_states, "run_pass", small)
    assert keeping.rank(QUERY, DOCUMENTS).scores == pytest.approx(expected, abs=1e-4)
    assert keeping.scorer.engine.chunk <= 70


@pytest.mark.parametrize("states", ["independent", "blind"])
def test_a_tail_that_does_not_fit_is_an_error_of_ours(states, monkeypatch):
    from icr_rag.states import blind_tail, shared_tail

    def full(*_):
        raise torch.OutOfMemoryError("no room")

    keeping = reranker(framework="listwise", layers=(1, 2), document_states=states)
    keeping.encode(DOCUMENTS)
    for module in (blind_tail, shared_tail):
        monkeypatch.setattr(module, "run_pass", full)
    with pytest.raises(DeviceMemoryError, match=r"tokens of documents.*token_budget"):
        keeping.rank(QUERY, DOCUMENTS)
