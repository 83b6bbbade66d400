"""Requests made from the server's own OpenAPI description, right ones and wrong ones: each is
answered as it says there, and none brings the server down."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks
from server_parts import served

from icr_rag.server.asgi import Failure
from icr_rag.server.openapi import OwnProblem

#: Of each path, right requests and wrong ones each; so few that all take seconds.
EXAMPLES = 15
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
#: What no schema says: why a request that fits it is refused all the same.
SEMANTIC = (
    "none of the fields in rank_fields",
    "allowed are 'retrieval', 'question_answering' or a whole sentence",
    # A body of one shape with a field by which another one is told.
    "documents: ", "texts: ", "passages: ", "input",
)  # fmt: skip
RANKS = [
    "/v1/rerank", "/v2/rerank", "/rerank", "/v1/reranks", "/infinity/rerank", "/v1/ranking",
    "/v1/retrieval/{model}/reranking", "/api/v1/services/rerank/text-rerank/text-rerank",
]  # fmt: skip
TELLS = ["/health", "/ready", "/metrics", "/v1/models", "/info"]


class Running:
    """One application that lives on a loop of its own, with the description that it gives."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self._stack = AsyncExitStack()
        _, self._client = self._run(self._stack.enter_async_context(served()))
        self.schema = schemathesis.openapi.from_dict(self._run(self._fetched()))

    def send(self, case):
        """What a case is answered. The cases' own client would start the application each time."""
        made = case.as_transport_kwargs(base_url="http://server")
        body = {"content": made["data"]} if "data" in made else {"json": made.get("json")}
        sent = self._client.request(made["method"], made["url"], headers=made["headers"], **body)
        return self._run(sent)

    def close(self):
        self._run(self._stack.aclose())
        self.loop.close()

    async def _fetched(self):
        return (await self._client.get("/openapi.json")).json()

    def _run(self, work):
        return self.loop.run_until_complete(work)


@pytest.fixture(scope="module")
def running():
    found = Running()
    yield found
    found.close()


def tried(running, method, path, mode):
    """How often each status came back, of requests that were all answered as described."""
    statuses = {}

    @settings(max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
    @given(case=running.schema[path][method].as_strategy(mode))
    def each(case):
        response = running.send(case)
        case.validate_response(response, checks=CHECKS)
        if mode is GenerationMode.POSITIVE and response.status_code == 422:
            assert any(words in response.text for words in SEMANTIC), response.text
        statuses[response.status_code] = statuses.get(response.status_code, 0) + 1

    each()
    return statuses


@pytest.mark.parametrize("path", RANKS)
def test_what_fits_the_description_is_ranked(path, running):
    statuses = tried(running, "POST", path, GenerationMode.POSITIVE)
    assert set(statuses) <= {200, 422}
    assert statuses[200] > statuses.get(422, 0)


@pytest.mark.parametrize("path", RANKS)
def test_what_does_not_is_refused_as_described(path, running):
    statuses = tried(running, "POST", path, GenerationMode.NEGATIVE)
    # Strings of digits for numbers, and others, are taken on purpose.
    assert set(statuses) <= {200, 400, 404, 422}
    assert statuses[422] > 0


@pytest.mark.parametrize("path", TELLS)
def test_what_the_server_tells_of_itself_is_as_described(path, running):
    assert set(tried(running, "GET", path, GenerationMode.POSITIVE)) == {200}


def test_every_path_is_tried(running):
    assert sorted(running.schema) == sorted(RANKS + TELLS)


def test_errors_in_no_clients_shape_are_described():
    assert set(Failure(400, "invalid", "why").body) == set(OwnProblem.model_fields)
