"""The server's application in front of replicas: keys, limits and deadlines, without Ray."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("fastapi", reason="needs icr-rag[server]")

import httpx

from icr_rag.errors import ConfigError
from icr_rag.server.call import RerankAnswer
from icr_rag.server.ray_ingress import engine_settings, make_server

KEY = "long-enough-for-a-key"
BODY = {"query": "q", "documents": ["a", "b"]}


class Answers:
    model = "m"

    def __init__(self):
        self.calls = []

    async def rerank(self, call):
        self.calls.append(call)
        places = tuple(range(len(call.documents)))
        return RerankAnswer(self.model, tuple(-1.0 * p for p in places), places, False, tokens=7)


@pytest.fixture
def answers(monkeypatch):
    monkeypatch.setenv("ICR_RAG_API_KEY", KEY)
    return Answers()


async def post(answers, server, body=BODY, **headers):
    transport = httpx.ASGITransport(make_server(server)(answers))
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        asked = {"authorization": f"Bearer {KEY}", **headers}
        return await client.post("/v1/rerank", json=body, headers=asked)


async def test_a_call_is_answered_and_counted(answers):
    transport = httpx.ASGITransport(make_server({})(answers))
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        headers = {"authorization": f"Bearer {KEY}"}
        answer = await client.post("/v1/rerank", json=BODY, headers=headers)
        page = (await client.get("/metrics", headers=headers)).text
        assert (await client.get("/ready")).status_code == 200
    assert [hit["index"] for hit in answer.json()["results"]] == [0, 1]
    assert "icr_rag_documents_total 2.0" in page
    assert "icr_rag_tokens_total 7.0" in page


async def test_without_its_key_a_call_is_refused(answers):
    answer = await post(answers, {}, authorization="Bearer other-key-than-that")
    assert answer.status_code == 401
    assert answers.calls == []


async def test_limits_are_the_ingress_s(answers):
    answer = await post(answers, {"max_documents": 1})
    assert answer.status_code == 413
    assert answers.calls == []


@pytest.mark.parametrize(
    ("server", "body", "headers", "most"),
    [
        ({}, {}, {}, None),
        ({"deadline_ms": 5000}, {}, {}, 5000),
        ({"deadline_ms": 5000}, {"deadline_ms": 9000}, {}, 9000),
        ({}, {"deadline_ms": 9000}, {"x-request-timeout-ms": "4000"}, 4000),
    ],
)
async def test_what_is_left_of_a_deadline_goes_along(answers, server, body, headers, most):
    assert (await post(answers, server, {**BODY, **body}, **headers)).status_code == 200
    (call,) = answers.calls
    if most is None:
        assert call.deadline_ms is None
    else:
        assert 0 < call.deadline_ms < most


def test_without_a_key_others_are_not_let_in(monkeypatch):
    monkeypatch.delenv("ICR_RAG_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="there is no API key"):
        make_server({})
    for server in ({"allow_public": True}, {"host": "127.0.0.1"}):
        assert make_server(server)


def test_a_key_is_not_sent_through_the_cluster(answers):
    with pytest.raises(ConfigError, match="would be sent through the cluster"):
        make_server({"api_key": KEY})
    given = {"keys_file": "keys", "host": "h", "deadline_ms": 5, "batch_tokens": 9}
    assert engine_settings(given, "small") == {"batch_tokens": 9, "model_name": "small"}


def test_without_ray_one_line_names_the_extra():
    hide = "import sys; sys.modules.update(dict.fromkeys(['ray', 'ray.serve']))\n"
    code = hide + "import icr_rag.server.ray_app"
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (
        outcome.stderr.strip()
        .splitlines()[-1]
        .endswith("The server on several machines needs ray: pip install 'icr-rag[ray]'")
    )
