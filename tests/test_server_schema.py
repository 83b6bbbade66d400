"""Requests made from the server's own description, valid and not: each is answered or refused."""

from __future__ import annotations

import httpx
import schemathesis
from hypothesis import HealthCheck, settings
from known_answers import KnownAnswers

from icr_rag.errors import ConfigError
from icr_rag.server.app import create_app
from icr_rag.server.settings import ServerSettings

APP = create_app(KnownAnswers(), ServerSettings(max_body_bytes=100_000, log_format="text"))
schema = schemathesis.openapi.from_asgi("/openapi.json", APP)


@schema.parametrize()
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_no_request_makes_the_server_fail(case):
    answer = case.call()
    # 503 is `/ready` of an application whose lifespan has not begun.
    allowed = {503} if case.path == "/ready" else set()
    assert answer.status_code < 500 or answer.status_code in allowed, case.as_curl_command()


def test_the_description_has_every_path_that_ranks():
    described = set(APP.openapi()["paths"])
    assert {"/v1/rerank", "/v2/rerank", "/rerank", "/v1/ranking", "/v1/models"} <= described


async def test_an_answer_has_the_request_s_id_and_no_path_of_a_setting():
    body = {"query": "a", "documents": ["a", "b"]}
    for error in (None, ConfigError("profile='/home/secret/heads.json' is not for this")):
        app = create_app(KnownAnswers(error=error))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.post("/v1/rerank", json=body, headers={"x-request-id": "mine-7"})
        assert answer.headers["x-request-id"] == answer.json()["id"] == "mine-7"
        assert "secret" not in answer.text
        assert answer.status_code == (200 if error is None else 422)
