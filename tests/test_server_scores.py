"""Which scores are served, by real rerankers on a tiny model; and their troubles."""

from __future__ import annotations

import asyncio
import copy
import errno

import httpx
import pytest
import torch
from server_parts import CONFIG, FakeReranker, served
from tiny import byte_tokenizer, tiny_model

from icr_rag import Document, Reranker, RerankerConfig
from icr_rag.errors import ConfigError, InputError
from icr_rag.server.app import create_app
from icr_rag.server.call import RerankCall
from icr_rag.server.engine import Engine
from icr_rag.server.one_by_one import OneByOne
from icr_rag.server.score_choice import load_served, public_name
from icr_rag.server.settings import ServerSettings

TEXTS = ["Lead is soft.", "Tin melts at 232 degrees.", "", "Zinc.", "Lead is soft."]
BODY = {"query": "Which metal melts first?", "documents": TEXTS}


def own(**fields):
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **fields)


async def asked(client, *bodies):
    """Scores by place, of requests that are sent at once."""
    found = await asyncio.gather(*(client.post("/v1/rerank", json=body) for body in bodies))
    assert [one.status_code for one in found] == [200] * len(bodies), [one.text for one in found]
    return [
        {row["index"]: row["relevance_score"] for row in one.json()["results"]} for one in found
    ]


def test_explained_scores_where_the_profile_has_no_calibration(model_folder):
    with load_served(RerankerConfig(model=model_folder)) as reranker:
        config = reranker.config
    assert (config.score_mode, config.fusion) == ("explained", "none")


@pytest.mark.real_weights
def test_probabilities_where_it_has_one(embedded_folder):
    with load_served(RerankerConfig()) as reranker:
        assert reranker.config.score_mode == "probability"


@pytest.mark.parametrize("mode", ["raw", "rank", "explained"])
def test_a_score_mode_that_is_asked_for_by_name_is_served(mode, model_folder, caplog):
    with load_served(RerankerConfig(model=model_folder, score_mode=mode)) as reranker:
        assert reranker.config.score_mode == mode
    assert ("relative to the documents of one request" in caplog.text) == (mode != "explained")


def test_a_method_without_scores_that_compare_must_be_asked_for_with_its_score_mode(model_folder):
    fields = {"model": model_folder, "scoring": "attention", "framework": "listwise"}
    with pytest.raises(ConfigError, match=r"ask for scores .* by name: score_mode='raw'"):
        load_served(RerankerConfig(**fields))
    with load_served(RerankerConfig(**fields, score_mode="raw")) as reranker:
        assert reranker.config.framework == "listwise"


@pytest.mark.parametrize(
    "fields",
    [
        {"top_n": 3}, {"score_threshold": 0.1}, {"near_duplicates": 0.8},
        {"score_mode": "explained", "min_answerable": 0.5}, {"on_error": "passthrough"},
        {"fusion": "rrf"}, {"first_stage_weights": {"order": 1}},
    ],
)  # fmt: skip
def test_settings_that_leave_something_out_of_an_answer_are_refused(fields, model_folder):
    config = RerankerConfig(model=model_folder, **fields)
    with pytest.raises(ConfigError, match=next(name for name in fields if name != "score_mode")):
        load_served(config)


@pytest.mark.parametrize("scoring", ["likelihood", "mixed", "attention"])
async def test_what_is_served_is_what_the_library_ranks(scoring):
    fields = {"scoring": scoring, "score_mode": "explained", "fusion": "none"}
    if scoring == "attention":
        fields["framework"] = "pointwise"
    reranker = own(**fields)
    bodies = [
        BODY,
        {"query": "What is soft?", "documents": TEXTS[::-1]},
        {"query": "Zinc?", "documents": TEXTS[:1]},
    ]
    expected = [reranker.rank(body["query"], body["documents"]).scores for body in bodies]
    async with served(reranker) as (_, client):
        for found, scores in zip(await asked(client, *bodies), expected, strict=True):
            assert found == pytest.approx(dict(enumerate(scores)), abs=1e-5)


@pytest.mark.parametrize("fields", [("colour",), ("title", "text", "colour")])
@pytest.mark.parametrize("written", ["lines", "yaml"])
@pytest.mark.parametrize("cache", [None, "memory"])
async def test_fields_are_written_for_the_model_once(fields, written, cache):
    reranker = own(scoring="likelihood", score_mode="explained", rank_fields=fields,
                   rank_fields_format=written)  # fmt: skip
    given = [
        {"title": "Metals", "text": "Tin is soft.", "colour": "white"},
        {"title": "Stones", "text": "Flint is hard.", "colour": "grey"},
    ]
    documents = [Document(own["text"], own["title"], None, own) for own in given]
    expected = reranker.rank(BODY["query"], documents).scores
    settings = ServerSettings(batch_wait_ms=0, score_cache=cache)
    async with served(reranker, settings) as (_, client):
        for _ in range(2):
            (found,) = await asked(client, {**BODY, "documents": given})
            assert found == pytest.approx(dict(enumerate(expected)), abs=1e-5)


async def test_the_limit_of_a_document_is_of_what_is_read_of_it():
    settings = ServerSettings(batch_wait_ms=0, max_document_chars=20)
    reranker = own(scoring="likelihood", score_mode="explained", rank_fields=("colour",))
    body = {**BODY, "documents": [{"text": "a", "colour": "grey " * 5}]}
    async with served(reranker, settings) as (_, client):
        found = await client.post("/v1/rerank", json=body)
        assert found.status_code == 413
        body["documents"] = [{"text": "a" * 21, "colour": "grey"}]
        assert (await client.post("/v1/rerank", json=body)).status_code == 200


async def test_a_lists_order_does_not_count_though_fusion_is_auto():
    """Not of a reranker that was given, either, whose order would count by default."""
    async with served(own(scoring="likelihood")) as (app, client):
        assert app.state.engine.config.fusion == "none"
        forth, back = await asked(client, BODY, {**BODY, "documents": TEXTS[::-1]})
    assert {4 - place: score for place, score in back.items()} == pytest.approx(forth, abs=1e-5)


async def test_parts_of_a_list_give_what_the_list_gives():
    """RAGFlow sends eight at a time."""
    async with served(own(scoring="likelihood", score_mode="explained")) as (_, client):
        whole, first, second = await asked(
            client, BODY, {**BODY, "documents": TEXTS[:2]}, {**BODY, "documents": TEXTS[2:]}
        )
    parts = {**first, **{place + 2: score for place, score in second.items()}}
    assert parts == pytest.approx(whole, abs=1e-5)


async def test_a_full_disk_costs_states_and_no_answer(tmp_path, monkeypatch):
    fields = {"scoring": "likelihood", "score_mode": "explained",
              "document_states": "independent", "states_dir": str(tmp_path)}  # fmt: skip
    expected = own(scoring="likelihood", score_mode="explained").rank(BODY["query"], TEXTS).scores

    def full(*arguments, **keywords):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("icr_rag.states.disk._write_whole", full)
    async with served(own(**fields)) as (_, client):
        (found,) = await asked(client, BODY)
        page = (await client.get("/metrics")).text
    assert found == pytest.approx(dict(enumerate(expected)), abs=1e-4)
    for name in ('icr_rag_states_found_total{where="nowhere"} ', "icr_rag_states_bytes "):
        assert float(page.split(f"\n{name}")[1].split()[0]) > 0


async def test_scores_are_kept_in_memory_and_come_back_the_same():
    reranker = own(scoring="likelihood", score_mode="explained", max_document_tokens=8)
    settings = ServerSettings(batch_wait_ms=0, score_cache="memory")
    async with served(reranker, settings) as (_, client):
        (first,) = await asked(client, BODY)
        while "icr_rag_score_cache_entries 3.0" not in (await client.get("/metrics")).text:
            pass
        calls = []
        reranker.rank = lambda *a, **k: calls.append(a)
        (again,) = await asked(client, {**BODY, "documents": TEXTS[::-1]})
    assert again == {4 - place: score for place, score in first.items()}
    assert calls == []


async def test_an_instruction_that_the_calibration_does_not_know_is_a_mistake_of_the_request():
    """Not of the server, and without naming its files."""
    reranker = own(scoring="likelihood", score_mode="explained")
    async with served(reranker) as (app, client):

        def refuse(*arguments, **keywords):
            raise ConfigError("profile='/secret/path' was fitted on scores of other prompt")

        app.state.engine.reranker.rank = refuse
        found = await client.post("/v1/rerank", json={**BODY, "instruction": "Find what melts."})
    assert found.status_code == 422
    assert "secret" not in found.text
    # Nor do agents look for the mistake elsewhere.
    alone = OneByOne(reranker.config, lambda config: reranker)
    reranker.rank = refuse
    with pytest.raises(InputError, match="leave out its instruction") as told:
        await alone.rerank(RerankCall("q", (Document("a"),), instruction="Find what melts."))
    assert "secret" not in str(told.value)


def test_a_score_cache_for_what_would_not_use_it_is_refused():
    engine = Engine(CONFIG, FakeReranker, ServerSettings())
    settings = ServerSettings(score_cache="redis://:secret@localhost/0")
    with pytest.raises(ConfigError, match="Engine has a cache of its own or none") as told:
        create_app(engine, settings)
    assert "secret" not in str(told.value)


def test_making_an_application_loads_nothing(monkeypatch, model_folder):
    monkeypatch.setattr("icr_rag.calls.load.load_engine", lambda *a, **k: pytest.fail("loaded"))
    create_app(RerankerConfig(model=model_folder))


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("org/name", "org/name"), ("smollm2-135m", "smollm2-135m"), ("/a/b/c.gguf", "c"),
        ("./models/qwen", "qwen"), ("~/models/qwen", "qwen"), ("C:\\models\\qwen", "qwen"),
    ],
)  # fmt: skip
def test_a_models_name_does_not_tell_where_it_is(model, name):
    assert public_name(model) == name


async def test_a_request_and_its_ranking_are_one_trace():
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    from icr_rag import telemetry
    from icr_rag.server import traces

    spans = memory.InMemorySpanExporter()
    provider = trace.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(spans))
    with pytest.MonkeyPatch.context() as patch:
        for module in (telemetry, traces):
            patch.setattr(module, "tracer", lambda: provider.get_tracer("test"))
        reranker = own(scoring="likelihood", score_mode="explained", traces="numbers")
        async with served(reranker) as (_, client):
            spans.clear()
            parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
            await client.post("/v1/rerank", json=BODY, headers={"traceparent": parent})
    inner, outer = spans.get_finished_spans()
    assert outer.name == "POST /v1/rerank"
    assert inner.parent.span_id == outer.context.span_id
    assert f"{outer.context.trace_id:032x}" in parent


async def test_scores_of_weights_that_were_changed_come_from_no_cache():
    model = copy.deepcopy(tiny_model("llama"))
    settings = {"score_mode": "explained", "fusion": "none", "scoring": "likelihood"}
    reranker = Reranker.from_model(model, byte_tokenizer(), **settings)
    app = create_app(reranker, ServerSettings(batch_wait_ms=0, score_cache="memory"))
    weight = reranker.engine.causal.lm_head.weight

    async def scores(client):
        answer = (await client.post("/v1/rerank", json=BODY)).json()
        # What is kept is put there in a thread, for which no answer waits.
        app.state.engine._lookups.submit(lambda: None).result()
        found = {row["index"]: row["relevance_score"] for row in answer["results"]}
        return [found[place] for place in range(len(TEXTS))], answer["meta"]["cached"]

    async with app.router.lifespan_context(app):
        await app.state.engine.loaded.wait()
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            before, _ = await scores(client)
            assert any([(await scores(client))[1] for _ in range(20)])
            with torch.no_grad():
                weight.mul_(1.5)
            for _ in range(2):
                changed, cached = await scores(client)
                assert cached == 0
                expected = reranker.rank(BODY["query"], TEXTS).scores
                assert changed == pytest.approx(list(expected), abs=1e-5)
            assert changed != pytest.approx(before, abs=1e-4)
