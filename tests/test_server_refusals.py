"""What is refused, in which shape and words; and which forms of a document are read."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import httpx
import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_answers import KnownAnswers, post, served

from icr_rag import InputError
from icr_rag.errors import ClosedError, ConfigError, OverloadedError, PromptTooLongError
from icr_rag.server import dialects
from icr_rag.server.call import UNFITTING

#: In every text that is sent; in no error.
SECRET = "Zarathustra"
STANDARD = {"query": f"what of {SECRET}?", "documents": [f"{SECRET} says", "b"]}
TEI = {"query": STANDARD["query"], "texts": STANDARD["documents"]}
ALIYUN = {"model": "m", "input": STANDARD}
NVIDIA = {"query": {"text": STANDARD["query"]}, "passages": [{"text": SECRET}, {"text": "b"}]}
ANYTHING = KnownAnswers()
SHAPES = {
    "standard": ("/v1/rerank", STANDARD),
    "v2": ("/v2/rerank", STANDARD),
    "infinity": ("/infinity/rerank", STANDARD),
    "tei": ("/rerank", TEI),
    "aliyun": ("/rerank", ALIYUN),
    "nvidia": ("/v1/ranking", NVIDIA),
}


def told(shape, body):
    """The message, from where the client of a shape looks for it."""
    if shape == "tei":
        assert set(body) == {"error", "error_type"}
        return body["error"]
    if shape == "aliyun":
        assert set(body) == {"code", "message", "request_id"}
        return body["message"]
    if shape == "nvidia":
        assert body["object"] == "error"
        return body["message"]
    # Cohere's, Jina's and vLLM's clients each look elsewhere.
    assert body["message"] == body["detail"] == body["error"]["message"]
    return body["message"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OverloadedError("64 requests are waiting", retry_after=2.6), 429),
        (ClosedError("the server is shutting down"), 503),
        (PromptTooLongError("the prompt has 9000 tokens, the model takes 8192"), 413),
        (InputError("instruction='x': allowed are ..."), 422),
    ],
)
def test_errors_of_a_ranking_have_the_clients_shape(shape, error, status):
    path, body = SHAPES[shape]
    response = post(KnownAnswers(error=error), path, body)
    assert response.status_code == status
    assert told(shape, response.json()) == str(error)
    assert response.headers.get("retry-after") == {429: "3", 503: "1"}.get(status)


@pytest.mark.parametrize("shape", SHAPES)
def test_settings_that_do_not_fit_a_request_are_told_without_their_values(shape):
    path, body = SHAPES[shape]
    response = post(
        KnownAnswers(error=ConfigError("profile='/secret/path' has no ...")), path, body
    )
    assert response.status_code == 422
    assert told(shape, response.json()) == UNFITTING
    assert "secret" not in response.text


def test_other_errors_are_left_to_the_application():
    with pytest.raises(RuntimeError, match="broken"):
        post(KnownAnswers(error=RuntimeError("broken")), *SHAPES["standard"])


def at(shape, **changes):
    path, body = SHAPES[shape]
    if shape == "aliyun":
        return path, {"input": {**STANDARD, **changes}}
    return path, {**body, **changes}


@pytest.mark.parametrize(
    ("shape", "changes", "words"),
    [
        ("standard", {"query": 5}, 'query: must be a string, or an object with "text"'),
        ("standard", {"query": None}, 'query: must be a string, or an object with "text"'),
        ("standard", {"query": " \n"}, "query: is blank; give the question to rank for"),
        ("aliyun", {"query": ""}, "input.query: is blank"),
        ("nvidia", {"query": {"image": "x"}}, "query: must be a string"),
        ("standard", {"documents": SECRET}, "documents: Input should be a valid list"),
        ("tei", {"texts": {SECRET: 1}}, "texts: Input should be a valid list"),
        ("standard", {"documents": ["a", 5]}, "documents[1] is a number; a document is a string"),
        ("tei", {"texts": ["a", None]}, "texts[1] is null"),
        ("nvidia", {"passages": [["a"]]}, "passages[0] is an array"),
        ("nvidia", {"passages": [{"image": "data:"}]}, "no text but an image"),
        ("standard", {"documents": [{"image": "http://x"}]}, "reads texts only"),
        ("standard", {"documents": [{"text": 5}]}, 'a "text" that is a number'),
        ("standard", {"documents": [{"text": "a", "title": 5}]}, 'a "title" that is a number'),
        ("standard", {"documents": [{"body": SECRET}]}, "(its fields: body); give it one, or"),
        ("standard", {"documents": [{}]}, "(its fields: none)"),
        ("standard", {"documents": [{"content": 5}]}, 'a "content" that is a number'),
        (
            "v2",
            {"documents": ["a", {"content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "documents[1] has a part, content[0], that is no text",
        ),
        (
            "standard",
            {"documents": ["a", {"b": SECRET}], "rank_fields": ["title"]},
            "document 1 has none of the fields in rank_fields (title); it has b",
        ),
        ("standard", {"top_n": -1}, "top_n: Input should be greater than or equal to 0"),
        ("standard", {"top_n": True}, "top_n: must be a number, and is a boolean"),
        ("standard", {"deadline_ms": True}, "deadline_ms: must be a number, and is a boolean"),
        ("standard", {"top_n": 1.5}, "top_n: Input should be a valid integer"),
        ("standard", {"top_n": SECRET}, "top_n: Input should be a valid integer"),
        ("standard", {"max_tokens_per_doc": -1}, "max_tokens_per_doc: Input should be greater"),
        (
            "standard",
            {"return_documents": SECRET},
            "return_documents: Input should be a valid bool",
        ),
        ("standard", {"rank_fields": SECRET}, "rank_fields: Input should be a valid list"),
        ("standard", {"instruction": 5}, "instruction: Input should be a valid string"),
        ("standard", {"truncation_side": "left"}, 'documents are cut at their end: send "right"'),
        ("tei", {"truncation_direction": "Left"}, 'texts are cut at their end: send "right"'),
        ("tei", {"raw_scores": "maybe"}, "raw_scores: Input should be a valid boolean"),
        ("nvidia", {"truncate": "START"}, "truncate: Input should be 'NONE' or 'END'"),
        ("standard", {"deadline_ms": 0}, "deadline_ms: Input should be greater than 0"),
        ("tei", {"deadline_ms": -1}, "deadline_ms: Input should be greater than 0"),
        ("nvidia", {"deadline_ms": "soon"}, "deadline_ms: Input should be a valid number"),
        ("standard", {"model": 5}, "model: Input should be a valid string"),
    ],
)
def test_mistakes_are_told_in_words_and_without_texts(shape, changes, words):
    answers = KnownAnswers()
    response = post(answers, *at(shape, **changes))
    assert response.status_code == 422
    assert words in told(shape, response.json())
    assert SECRET not in response.text
    assert answers.calls == []


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "content", "title", "type", "x"]), inner)
    ),
    max_leaves=6,
)
FIELDS = sorted(
    {field for shape in SHAPES.values() for field in shape[1]}
    | {"top_n", "rank_fields", "return_documents", "parameters", "truncate", "deadline_ms"}
    | {"instruction", "max_tokens_per_doc", "truncation_direction", "raw_scores", "model"}
)


@pytest.mark.parametrize("path", ["/rerank", "/infinity/rerank", "/v1/ranking"])
@settings(max_examples=40)
@given(body=st.dictionaries(st.sampled_from(FIELDS), JSON), valid=st.sampled_from([*SHAPES]))
def test_whatever_comes_is_answered_or_refused(path, body, valid):
    for sent in (body, {**SHAPES[valid][1], **body}):
        response = post(ANYTHING, path, sent)
        assert response.status_code in (200, 422)
        assert response.json() is not None
        assert response.status_code == 200 or SECRET not in response.text


def test_a_boolean_among_the_parameters_is_no_deadline():
    body = {**ALIYUN, "parameters": {"deadline_ms": True}}
    response = post(KnownAnswers(), "/rerank", body)
    assert "parameters.deadline_ms: must be a number" in told("aliyun", response.json())


def test_many_mistakes_are_told_as_a_few():
    many = {f"field{n}": n for n in range(9)}
    body = {"query": 5, "documents": 5, "top_n": -1, "model": 5, "rank_fields": list(range(9))}
    message = post(KnownAnswers(), "/v1/rerank", body).json()["message"]
    assert message.count(": ") == 5
    assert message.endswith("; and 8 more")
    meta = post(KnownAnswers(), "/v1/rerank", {**STANDARD, **many}).json()["meta"]
    assert meta["warnings"] == ["not used: field0, field1, field2, field3, field4 and 4 more"]


@pytest.mark.parametrize(
    ("raw", "status", "words"),
    [
        (b"", 400, "the body is no JSON: EOF"),
        (b'{"query": ', 400, "the body is no JSON: EOF"),
        (b'{"query": "\xff"}', 400, "the body is no JSON: invalid unicode"),
        (b'{"query": "\\ud800", "documents": []}', 400, "the body is no JSON"),
        (b"[" * 100_000, 400, "the body is no JSON: recursion limit exceeded"),
        (b'{"a":' * 100_000, 400, "the body is no JSON: recursion limit exceeded"),
        (b"[1, 2]", 422, "the body must be a JSON object"),
        (b"null", 422, "the body must be a JSON object"),
        (b"{}", 422, 'there is nothing to rank: "documents" (Cohere, Jina, vLLM) is missing'),
        (b'{"query": "q", "documents": [{"text": "", "x": NaN}]}', 400, "the body is no JSON"),
        (b'{"query": "q", "documents": [], "deadline_ms": 1e999}', 422, "deadline_ms: "),
    ],
)
def test_bodies_that_are_no_request(raw, status, words):
    response = post(KnownAnswers(), "/rerank", None, raw=raw)
    assert response.status_code == status
    assert words in told("standard", response.json())


def read(documents, **fields):
    answers = KnownAnswers()
    response = post(answers, "/v1/rerank", {"query": "q", "documents": documents, **fields})
    assert response.status_code == 200, response.text
    return answers.calls[0], response.json()


def test_forms_of_a_document():
    call, body = read(
        [
            "plain",
            {"text": "with a title", "title": "Title", "id": 5, "year": 1999},
            {"text": "", "metadata": {"lang": "de"}},
            {"content": "one"},
            {"content": [{"type": "text", "text": "two"}, {"type": "text", "text": "parts"}]},
            {"text": "also a picture", "image": "http://x"},
        ],
        return_documents=True,
    )
    contents = [document.content for document in call.documents]
    assert contents == ["plain", "Title\nwith a title", "", "one", "two\nparts", "also a picture"]
    assert call.documents[1].id == "5"
    assert call.documents[1].metadata == {"year": 1999}
    assert call.documents[2].metadata == {"lang": "de"}
    back = {result["index"]: result["document"] for result in body["results"]}
    assert back[0] == {"text": "plain"}
    # All fields of an object come back as they came.
    assert back[1] == {"text": "with a title", "title": "Title", "id": 5, "year": 1999}
    assert back[4] == {"text": "two\nparts"}


def test_rank_fields_are_read_in_their_order_and_strings_as_they_are():
    documents = [{"name": "Fern", "city": "Ulm", "no": 5, "gone": None}, "plain"]
    call, body = read(documents, rank_fields=["city", "name", "gone"], return_documents=True)
    assert [document.content for document in call.documents] == ["city: Ulm\nname: Fern", "plain"]
    back = {result["index"]: result["document"] for result in body["results"]}
    assert back[0] == {**documents[0], "text": "city: Ulm\nname: Fern"}


def test_documents_come_back_only_if_asked_for():
    for asked in ({}, {"return_documents": False}, {"return_documents": None}):
        _, body = read(["a", "b"], **asked)
        assert all(set(result) == {"index", "relevance_score"} for result in body["results"])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"max_tokens_per_doc": 40}, 40),
        ({"max_tokens_per_doc": 0}, None),
        ({"truncate_prompt_tokens": 30}, 30),
        ({"truncate_prompt_tokens": -1, "max_tokens_per_doc": 40}, 40),
        ({"truncate_prompt_tokens": 30, "max_tokens_per_doc": 40}, 30),
    ],
)
def test_limits_on_a_documents_tokens(fields, expected):
    call, _ = read(["a"], **fields)
    assert call.max_tokens_per_doc == expected


def test_instruction_model_and_deadline_reach_the_ranking():
    sentence = "Find passages that refute the claim."
    call, body = read(["a"], instruction=sentence, model="any name", deadline_ms=250)
    assert (call.instruction, call.model, call.deadline_ms) == (sentence, "any name", 250.0)
    assert body["model"] == KnownAnswers.model
    call, _ = read(["a"], instruct=sentence)
    assert call.instruction == sentence
    answers = KnownAnswers()
    inner = {"instruct": sentence, "deadline_ms": 100}
    post(answers, "/rerank", {**ALIYUN, "deadline_ms": 250, "parameters": inner})
    assert answers.calls[0].instruction == sentence
    assert answers.calls[0].deadline_ms == 100
    for shape in ("tei", "nvidia", "infinity"):
        post(answers, *at(shape, deadline_ms=50))
        assert answers.calls[-1].deadline_ms == 50


def test_what_was_cut_or_left_out_is_told_in_every_shape():
    answers = KnownAnswers(truncated=(1,), degraded="deadline of 9 ms: 1 of 2 … scored")
    for shape, (path, body) in SHAPES.items():
        response = post(answers, path, {**body, "typo": 1})
        assert response.status_code == 200
        notice = response.headers["icr-rag-warnings"]
        assert "not used: typo" in notice
        assert "cut to fit: 1 of 2 documents" in notice
        assert "deadline of 9 ms: 1 of 2 \\u2026 scored" in notice
        if shape in ("standard", "v2", "infinity"):
            meta = response.json()["meta"]
            assert meta["truncated"] == [1]
            assert meta["degraded"] == answers.degraded
            assert len(meta["warnings"]) == 3
    assert "icr-rag-warnings" not in post(KnownAnswers(), *SHAPES["tei"]).headers


def test_limits_that_mean_nothing_here_are_told():
    _, body = read(["a"], max_chunks_per_doc=10, max_tokens_per_query=5)
    assert body["meta"]["warnings"] == [
        "max_chunks_per_doc is not used: documents are not chunked",
        "max_tokens_per_query is not used: queries are not cut by it",
    ]


@pytest.mark.parametrize(
    ("shape", "truncate", "status"), [("tei", False, 413), ("nvidia", "NONE", 422)]
)
def test_an_error_for_long_texts_only_where_the_client_asks_for_one(shape, truncate, status):
    response = post(KnownAnswers(truncated=(1,)), *at(shape, truncate=truncate))
    assert response.status_code == status
    assert "[1] is too long, and truncate is" in told(shape, response.json())
    assert post(KnownAnswers(), *at(shape, truncate=truncate)).status_code == 200
    assert post(KnownAnswers(truncated=(1,)), *SHAPES[shape]).status_code == 200


def test_the_description_holds_for_requests_and_answers():
    answers = KnownAnswers()
    description = served(answers).openapi()
    paths = description["paths"]
    assert len({item["operationId"] for path in paths.values() for item in path.values()}) == sum(
        len(path) for path in paths.values()
    )
    for path, item in paths.items():
        if "post" not in item:
            continue
        content = item["post"]["requestBody"]["content"]["application/json"]
        expected = item["post"]["responses"]
        for example in content["examples"].values():
            jsonschema.validate(example["value"], content["schema"])
            response = post(answers, path.replace("{model}", "a/b"), example["value"])
            assert response.status_code == 200
            shape = expected["200"]["content"]["application/json"]["schema"]
            jsonschema.validate(response.json(), shape)
        wrong = post(answers, path.replace("{model}", "a/b"), {"query": 1})
        shape = expected["422"]["content"]["application/json"]["schema"]
        jsonschema.validate(wrong.json(), shape)
    assert json.dumps(description)


def test_what_is_served():
    async def get(path):
        transport = httpx.ASGITransport(served(KnownAnswers(), max_documents=100))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return (await client.get(path)).json()

    models = asyncio.run(get("/v1/models"))
    assert models["object"] == "list"
    assert [model["id"] for model in models["data"]] == ["served-model"]
    info = asyncio.run(get("/info"))
    assert info["model_id"] == "served-model"
    assert "reranker" in info["model_type"]
    assert info["max_client_batch_size"] == 100


def test_the_shapes_need_no_web_framework():
    modules = [
        f"icr_rag.server.dialects.{path.stem}"
        for path in sorted(Path(dialects.__file__).parent.glob("[!_]*.py"))
    ]
    code = f"import sys, {', '.join(modules)}\nprint({{'fastapi', 'torch'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
