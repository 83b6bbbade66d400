"""Readings per document and head equal what eager attention maps give."""

from __future__ import annotations

import pytest
import torch
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker
from icr_rag.model.reading import READINGS
from icr_rag.profiles import HeadWeight
from icr_rag.scoring.base import Cost
from icr_rag.scoring.calibration import document_score
from icr_rag.scoring.head_scores import HeadScores, standardise

QUERY = "Which metal melts first?"
DOCUMENTS = ["Tin melts at 232 degrees.", "Lead is soft.", "Copper conducts heat well."]


def maps(model, token_ids):
    with torch.no_grad():
        output = model(torch.tensor([token_ids]), output_attentions=True, use_cache=False)
    return [layer[0] for layer in output.attentions]


def expected(model, prefix, tails, spans, layers):
    """[document, layer and head, reading], slowly."""
    whole = [[*prefix, *tail.token_ids[: tail.rows.stop]] for tail in tails]
    rows = [slice(len(prefix) + tail.rows.start, len(prefix) + tail.rows.stop) for tail in tails]
    query, null = (maps(model, ids) for ids in whole)
    result = torch.zeros(len(spans), len(layers) * 4, len(READINGS))
    for at, layer in enumerate(layers):
        for head in range(4):
            attention, without = query[layer][head, rows[0]], null[layer][head, rows[1]]
            for document, (a, b) in enumerate(spans):
                mass, null_mass = attention[:, a:b].sum(1), without[:, a:b].sum(1)
                tokens = attention[:, a:b].mean(0) - without[:, a:b].mean(0)
                result[document, at * 4 + head] = torch.tensor(
                    [
                        mass.mean().log() - null_mass.mean().log(),
                        mass.log().mean(),
                        attention[:, a:b].amax(1).log().mean(),
                        document_score(tokens, True, "sum"),
                    ]
                )
    return result


def assert_readings(found, wanted):
    # Logarithms of what underflows (outside a sliding window) are a floor, not -inf.
    finite = torch.isfinite(wanted)
    assert finite.any()
    torch.testing.assert_close(found[finite], wanted[finite], atol=2e-4, rtol=1e-3)


def test_joint_readings_equal_eager_maps(family, tokenizer):
    _, model = family
    scorer = Reranker.from_model(model, tokenizer, layers="all", reading="lift").scorer
    ids = scorer.prompts.encode_documents(DOCUMENTS)
    query = scorer.prompts.encode_query(QUERY)
    prompt = scorer.build(query, ids)
    wanted = expected(model, prompt.prefix_ids, prompt.tails, prompt.spans, scorer.layers)
    assert_readings(scorer.read_documents(query, ids, Cost()), wanted)


@pytest.mark.parametrize("chunk", [None, 1])
def test_pointwise_readings_equal_eager_maps(family, tokenizer, chunk):
    _, model = family
    reranker = Reranker.from_model(
        model, tokenizer, framework="pointwise", layers=(1, 3), prefill_chunk=chunk
    )
    scorer = reranker.scorer
    query = scorer.prompts.encode_query(QUERY)
    ids = scorer.prompts.encode_documents(DOCUMENTS)
    found = scorer.read_documents(query, ids, Cost())
    batch = scorer.prompts.build(query, ids)
    for document, body in enumerate(batch.bodies):
        prefix = [*batch.head_ids, *body]
        at = len(batch.head_ids)
        spans = [(at, at + len(ids[document]))]
        wanted = expected(model, prefix, batch.tails, spans, [1, 2, 3])
        assert_readings(found[document : document + 1], wanted)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize(
    "way",
    [
        {"framework": "listwise"},
        {"framework": "pointwise"},
        {"framework": "listwise", "document_states": "independent"},
        {"framework": "listwise", "document_states": "blind"},
    ],
)
def test_what_no_weight_needs_is_not_computed(llama, tokenizer, way, reading):
    scorer = Reranker.from_model(llama, tokenizer, layers=(1, 2), **way).scorer
    query, ids = scorer.prompts.encode_query(QUERY), scorer.prompts.encode_documents(DOCUMENTS)
    wanted = scorer.read_documents(query, ids, Cost())
    found = scorer.read_documents(query, ids, Cost(), {reading})
    for column, name in enumerate(READINGS):
        if name == reading:
            torch.testing.assert_close(found[..., column], wanted[..., column])
            assert found[..., column].abs().min() > 0
        else:
            assert not found[..., column].any()


def test_without_a_null_query_its_rows_are_not_run(llama, tokenizer):
    def tokens(reading):
        reranker = Reranker.from_model(
            llama, tokenizer, framework="pointwise", layers=(1, 3), reading=reading
        )
        return reranker.rank(QUERY, DOCUMENTS).usage.tokens

    assert tokens("lift") - tokens("log_mass") == len(DOCUMENTS) * len(" N/A")


def test_mixed_reads_both_from_one_pass(family, tokenizer):
    _, model = family
    mixed = Reranker.from_model(model, tokenizer, scoring="mixed", layers=(1, 2), reading="lift")
    likelihood = Reranker.from_model(model, tokenizer, scoring="likelihood")
    scorer = mixed.scorer
    query = scorer.prompts.encode_query(QUERY)
    ids = scorer.prompts.encode_documents(DOCUMENTS)
    found, readings = scorer.read(query, ids, Cost())
    assert found.tolist() == pytest.approx(likelihood.rank(QUERY, DOCUMENTS).scores, abs=1e-4)
    batch = scorer.prompts.build(query, ids)
    prefix = [*batch.head_ids, *batch.bodies[0]]
    spans = [(len(batch.head_ids), len(batch.head_ids) + len(ids[0]))]
    assert_readings(readings[:1], expected(model, prefix, batch.tails, spans, [1, 2]))


def test_setwise_order_equals_listwise_order_on_two_documents(family, tokenizer):
    _, model = family
    for reading in ("auto", "lift"):
        for a in range(3):
            for b in range(3):
                pair = [DOCUMENTS[a], DOCUMENTS[b]]
                orders = [
                    [
                        hit.index
                        for hit in Reranker.from_model(
                            model, tokenizer, layers=(1, 2), framework=framework, reading=reading
                        ).rank(QUERY, pair)
                    ]
                    for framework in ("listwise", "setwise")
                ]
                assert orders[0] == orders[1]


def test_weights_pick_the_reading_they_name():
    readings = torch.arange(24.0).reshape(3, 2, 4)
    readings[1, 1, READINGS.index("max")] = 100.0
    weigh = HeadScores(
        [HeadWeight(layer=7, head=3, reading="max", weight=-2.0)], {7: [0, 3]}, head_count=9
    )
    column = readings[:, 1, READINGS.index("max")]
    wanted = -2 * (column - column.mean()) / column.std(correction=0)
    assert weigh(readings) == pytest.approx(wanted.tolist())


def test_what_does_not_vary_counts_nothing():
    assert standardise(torch.full((4, 2), 0.1)).tolist() == [[0.0, 0.0]] * 4
    assert standardise(torch.tensor([[5.0]])).tolist() == [[0.0]]


def test_pointwise_attention_does_not_depend_on_the_order():
    reranker = Reranker.from_model(
        tiny_model("llama"), byte_tokenizer(), framework="pointwise", layers=(1, 2)
    )
    forth = reranker.rank(QUERY, DOCUMENTS).scores
    back = reranker.rank(QUERY, DOCUMENTS[::-1]).scores
    assert forth == pytest.approx(back[::-1], abs=1e-5)
