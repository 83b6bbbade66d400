"""Likelihoods equal a direct computation, sequence by sequence, on the model itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker
from icr_rag.errors import NonFiniteScoreError, UnsupportedModelError
from icr_rag.scoring.base import Cost
from icr_rag.scoring.label_tokens import LabelTokens

TOLERANCE = 1e-4
QUERY = "Which metal melts first?"
DOCUMENTS = [
    "Tin melts at 232 degrees.",
    "Lead is soft.",
    "Copper conducts heat well, which is why wires are made of it.",
    "Gold.",
]


def log_likelihood(model, prompt, continuation):
    """log P of each token of ``continuation``, from one plain forward pass."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *continuation]]), use_cache=False).logits[0]
    rows = logits[len(prompt) - 1 : -1].float().log_softmax(-1)
    return rows[torch.arange(len(continuation)), torch.tensor(continuation)]


def prompts_of(scorer, batch):
    return [[*batch.head_ids, *body] for body in batch.bodies]


def inputs(scorer, documents=DOCUMENTS, query=QUERY):
    return scorer.prompts.encode_query(query), scorer.prompts.encode_documents(documents)


def test_query_likelihood_equals_the_direct_computation(family, tokenizer):
    _, model = family
    reranker = Reranker.from_model(model, tokenizer, scoring="likelihood")
    scorer = reranker.scorer
    query, documents = inputs(scorer)
    batch = scorer.prompts.build(query, documents)
    wanted = [float(log_likelihood(model, p, query).mean()) for p in prompts_of(scorer, batch)]
    assert list(reranker.rank(QUERY, DOCUMENTS).scores) == pytest.approx(wanted, abs=TOLERANCE)


@pytest.mark.parametrize("states", ["joint", "independent"])
def test_likelihood_of_a_single_token(states):
    model = tiny_model("llama")
    reranker = Reranker.from_model(
        model, byte_tokenizer(), scoring="likelihood", document_states=states
    )
    scorer = reranker.scorer
    query, documents = inputs(scorer)
    batch = scorer.prompts.build(query, documents)
    wanted = [float(log_likelihood(model, p, query[:1])) for p in prompts_of(scorer, batch)]
    assert scorer.score_each(query[:1], documents, Cost()) == pytest.approx(wanted, abs=TOLERANCE)


@pytest.mark.parametrize("template", ["chat", "qwen3_reranker"])
def test_yes_no_equals_the_direct_computation(family, tokenizer, template):
    _, model = family
    reranker = Reranker.from_model(
        model, tokenizer, scoring="likelihood", likelihood="yes_no", yes_no_template=template
    )
    scorer = reranker.scorer
    query, documents = inputs(scorer)
    yes, no = (
        tokenizer(word, add_special_tokens=False).input_ids for word in scorer.prompts.labels
    )
    assert len(yes) > 1  # a byte tokenizer's labels have several tokens
    wanted = [
        float(log_likelihood(model, p, yes).sum() - log_likelihood(model, p, no).sum())
        for p in prompts_of(scorer, scorer.prompts.build(query, documents))
    ]
    assert list(reranker.rank(QUERY, DOCUMENTS).scores) == pytest.approx(wanted, abs=TOLERANCE)


def test_labels_equal_the_direct_computation(family, tokenizer):
    _, model = family
    reranker = Reranker.from_model(model, tokenizer, scoring="likelihood", framework="listwise")
    scorer = reranker.scorer
    query, documents = inputs(scorer)
    prompt = prompts_of(scorer, scorer.prompts.build(query, [documents]))[0]
    wanted = [
        float(log_likelihood(model, prompt, tokenizer(f" {x}").input_ids).sum()) for x in "ABCD"
    ]
    assert list(reranker.rank(QUERY, DOCUMENTS).scores) == pytest.approx(wanted, abs=TOLERANCE)


def test_preference_is_the_mean_of_both_orders(family, tokenizer):
    from icr_rag.scoring.base import Cost

    _, model = family
    reranker = Reranker.from_model(model, tokenizer, scoring="likelihood", framework="pairwise")
    scorer = reranker.scorer
    query, documents = inputs(scorer)
    margin = scorer.prefer(query, [(documents[0], documents[1])], Cost())[0]
    a, b = (tokenizer(f" {x}").input_ids for x in "AB")
    forth, back = prompts_of(scorer, scorer.prompts.build(query, [documents[:2], documents[1::-1]]))
    wanted = (
        log_likelihood(model, forth, a).sum()
        - log_likelihood(model, forth, b).sum()
        + log_likelihood(model, back, b).sum()
        - log_likelihood(model, back, a).sum()
    ) / 2
    assert margin == pytest.approx(float(wanted), abs=TOLERANCE)
    swapped = scorer.prefer(query, [(documents[1], documents[0])], Cost())[0]
    assert swapped == pytest.approx(-margin, abs=TOLERANCE)


METHODS = [
    {"scoring": "likelihood"},
    {"scoring": "likelihood", "likelihood": "yes_no"},
    {"scoring": "mixed"},
    {"scoring": "attention", "framework": "pointwise"},
    {"scoring": "attention", "framework": "pointwise", "layers": (1, 2), "reading": "lift"},
]


@settings(max_examples=25)
@given(
    name=st.sampled_from(["llama", "gemma3", "mistral"]),
    method=st.sampled_from(METHODS),
    documents=st.lists(st.text("abc d.", min_size=1, max_size=80), min_size=1, max_size=6),
    chunk=st.integers(1, 400),
)
def test_batched_equals_one_by_one(name, method, documents, chunk):
    def scores(size):
        reranker = Reranker.from_model(
            tiny_model(name), byte_tokenizer(), prefill_chunk=size, **method
        )
        return reranker.rank(QUERY, documents).scores

    # Mixed scores are divided by the spread over the documents, which random weights make small.
    tolerance = 5e-3 if method["scoring"] == "mixed" else 2e-4
    # Fewer tokens at once than a prompt has: each by itself.
    assert scores(chunk) == pytest.approx(scores(40), abs=tolerance)


def test_batches_of_sets_and_pairs_equal_one_by_one():
    for framework in ("pairwise", "setwise"):
        orders = set()
        for chunk in (40, 700, 4096):
            reranker = Reranker.from_model(
                tiny_model("llama"),
                byte_tokenizer(),
                scoring="likelihood",
                framework=framework,
                prefill_chunk=chunk,
            )
            ranking = reranker.rank(QUERY, DOCUMENTS)
            orders.add((tuple(hit.index for hit in ranking), ranking.usage.calls))
        assert len(orders) == 1


def test_pointwise_likelihood_does_not_depend_on_the_other_documents():
    reranker = Reranker.from_model(tiny_model("llama"), byte_tokenizer(), scoring="likelihood")
    together = reranker.rank(QUERY, DOCUMENTS).scores
    alone = [reranker.rank(QUERY, [document]).scores[0] for document in DOCUMENTS]
    assert together == pytest.approx(alone, abs=TOLERANCE)


def test_usage_counts_prompts_and_tokens():
    reranker = Reranker.from_model(tiny_model("llama"), byte_tokenizer(), scoring="likelihood")
    usage = reranker.rank(QUERY, DOCUMENTS).usage
    scorer = reranker.scorer
    query, documents = inputs(scorer)
    head = len(scorer.prompts.build(query, documents).head_ids)
    whole = sum(scorer.prompts.overhead(query) + len(ids) - head for ids in documents) + head
    # The query's last token is predicted, and not run.
    assert (usage.calls, usage.tokens, usage.layers) == (4, whole - len(documents), ())


def test_labels_that_merge_with_the_text_before(tokenizer):
    class Merging:
        """Reads "Passage A" as one piece where it can."""

        def encode(self, texts):
            return [[1] if t == "Passage" else [2] if t == "Passage A" else [3] for t in texts]

    assert LabelTokens(Merging(), [" A"], before="Passage").ids == [[3]]


def test_without_an_lm_head_there_is_no_likelihood(tokenizer):
    bare = tiny_model("llama").model
    reranker = Reranker.from_model(bare, tokenizer, scoring="likelihood")
    with pytest.raises(UnsupportedModelError, match="no LM head"):
        reranker.rank(QUERY, DOCUMENTS)
    assert Reranker.from_model(bare, tokenizer, layers=(1, 2)).rank(QUERY, DOCUMENTS)


def test_nan_logits_are_an_error(tokenizer):
    import copy

    model = copy.deepcopy(tiny_model("llama"))
    model.lm_head.weight.data.fill_(float("nan"))
    reranker = Reranker.from_model(model, tokenizer, scoring="likelihood")
    with pytest.raises(NonFiniteScoreError, match="likelihoods"):
        reranker.rank(QUERY, DOCUMENTS)
