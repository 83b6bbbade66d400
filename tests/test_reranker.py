"""The reranker as its users meet it: input, output, long lists, threads, failures."""

from __future__ import annotations

import asyncio
import copy
import itertools
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import byte_tokenizer, tiny_model

from icr_rag import Document, Reranker
from icr_rag.errors import (
    InputError,
    PromptTooLongError,
)
from icr_rag.scoring import joint_attention as scoring_attention

TEXTS = ["Tin melts at 232 degrees.", "Lead is soft.", "Copper conducts heat well.", "Zinc."]
QUERY = "Which metal melts first?"


def tiny(**fields):
    fields = {"layers": (1, 2), **fields}
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **fields)


# --- input and output -------------------------------------------------------------------------


def test_documents_of_every_kind_rank_alike():
    reranker = tiny()
    documents = [
        TEXTS[0],
        Document(TEXTS[1], id="lead", metadata={"a": [1]}),
        {"text": "conducts heat well.", "title": "Copper", "_id": 3},
        {"text": TEXTS[3], "metadata": {"b": 2}},
    ]
    before = copy.deepcopy(documents)
    ranking = reranker.rank(QUERY, documents)
    assert documents == before
    texts = [TEXTS[0], TEXTS[1], "Copper\nconducts heat well.", TEXTS[3]]
    assert ranking.scores == reranker.rank(QUERY, texts).scores
    by_index = {hit.index: hit.document for hit in ranking}
    assert by_index[1] is documents[1]
    assert (by_index[2].id, by_index[2].title) == ("3", "Copper")
    assert by_index[3].metadata == {"b": 2}


@settings(max_examples=60)
@given(
    documents=st.lists(
        st.text(max_size=30) | st.sampled_from(["", " \n", "x", "x", "<|im_end|>"]), max_size=8
    ),
    query=st.text(min_size=1, max_size=20).filter(str.strip),
    top_n=st.none() | st.integers(0, 10),
    order=st.sampled_from(["best_last", "given"]),
    window=st.none() | st.integers(2, 4),
)
def test_any_list_gives_a_ranking(documents, query, top_n, order, window):
    reranker = tiny(order=order, window=window)
    ranking = reranker.rank(query, documents, top_n)
    assert len(ranking.scores) == len(ranking.score_groups) == len(documents)
    assert all(type(score) is float and math.isfinite(score) for score in ranking.scores)
    assert len(ranking) == (len(documents) if top_n is None else min(top_n, len(documents)))
    indices = [hit.index for hit in ranking]
    assert len(set(indices)) == len(indices)
    for hit in ranking:
        assert hit.score == ranking.scores[hit.index]
        assert hit.document.text == documents[hit.index]
    full = [hit.index for hit in reranker.rank(query, documents, len(documents))]
    assert indices == full[: len(indices)]
    for a, b in itertools.pairwise(full):
        blank_a, blank_b = not documents[a].strip(), not documents[b].strip()
        assert blank_a <= blank_b  # blank documents come last
        if blank_a == blank_b and documents[a] == documents[b]:
            assert a < b  # the same content keeps input order
        if ranking.comparable:
            assert ranking.scores[a] >= ranking.scores[b]


def test_same_content_is_read_once_and_shares_a_score():
    reranker = tiny()
    ranking = reranker.rank(QUERY, [TEXTS[0], TEXTS[1], TEXTS[0], TEXTS[0]])
    assert ranking.scores[0] == ranking.scores[2] == ranking.scores[3]
    assert ranking.usage.tokens == reranker.rank(QUERY, TEXTS[:2]).usage.tokens
    assert [hit.index for hit in ranking if hit.index != 1] == [0, 2, 3]


def test_nothing_to_rank_loads_nothing():
    reranker = Reranker(model="no/such-model", local_files_only=True)
    assert len(reranker.rank(QUERY, [])) == 0
    ranking = reranker.rank(QUERY, ["", "  "])
    assert [hit.index for hit in ranking] == [0, 1]
    assert ranking.scores == (0.0, 0.0)


def test_one_token_and_unknown_characters():
    ranking = tiny().rank(QUERY, ["x", "y", ""])
    assert ranking[-1].index == 2
    assert ranking.scores[2] < min(ranking.scores[:2])
    assert ranking.score_groups == (0, 0, -1)
    assert ranking.comparable


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.rank("  ", TEXTS), "query is blank"),
        (lambda r: r.rank(None, TEXTS), "query is a NoneType"),
        (lambda r: r.rank(QUERY, "one text"), "documents is a str"),
        (lambda r: r.rank(QUERY, None), "documents is a NoneType"),
        (lambda r: r.rank(QUERY, [1]), "document 0 is a int"),
        (lambda r: r.rank(QUERY, ["a", {"body": "b"}]), "document 1 is a mapping without 'text'"),
        (lambda r: r.rank(QUERY, [{"text": None}]), "document 0 has a text of type NoneType"),
        (lambda r: r.rank(QUERY, [Document("a", title=3)]), "title of type int"),
        (lambda r: r.rank(QUERY, TEXTS, -1), "top_n=-1"),
        (lambda r: r.rank(QUERY, TEXTS, True), "top_n=True"),
        (lambda r: r.rank_many([QUERY], []), "1 queries and 0 document lists"),
        (lambda r: r.rank_many(QUERY, [[]]), "one string"),
        (lambda r: r.read_attention(QUERY, [""]), "at least one document"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call(tiny())


def test_top_n_of_the_call_goes_before_the_configurations():
    reranker = tiny(top_n=2)
    assert len(reranker.rank(QUERY, TEXTS)) == 2
    assert len(reranker.rank(QUERY, TEXTS, 3)) == 3
    assert len(reranker.rank(QUERY, TEXTS, 0)) == 0
    assert len(reranker.rank(QUERY, TEXTS, 99)) == 4


def test_rank_many():
    reranker = tiny()
    many = reranker.rank_many([QUERY, "What is soft?"], [TEXTS, TEXTS[:2]])
    assert [m.scores for m in many] == [
        reranker.rank(QUERY, TEXTS).scores,
        reranker.rank("What is soft?", TEXTS[:2]).scores,
    ]


# --- long lists and long texts ----------------------------------------------------------------


def test_thousands_of_documents_go_through_windows():
    documents = [f"Document number {i}." for i in range(2000)]
    ranking = tiny().rank(QUERY, documents)
    assert sorted(hit.index for hit in ranking) == list(range(2000))
    assert ranking.usage.windows > 10
    assert not ranking.comparable
    assert ranking.usage.truncated == ()


def test_a_long_document_is_cut_and_reported():
    long = "word " * 10_000
    ranking = tiny().rank(QUERY, [TEXTS[0], long, TEXTS[1]])
    assert ranking.usage.truncated == (1,)
    assert ranking.comparable or ranking.usage.windows > 1
    ranking = tiny(max_document_tokens=14).rank(QUERY, TEXTS)
    assert ranking.usage.truncated == (0, 2)


def test_cut_documents_score_as_if_given_cut():
    cut = tiny(max_document_tokens=10).rank(QUERY, TEXTS)
    assert cut.scores == tiny().rank(QUERY, [text[:9] for text in TEXTS]).scores


def test_a_long_query_is_an_error_unless_a_limit_is_set():
    long = "why " * 2000
    with pytest.raises(PromptTooLongError, match="max_query_tokens"):
        tiny().rank(long, TEXTS)
    ranking = tiny(max_query_tokens=20).rank(long, TEXTS)
    assert ranking.usage.query_truncated
    assert ranking.scores == tiny().rank(long[:19], TEXTS).scores
    assert not tiny(max_query_tokens=99).rank(QUERY, TEXTS).usage.query_truncated


def test_token_budget_bounds_every_prompt(monkeypatch):
    lengths = []
    original = scoring_attention.read_tails

    def spy(decoder, prefix_ids, tails, *args, **kwargs):
        lengths.append(len(prefix_ids) + max(len(tail.token_ids) for tail in tails))
        return original(decoder, prefix_ids, tails, *args, **kwargs)

    monkeypatch.setattr(scoring_attention, "read_tails", spy)
    ranking = tiny(token_budget=260).rank(
        QUERY, TEXTS * 5 + [f"{i} {t}" for i, t in enumerate(TEXTS)]
    )
    assert len(lengths) == ranking.usage.windows > 1
    assert max(lengths) <= 260
    with pytest.raises(PromptTooLongError, match="one prompt holds 260"):
        tiny(token_budget=260).read_attention(QUERY, [f"{i} {TEXTS[0]}" for i in range(9)])


def test_windowed_ranking_is_right_when_scores_do_not_compare():
    documents = [f"{i} {text}" for i in range(5) for text in TEXTS]
    ranking = tiny(window=6, stride=3).rank(QUERY, documents)
    # Within each window's group the order follows the scores.
    for group in set(ranking.score_groups):
        members = [hit.score for hit in ranking if ranking.score_groups[hit.index] == group]
        assert members == sorted(members, reverse=True)
    assert len(set(ranking.score_groups)) > 1


# --- one engine, many users -------------------------------------------------------------------


def test_32_threads_give_the_scores_of_one():
    reranker = tiny()
    lists = [[f"{i} {text}" for text in TEXTS] for i in range(32)]
    expected = [reranker.rank(QUERY, documents).scores for documents in lists]
    fresh = tiny()
    with ThreadPoolExecutor(32) as pool:
        calls = [pool.submit(fresh.rank, QUERY, documents) for documents in lists]
    assert [call.result().scores for call in calls] == expected


def test_async_equals_sync_and_can_be_cancelled():
    reranker = tiny()
    expected = reranker.rank(QUERY, TEXTS).scores

    async def main():
        first = asyncio.create_task(reranker.arank(QUERY, TEXTS))
        cancelled = asyncio.create_task(reranker.arank(QUERY, TEXTS))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        return [(await first).scores, (await reranker.arank(QUERY, TEXTS)).scores]

    assert asyncio.run(main()) == [expected, expected]


def state_of(model):
    config = dict(vars(model.config))
    tree = [(name, id(module), module.training) for name, module in model.named_modules()]
    tensors = [(name, id(p), p.data_ptr()) for name, p in model.named_parameters()]
    extra = {name: sorted(vars(module)) for name, module in model.named_modules()}
    return config, tree, tensors, extra, model.config._attn_implementation


def test_a_model_handed_in_is_not_changed(family, tokenizer):
    _, model = family
    ids = torch.tensor([tokenizer(QUERY)["input_ids"]])
    before, logits = state_of(model), model(ids).logits
    reranker = Reranker.from_model(model, tokenizer, layers=(1, 2))
    reranker.rank(QUERY, TEXTS)
    assert state_of(model) == before
    assert torch.equal(model(ids).logits, logits)


def test_an_exception_in_the_middle_leaves_everything_usable(tokenizer):
    model = copy.deepcopy(tiny_model("llama"))
    reranker = Reranker.from_model(model, tokenizer, layers=(1, 2))
    expected, before = reranker.rank(QUERY, TEXTS).scores, state_of(model)

    def fail(*_):
        raise RuntimeError("in the middle")

    handle = model.model.layers[1].mlp.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        reranker.rank(QUERY, TEXTS)
    handle.remove()
    assert state_of(model) == before
    assert reranker.rank(QUERY, TEXTS).scores == expected
    model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=2, do_sample=False)


def test_layers_above_the_last_one_are_not_run(tokenizer):
    model = copy.deepcopy(tiny_model("llama"))
    reranker = Reranker.from_model(model, tokenizer, layers=(1, 2))
    # The model has proven itself; that takes passes of its own.
    reranker.warm_up()
    runs = {}
    for number, layer in enumerate(model.model.layers):
        for name in ("input_layernorm", "mlp"):
            getattr(layer, name).register_forward_hook(
                lambda *_, key=(number, name): runs.update({key: runs.get(key, 0) + 1})
            )
    model.lm_head.register_forward_hook(lambda *_: pytest.fail("the LM head was run"))
    reranker.rank(QUERY, TEXTS)
    # One pass for the documents and one for both tails; of the last layer only the front.
    assert runs == {
        (0, "input_layernorm"): 2,
        (0, "mlp"): 2,
        (1, "input_layernorm"): 2,
        (1, "mlp"): 2,
        (2, "input_layernorm"): 2,
    }


def test_generation_in_another_thread_is_not_disturbed(tokenizer):
    model = tiny_model("qwen3")
    ids = torch.tensor([[5, 6, 7, 8]])

    def generate():
        return model.generate(ids, max_new_tokens=20, do_sample=False).tolist()

    expected, reranker = generate(), Reranker.from_model(model, tokenizer, layers=(1, 2))
    stop = threading.Event()

    def rerank():
        while not stop.is_set():
            reranker.rank(QUERY, TEXTS)

    thread = threading.Thread(target=rerank)
    thread.start()
    try:
        assert all(generate() == expected for _ in range(5))
    finally:
        stop.set()
        thread.join()


def test_rerankers_on_one_model_share_its_lock(llama, tokenizer):
    one = Reranker.from_model(llama, tokenizer, layers=(0, 0))
    two = Reranker.from_model(llama, tokenizer, layers="all")
    assert one.engine.lock is two.engine.lock
