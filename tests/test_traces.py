"""Spans of rankings: what they say, what they do not say, and that there are none by default."""

from __future__ import annotations

import asyncio
import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from tiny import byte_tokenizer, tiny_model

from icr_rag import (
    ConfigError,
    Document,
    InputError,
    MissingDependencyError,
    Reranker,
    RerankerConfig,
)
from icr_rag.calls.traces import MOST_DOCUMENTS
from icr_rag.server.score_key import ScoreKeys
from icr_rag.server.traces import TracedRequests

SECRET = "the vault opens with sesame"
DOCUMENTS = [Document("tin melts", id="t"), Document(SECRET), Document("lead is soft", id="l")]
LIKELIHOOD = {"scoring": "likelihood", "fusion": "none"}


@pytest.fixture
def spans(monkeypatch):
    """Gives the spans that have ended, oldest first."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter.get_finished_spans
    provider.shutdown()


def made(traces="numbers", **fields):
    config = RerankerConfig(model="tiny", **{**LIKELIHOOD, "traces": traces, **fields})
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), config)


def everything(span):
    """All that a span says, as text."""
    events = [dict(event.attributes) for event in span.events]
    return repr([span.name, dict(span.attributes), events, span.status.description])


def test_there_are_none_by_default_and_the_api_is_not_even_imported(spans, monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    with made("none") as reranker:
        reranker.rank("tin?", DOCUMENTS)
        reranker.rank_many(["tin?"], [DOCUMENTS])
    assert not spans()


def test_a_ranking_is_one_span_with_numbers_and_no_texts(spans):
    with made() as reranker:
        ranking = reranker.rank("open sesame?", DOCUMENTS, top_n=2, max_tokens_per_doc=9)
    [span] = spans()
    said = dict(span.attributes)
    assert span.name == "rerank tiny"
    usage = ranking.usage
    expected = {
        "openinference.span.kind": "RERANKER",
        "reranker.model_name": "tiny",
        "reranker.top_k": 2,
        "gen_ai.operation.name": "rerank",
        "gen_ai.request.model": "tiny",
        "gen_ai.usage.input_tokens": usage.tokens,
        "icr_rag.scoring": "likelihood",
        "icr_rag.score_mode": "raw",
        "icr_rag.documents.in": 3,
        "icr_rag.documents.out": 2,
        "icr_rag.documents.truncated": 3,
        "icr_rag.prompts": 3,
        "icr_rag.states.evicted": 0,
        "icr_rag.seconds.total": usage.seconds["total"],
        "icr_rag.seconds.forward": usage.seconds["forward"],
    }
    assert {name: said[name] for name in expected} == expected
    for number, hit in enumerate(ranking):
        own = f"reranker.output_documents.{number}.document"
        assert said[f"{own}.score"] == hit.score
        assert said[f"{own}.id"] == (hit.document.id or hit.index)
    assert said["reranker.input_documents.0.document.id"] == "t"
    assert said["reranker.input_documents.1.document.id"] == 1
    assert "sesame" not in everything(span)
    assert "reranker.query" not in said
    assert span.status.status_code is StatusCode.UNSET


def test_texts_are_there_where_they_are_asked_for(spans):
    with made("texts") as reranker:
        reranker.rank("open sesame?", DOCUMENTS)
    said = dict(spans()[0].attributes)
    assert said["reranker.query"] == "open sesame?"
    assert said["reranker.input_documents.1.document.content"] == SECRET
    outputs = [said[f"reranker.output_documents.{n}.document.content"] for n in range(3)]
    assert sorted(outputs) == sorted(own.text for own in DOCUMENTS)


def test_a_long_list_leaves_room_for_the_rest(spans):
    documents = [Document(f"tin {number}", id=str(number)) for number in range(40)]
    with made("texts") as reranker:
        reranker.rank("tin?", documents)
    [span] = spans()
    assert span.dropped_attributes == 0
    named = [name for name in span.attributes if name.endswith("document.score")]
    assert len(named) == MOST_DOCUMENTS
    assert span.attributes["icr_rag.documents.in"] == 40


@pytest.mark.parametrize(("traces", "told"), [("numbers", False), ("texts", True)])
def test_an_error_is_its_type(spans, monkeypatch, traces, told):
    with made(traces) as reranker:
        with pytest.raises(InputError):
            reranker.rank(" ", DOCUMENTS)

        def fail(*args):
            raise RuntimeError(SECRET)

        monkeypatch.setattr(type(reranker), "_score", fail)
        with pytest.raises(RuntimeError):
            reranker.rank("tin?", DOCUMENTS)
    blank, failed = spans()
    assert blank.attributes["error.type"] == "InputError"
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.status.description == failed.attributes["error.type"] == "RuntimeError"
    [event] = failed.events
    assert (event.name, event.attributes["exception.type"]) == ("exception", "RuntimeError")
    assert ("exception.message" in event.attributes) is told
    if not told:
        assert "sesame" not in everything(failed) + everything(blank)


def test_a_failure_that_is_passed_through_is_marked(spans, monkeypatch, caplog):
    def fail(*args):
        raise RuntimeError(SECRET)

    with made(on_error="passthrough") as reranker:
        monkeypatch.setattr(type(reranker), "_score", fail)
        assert reranker.rank("tin?", DOCUMENTS).error
    [span] = spans()
    assert span.attributes["error.type"] == "RuntimeError"
    assert "sesame" not in everything(span)


def test_what_a_deadline_left_out_is_told(spans):
    with made(deadline_ms=1e-9) as reranker:
        reranker.rank("tin?", DOCUMENTS)
    [span] = spans()
    assert span.attributes["icr_rag.documents.unscored"] == 3
    assert "icr_rag.degraded" in span.attributes


async def test_an_asynchronous_ranking_has_its_parent(spans):
    with made() as reranker, trace.get_tracer("test").start_as_current_span("caller") as caller:
        await asyncio.gather(*(reranker.arank("tin?", DOCUMENTS) for _ in range(2)))
        await reranker.arank("tin?", DOCUMENTS, deadline_ms=60_000)
    *ranked, _ = spans()
    parents = {span.parent.span_id for span in ranked}
    assert (len(ranked), parents) == (3, {caller.get_span_context().span_id})


def test_several_rankings_stand_under_one_span(spans):
    with made() as reranker:
        found = reranker.rank_many(["tin?", "lead?"], [DOCUMENTS, DOCUMENTS[:2]])
    first, second, whole = spans()
    assert whole.name == "rerank_many tiny"
    assert whole.attributes["icr_rag.queries"] == 2
    assert whole.attributes["gen_ai.usage.input_tokens"] == sum(r.usage.tokens for r in found)
    for span in (first, second):
        assert span.parent.span_id == whole.context.span_id


def test_encoding_is_a_span(spans):
    with made(document_states="independent") as reranker:
        done = reranker.encode(DOCUMENTS)
        reranker.rank("tin?", DOCUMENTS)
    encoded, ranked = spans()
    assert encoded.name == "encode tiny"
    assert encoded.attributes["icr_rag.documents.new"] == 3
    assert encoded.attributes["gen_ai.usage.input_tokens"] == done.tokens
    assert ranked.name == "rerank tiny"


def test_an_adapter_is_traced_by_its_reranker(spans):
    from langchain_core.documents import Document as Given

    from icr_rag.integrations.langchain import ICRRerank

    rerank = ICRRerank(reranker=made())
    rerank.compress_documents([Given(page_content=own.text) for own in DOCUMENTS], "tin?")
    [span] = spans()
    assert span.attributes["icr_rag.documents.in"] == 3


@pytest.mark.parametrize("traces", ["numbers", "texts"])
def test_scores_and_keys_do_not_depend_on_traces(spans, traces):
    explained = {"score_mode": "explained"}
    with made("none", **explained) as plain, made(traces, **explained) as traced:
        query = "tin?"
        assert plain.rank(query, DOCUMENTS).scores == traced.rank(query, DOCUMENTS).scores
        assert ScoreKeys.of(plain) == ScoreKeys.of(traced)


def test_without_the_api_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    reranker = made(on_error="passthrough")
    with pytest.raises(MissingDependencyError, match=r"pip install 'icr-rag\[otel\]'"):
        reranker.rank("tin?", DOCUMENTS)
    with pytest.raises(MissingDependencyError, match="otel"):
        TracedRequests(Starlette())


def test_other_values_are_refused():
    with pytest.raises(ConfigError, match="traces='loud'"):
        Reranker(traces="loud")


# --- a server's requests ----------------------------------------------------------------------

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def served(reranker=None):
    async def rank(request):
        await reranker.arank("tin?", DOCUMENTS)
        return PlainTextResponse("done")

    async def fail(request):
        raise RuntimeError(SECRET)

    routes = [Route("/rank/{name}", rank, methods=["POST"]), Route("/fail", fail)]
    return TestClient(TracedRequests(Starlette(routes=routes)), raise_server_exceptions=False)


def test_a_request_continues_the_trace_of_its_caller(spans):
    with made() as reranker:
        assert served(reranker).post("/rank/x?q=s", headers={"traceparent": PARENT}).text == "done"
    ranked, request = spans()
    assert request.kind is SpanKind.SERVER
    assert f"{request.context.trace_id:032x}" == PARENT.split("-")[1]
    assert f"{request.parent.span_id:016x}" == PARENT.split("-")[2]
    assert ranked.parent.span_id == request.context.span_id
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["http.request.method"] == "POST"


@pytest.mark.parametrize("header", ["", "rubbish", "00-0-0-01", PARENT + "\x01"])
def test_what_is_no_trace_begins_a_new_one(spans, header):
    assert served().get("/nowhere", headers={"traceparent": header}).status_code == 404
    [request] = spans()
    assert request.parent is None
    assert request.attributes["http.response.status_code"] == 404
    assert request.status.status_code is StatusCode.UNSET


def test_a_request_that_fails_is_marked_without_its_message(spans):
    assert served().get("/fail").status_code == 500
    [request] = spans()
    assert request.status.status_code is StatusCode.ERROR
    assert "sesame" not in everything(request)
