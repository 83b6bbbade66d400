"""What each client sends, as its code sends it, and what it reads of the answer, and no more.

The other half, clients that are packages, is in test_server_clients.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_answers import KnownAnswers, best_first, post, share_of_a

QUERY = "which has a?"
TEXTS = ["bbb", "aaa", "abb", "", "aab", "äöü a"]


class Client(NamedTuple):
    """How a client calls, and what it makes of the answer: place -> score, in the order of the
    answer."""

    path: str
    sends: Callable[[str, list[str]], dict[str, object]]
    reads: Callable[[object], dict[int, float]]


def standard(body):
    return {result["index"]: result["relevance_score"] for result in body["results"]}


def by_position(body):
    """Open WebUI sorts by index and takes what comes as the scores of its documents, in order."""
    ordered = sorted(body["results"], key=lambda result: result["index"])
    return {place: result["relevance_score"] for place, result in enumerate(ordered)}


def siliconflow(body):
    tokens = body["meta"]["tokens"]
    assert tokens["input_tokens"] + tokens["output_tokens"] == 7 * len(body["results"])
    return standard(body)


def jina(body):
    assert body["usage"]["total_tokens"] == 7 * len(body["results"])
    assert body["model"] == KnownAnswers.model
    return standard(body)


def vllm(body):
    assert [result["document"]["text"] for result in body["results"]] == [
        TEXTS[result["index"]] for result in body["results"]
    ]
    return jina(body)


def infinity(body):
    for result in body["results"]:
        assert result["document"] == TEXTS[result["index"]]
    return standard(body)


def tei(body):
    assert isinstance(body, list)
    return {rank["index"]: rank["score"] for rank in body}


def probability(logit):
    return 1 / (1 + math.exp(-logit))


def nvidia(body):
    return {ranking["index"]: probability(ranking["logit"]) for ranking in body["rankings"]}


def aliyun(body):
    assert body["request_id"]
    assert body["usage"]["total_tokens"] == 7 * len(body["output"]["results"])
    return standard(body["output"])


CLIENTS = {
    "Open WebUI": Client(
        "/v1/rerank",
        lambda query, texts: {
            "model": "reranker",
            "query": query,
            "documents": texts,
            "top_n": len(texts),
        },
        by_position,
    ),
    "Dify, texts": Client(
        "/rerank",
        lambda query, texts: {
            "model": "m",
            "query": query,
            "documents": texts,
            "top_n": len(texts),
        },
        standard,
    ),
    "Dify, its plug-in SDK": Client(
        "/v1/rerank",
        lambda query, texts: {
            "model": "m",
            "query": query,
            "documents": texts,
            "top_n": None,
            "return_documents": True,
        },
        standard,
    ),
    "Dify, parts": Client(
        "/v1/rerank",
        lambda query, texts: {
            "model": "m",
            "query": query,
            # A text that is empty, and a picture that Dify will not fetch, come without parts.
            "documents": [
                {"content": [{"type": "text", "text": text}] if text else []} for text in texts
            ],
            "top_n": len(texts),
        },
        standard,
    ),
    "RAGFlow, OpenAI-compatible": Client(
        "/rerank",
        lambda query, texts: {
            "model": "m",
            "query": query,
            "documents": texts,
            "top_n": len(texts),
        },
        standard,
    ),
    "RAGFlow, Xinference": Client(
        "/v1/rerank",
        lambda query, texts: {
            "model": "m",
            "query": query,
            "return_documents": "true",
            "return_len": "true",
            "documents": texts,
        },
        standard,
    ),
    "RAGFlow, SILICONFLOW": Client(
        "/v1/rerank",
        lambda query, texts: {
            "model": "m",
            "query": query,
            "documents": texts,
            "top_n": len(texts),
            "return_documents": False,
            "max_chunks_per_doc": 1024,
            "overlap_tokens": 80,
        },
        siliconflow,
    ),
    "RAGFlow, NVIDIA": Client(
        "/v1/retrieval/nvidia/nv-rerankqa-mistral-4b-v3/reranking",
        lambda query, texts: {
            "model": "nvidia/nv-rerankqa-mistral-4b-v3",
            "query": {"text": query},
            "passages": [{"text": text} for text in texts],
            "truncate": "END",
            "top_n": len(texts),
        },
        nvidia,
    ),
    "NVIDIA NIM": Client(
        "/v1/ranking",
        lambda query, texts: {
            "model": "m",
            "query": {"text": query},
            "passages": [{"text": text} for text in texts],
        },
        nvidia,
    ),
    "LightRAG": Client(
        "/v1/rerank",
        lambda query, texts: {
            "model": "m",
            "query": query,
            "documents": texts,
            "return_documents": False,
        },
        standard,
    ),
    "LightRAG, Aliyun": Client(
        "/api/v1/services/rerank/text-rerank/text-rerank",
        lambda query, texts: {
            "model": "gte-rerank-v2",
            "input": {"query": query, "documents": texts},
            "parameters": {"return_documents": False},
        },
        aliyun,
    ),
    "LightRAG, Aliyun's shape at another path": Client(
        "/rerank",
        lambda query, texts: {
            "model": "m",
            "input": {"query": query, "documents": texts},
            "parameters": {"top_n": len(texts)},
        },
        aliyun,
    ),
    "Jina": Client(
        "/v1/rerank",
        lambda query, texts: {
            "model": "jina-reranker-v2-base-multilingual",
            "query": {"text": query},
            "documents": [{"text": text} for text in texts],
            "top_n": len(texts),
            "return_documents": False,
        },
        jina,
    ),
    "vLLM": Client(
        "/v2/rerank",
        lambda query, texts: {
            "model": "m",
            "query": query,
            "documents": texts,
            "top_n": 0,
            "return_documents": True,
            "truncate_prompt_tokens": -1,
        },
        vllm,
    ),
    "Infinity": Client(
        "/infinity/rerank",
        lambda query, texts: {
            "model": "m",
            "query": query,
            "documents": texts,
            "return_documents": True,
        },
        infinity,
    ),
    "TEI": Client(
        "/rerank",
        lambda query, texts: {
            "query": query,
            "texts": texts,
            "raw_scores": False,
            "return_text": False,
            "truncate": True,
        },
        tei,
    ),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_each_client_gets_every_document_with_its_score(name):
    client = CLIENTS[name]
    answers = KnownAnswers()
    response = post(answers, client.path, client.sends(QUERY, TEXTS))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    read = client.reads(response.json())
    assert read == pytest.approx(dict(enumerate(map(share_of_a, TEXTS))), abs=1e-9)
    (call,) = answers.calls
    assert call.query == QUERY
    assert [document.content for document in call.documents] == TEXTS
    assert response.json() == without_null(response.json())


def without_null(body):
    """An answer holds no null, which some clients take for a document."""
    if isinstance(body, dict):
        return {key: without_null(value) for key, value in body.items() if value is not None}
    return [without_null(item) for item in body] if isinstance(body, list) else body


def top_n(shape, texts, count):
    """A request for ``count`` results in each shape that has such a number."""
    if shape == "/v1/ranking":
        return {"query": QUERY, "passages": texts, "top_k": count}
    if shape == "tei":
        return {"query": QUERY, "texts": texts, "top_n": count}
    if shape == "aliyun":
        return {"input": {"query": QUERY, "documents": texts}, "parameters": {"top_n": count}}
    return {"query": QUERY, "documents": texts, "top_n": count}


ANSWERS = KnownAnswers()
READS = {
    "/v1/rerank": standard,
    "/v2/rerank": standard,
    "/infinity/rerank": standard,
    "/v1/ranking": nvidia,
    "tei": tei,
    "aliyun": lambda body: standard(body["output"]),
}


@pytest.mark.parametrize("shape", READS)
@settings(max_examples=25)
@given(texts=st.lists(st.text("aä", max_size=5), max_size=8), count=st.none() | st.integers(0, 12))
def test_any_list_is_answered_whole_or_cut_at_top_n(shape, texts, count):
    path = shape if shape.startswith("/") else "/rerank"
    response = post(ANSWERS, path, top_n(shape, texts, count))
    assert response.status_code == 200, response.text
    scores = list(map(share_of_a, texts))
    expected = best_first(scores)[: count or None]
    read = READS[shape](response.json())
    assert tuple(read) == expected
    assert list(read.values()) == pytest.approx([scores[place] for place in expected], abs=1e-9)


def test_ragflow_sends_eights_and_puts_their_scores_together():
    texts = [f"{'a' * (n % 5)}{'b' * (n % 3)}" for n in range(21)]
    scores = [0.0] * len(texts)
    for begin in range(0, len(texts), 8):
        body = {
            "query": QUERY,
            "texts": texts[begin : begin + 8],
            "raw_scores": False,
            "truncate": True,
        }
        for rank in post(KnownAnswers(), "/rerank", body).json():
            scores[begin + rank["index"]] = rank["score"]
    assert scores == list(map(share_of_a, texts))


def test_an_empty_list_gives_an_empty_list_and_asks_nobody():
    answers = KnownAnswers()
    assert post(answers, "/v1/rerank", {"query": "q", "documents": []}).json()["results"] == []
    assert post(answers, "/rerank", {"query": "q", "texts": []}).json() == []
    assert post(answers, "/v1/ranking", {"query": "q", "passages": []}).json()["rankings"] == []
    assert answers.calls == []


def test_raw_scores_are_log_odds_and_stay_finite():
    body = {"query": "q", "texts": ["aab", "aaa", ""], "raw_scores": True}
    ranks = tei(post(KnownAnswers(), "/rerank", body).json())
    assert probability(ranks[0]) == pytest.approx(2 / 3)
    assert ranks[1] > 20
    assert ranks[2] < -20
    # A score that is no probability is what it is.
    answers = KnownAnswers(lambda text: -7.5, probability=False)
    assert tei(post(answers, "/rerank", body).json()) == dict.fromkeys(range(3), -7.5)
