"""Scores equal a slow, obvious implementation of the published formula."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker, Span
from icr_rag.scoring.calibration import document_score, document_scores

DOCUMENTS = ["Tin melts at 232 degrees.", "Lead is soft.", "x", "Copper conducts heat well."]
QUERY = "Which metal melts first?"


def reference_scores(reranker, query, documents):
    """ICR from full eager maps, in plain Python, for one prompt."""
    reading = reranker.read_attention(query, documents)
    model = reranker._scorers.foreign[0]
    token_scores = []
    for ids, rows in (
        (reading.token_ids, reading.query_rows),
        (reading.null_token_ids, reading.null_query_rows),
    ):
        with torch.no_grad():
            maps = model(torch.tensor([ids]), output_attentions=True).attentions
        count = rows.stop - rows.start
        per_token = []
        for token in range(max(span.end for span in reading.spans)):
            total = 0.0
            for layer in reading.layers:
                for head in range(maps[layer].shape[1]):
                    column = maps[layer][0, head, rows, token].tolist()
                    total += sum(column) / count
            per_token.append(total)
        token_scores.append(per_token)
    scores = []
    for span in reading.spans:
        tokens = [token_scores[0][t] - token_scores[1][t] for t in range(*span)]
        if len(tokens) > 1:
            threshold = statistics.mean(tokens) - 2 * statistics.stdev(tokens)
            tokens = [token for token in tokens if token > threshold]
        scores.append(sum(tokens))
    return scores


@pytest.mark.parametrize("layers", ["all", (1, 3)])
@pytest.mark.parametrize("order", ["best_last", "given"])
def test_scores_equal_the_reference(family, tokenizer, layers, order):
    name, model = family
    reranker = Reranker.from_model(model, tokenizer, layers=layers, order=order)
    scores = reranker.rank(QUERY, DOCUMENTS).scores
    assert scores == pytest.approx(reference_scores(reranker, QUERY, DOCUMENTS), abs=1e-5)
    if name != "mistral":  # whose window of 24 tokens ends before the documents
        assert len({round(score, 4) for score in scores}) == len(DOCUMENTS)


def test_a_span_shifted_by_one_token_is_noticed(llama, tokenizer):
    reranker = Reranker.from_model(llama, tokenizer, layers="all")
    scorer = reranker.scorer
    build = scorer.build

    def shifted(query_ids, documents):
        prompt = build(query_ids, documents)
        prompt.spans[:] = [Span(span.start + 1, span.end + 1) for span in prompt.spans]
        return prompt

    expected = reference_scores(reranker, QUERY, DOCUMENTS)
    scorer.build = shifted
    assert reranker.rank(QUERY, DOCUMENTS).scores != pytest.approx(expected, abs=1e-5)


def test_settings_change_what_they_say(llama, tokenizer):
    def scores(**fields):
        return (
            Reranker.from_model(llama, tokenizer, layers=(1, 2), **fields)
            .rank(QUERY, DOCUMENTS)
            .scores
        )

    plain = scores()
    reading = Reranker.from_model(llama, tokenizer, layers=(1, 2)).read_attention(QUERY, DOCUMENTS)
    tokens = reading.query.sum((0, 1))
    uncalibrated = [float(tokens[s.start : s.end].sum()) for s in reading.spans]
    assert scores(calibration="none", token_mask=False) == pytest.approx(uncalibrated, abs=1e-5)
    means = [
        total / (s.end - s.start) for total, s in zip(uncalibrated, reading.spans, strict=True)
    ]
    assert scores(calibration="none", token_mask=False, aggregation="mean") == pytest.approx(
        means, abs=1e-6
    )
    for changed in (
        {"null_query": "nothing"},
        {"token_mask": False},
        {"instruction": "question_answering"},
        {"instruction": "Find the paragraph that refutes this claim."},
        {"double_query": True},
        {"heads": [(1, 0), (2, 3)]},
    ):
        assert scores(**changed) != pytest.approx(plain, abs=1e-6), changed


tokens = st.lists(st.floats(-1, 1, width=32), max_size=30)


@given(values=tokens, mask=st.booleans(), aggregation=st.sampled_from(["sum", "mean"]))
def test_a_score_is_always_a_finite_float(values, mask, aggregation):
    score = document_score(torch.tensor(values, dtype=torch.float32), mask, aggregation)
    assert type(score) is float
    assert math.isfinite(score)


@pytest.mark.parametrize(
    ("values", "score"),
    [
        ([], 0.0),  # a blank document
        ([0.25], 0.25),  # one token has no deviation and is kept
        ([0.5, 0.5], 1.0),  # equal tokens have no outlier
        ([0.0] * 9 + [-10.0], 0.0),  # the outlier below is dropped
        ([0.0] * 9 + [10.0], 10.0),  # one above is kept
    ],
)
def test_token_mask_by_hand(values, score):
    assert document_score(torch.tensor(values), True, "sum") == pytest.approx(score)


def test_calibration_by_hand():
    query = torch.tensor([0.5, 0.25, 0.125, 1.0])
    null = torch.tensor([0.25, 0.25, 0.25, 0.0])
    spans = [Span(0, 1), Span(1, 3), Span(3, 3)]
    assert document_scores(query, null, spans, False, "sum") == [0.25, -0.125, 0.0]
    assert document_scores(query, None, spans, False, "sum") == [0.5, 0.375, 0.0]
    assert document_scores(query, None, spans, False, "mean") == [0.5, 0.1875, 0.0]


@pytest.mark.real_weights
def test_golden_scores_of_the_embedded_model():
    """Numbers of this very configuration, so that no change passes unseen."""
    documents = ["Paris is the capital of France.", "Bananas are yellow.", "Rust is iron oxide."]
    ranking = Reranker(dtype="float32", device="cpu", layers=(10, 13)).rank(
        "What is the capital of France?", documents
    )
    assert list(ranking.scores) == pytest.approx(GOLDEN, abs=2e-5)


GOLDEN = [-0.1966475, -0.0350240, -0.0226150]


def test_fixture_tokenizer_is_one_token_per_byte():
    assert len(byte_tokenizer()("naïve")["input_ids"]) == 6
    assert tiny_model("llama") is tiny_model("llama")
