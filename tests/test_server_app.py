"""The application over ASGI: what stands before the routes, and every fault with its answer."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from fastapi import APIRouter, WebSocket
from server_parts import BODY, CONFIG, FakeReranker, begun, score, served, until

from icr_rag.errors import ConfigError, ModelLoadError
from icr_rag.server.bodies import Bodies
from icr_rag.server.engine import Engine
from icr_rag.server.known import KnownScores
from icr_rag.server.nesting import DEEPEST
from icr_rag.server.outermost import deadline_of
from icr_rag.server.settings import ServerSettings

KEYS = ServerSettings(batch_wait_ms=0, api_key="a-secret-key")


def metric(text, name):
    """The value of a metric by its name and labels."""
    lines = [line for line in text.splitlines() if line.startswith(name + " ")]
    return float(lines[0].split()[-1]) if lines else None


async def test_a_ranking_comes_back_with_its_id():
    async with served() as (_, client):
        found = await client.post("/v1/rerank", json=BODY, headers={"x-request-id": "mine-1"})
        other = await client.post("/v1/rerank", json=BODY, headers={"x-request-id": "a\tb" * 99})
    assert found.status_code == 200
    assert found.headers["x-request-id"] == found.json()["id"] == "mine-1"
    assert len(other.headers["x-request-id"]) == 32
    scores = {row["index"]: row["relevance_score"] for row in found.json()["results"]}
    assert scores == {n: score("q", text) for n, text in enumerate(BODY["documents"])}


async def test_it_lives_at_once_and_is_ready_when_warm():
    reranker = FakeReranker()
    reranker.hold()

    def load():
        reranker.go_on.wait(60)
        return reranker

    engine = Engine(CONFIG, load, ServerSettings(batch_wait_ms=0))
    async with served(engine, warm=False) as (_, client):
        assert (await client.get("/health")).json()["status"] == "ok"
        waiting = await client.get("/ready")
        assert (waiting.status_code, waiting.json()) == (503, {"status": "loading"})
        reranker.go_on.set()
        await engine.loaded.wait()
        assert (await client.get("/ready")).status_code == 200
        await engine.stop()
        assert (await client.get("/ready")).json() == {"status": "shutting down"}
        refused = await client.post("/v1/rerank", json=BODY)
        assert refused.status_code == 503


async def test_a_model_that_does_not_load_is_a_503_without_its_path():
    def load():
        raise ModelLoadError("nothing at /secret/path")

    async with served(Engine(CONFIG, load, ServerSettings())) as (_, client):
        assert (await client.get("/ready")).json() == {"status": "failed"}
        found = await client.post("/v1/rerank", json=BODY)
        assert found.status_code == 503
        assert "secret" not in found.text


# --- keys -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer a-secret-key"}, 200),
        ({"authorization": "bearer a-secret-key"}, 200),
        ({"x-api-key": "a-secret-key"}, 200),
        ({"api-key": "a-secret-key"}, 200),
        ({"authorization": "Basic a-secret-key"}, 401),
        ({"authorization": "Bearer a-secret-kez"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"x-api-key": "a-secret-key2"}, 401),
        ({"authorization": "Bearer \u00fc".encode("latin-1")}, 401),
    ],
)
async def test_keys(headers, status):
    async with served(settings=KEYS) as (_, client):
        found = await client.post("/v1/rerank", json=BODY, headers=headers)
        assert found.status_code == status
        if status == 401:
            assert "API key" in found.json()["message"] == found.json()["error"]
            assert found.headers["www-authenticate"] == "Bearer"
        # Probes have no key, nor has the page that asks for one; numbers are not for all.
        page = await client.get("/")
        assert page.headers["content-type"].startswith("text/html")
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/ready")).status_code == 200
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.post("/health")).status_code == 401


async def test_a_key_is_not_cut_at_a_character_of_its_own(tmp_path):
    file = tmp_path / "keys"
    file.write_text("#none-of-these\n \t# nor this\nlong-secret#part\t#of a friend\n")
    async with served(settings=ServerSettings(keys_file=str(file))) as (_, client):
        for key, status in (("long-secret#part", 200), ("long-secret", 401)):
            headers = {"x-api-key": key}
            found = await client.post("/v1/rerank", json=BODY, headers=headers)
            assert found.status_code == status


async def test_nobody_talks_through_a_socket_without_a_key():
    """Of routes that an application adds."""
    settings = ServerSettings(api_key="secret-key")
    sent = []

    def talking(answers):
        router = APIRouter()

        @router.websocket("/talk")
        async def talk(socket: WebSocket):
            await socket.accept()
            await socket.close()

        return router

    async def send(message):
        sent.append(message["type"])

    async def receive():
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/talk", "raw_path": b"/talk", "query_string": b"",
             "scheme": "ws", "root_path": "", "subprotocols": [],
             "asgi": {"version": "3.0"}}  # fmt: skip
    async with served(settings=settings, routes=[talking]) as (app, _):
        await app({**scope, "headers": []}, receive, send)
        assert sent == ["websocket.close"]
        await app({**scope, "headers": [(b"x-api-key", b"secret-key")]}, receive, send)
        assert sent[1] == "websocket.accept"


async def test_keys_are_rotated_without_a_restart(tmp_path):
    file = tmp_path / "keys"
    file.write_text("# ours\nfirst-key-1  # of a friend\n")
    settings = ServerSettings(keys_file=str(file))

    async def status(client, key):
        found = await client.post("/v1/rerank", json=BODY, headers={"x-api-key": key})
        return found.status_code

    async with served(settings=settings) as (_, client):
        assert [await status(client, key) for key in ("first-key-1", "second-key")] == [200, 401]
        file.write_text("second-key\n")
        assert [await status(client, key) for key in ("first-key-1", "second-key")] == [401, 200]
        # Between two steps of an editor the keys stay; without any nobody comes in.
        file.unlink()
        assert await status(client, "second-key") == 200
        file.write_text("# none\n")
        assert await status(client, "second-key") == 401


# --- bodies ---------------------------------------------------------------------------------


NESTED = 100_000


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "JSON"),
        (b"", 400, ""),
        (b'{"query": "\xff"}', 400, "not UTF-8 at byte 11"),
        ('{"query": "q", "documents": ["a"]}'.encode("utf-16"), 400, "UTF-8"),
        ('{"query": "q", "documents": ["a"]}'.encode("utf-16-le"), 400, "zero bytes"),
        (b"[" * NESTED, 400, f"more than {DEEPEST} levels"),
        (b'{"query":' * NESTED + b"1" + b"}" * NESTED, 400, "strings"),
        (b'{"query":"\\"' + b"[" * NESTED, 400, ""),
        (b'{"query": "q", "documents": ' + b"[" * 40 + b"]" * 40 + b"}", 400, "levels"),
        (b'{"query": "q", "documents": [' + b"[]," * 50_000 + b"[]]}", 400, "lists and objects"),
        (b'{"query": "q", "documents": ["a"], "top_n": ' + b"9" * 5000 + b"}", None, ""),
        (b'{"query": "q", "documents": [' + b"1," * 10**6 + b"1]}", 400, "outside of strings"),
        (b'{"query": "q", "documents": [], "x": [' + b"9" * 10**6 + b"]}", 400, "no JSON"),
        (b'{"query": "q", "documents": 7}', 422, "documents"),
        (b'{"query": "q\\ud800", "documents": ["a"]}', None, ""),
    ],
)
async def test_what_is_no_request_is_told_and_no_failure(body, status, words):
    async with served() as (_, client):
        found = await client.post(
            "/v1/rerank", content=body, headers={"content-type": "application/json"}
        )
        assert found.status_code in ((status,) if status else (400, 422)), found.text
        assert words in found.text
        assert (await client.post("/v1/rerank", json=BODY)).status_code == 200


async def test_a_hundred_thousand_documents_are_too_many():
    body = {"query": "q", "documents": ["text"] * 100_000}
    async with served() as (_, client):
        found = await client.post("/v1/rerank", json=body)
        assert found.status_code in (400, 413), found.text
        # Within the bounds of parsing, the engine says how many.
        found = await client.post("/v1/rerank", json={**body, "documents": ["text"] * 1001})
        assert found.status_code == 413
        assert "1001 documents in one request; this server allows 1000" in found.text


def test_brackets_and_escapes_in_texts_are_no_nesting():
    from icr_rag.server.nesting import wrong_json

    texts = ["[" * 100, '"' * 50, "\\" * 51, '\\"[', "{" * 60 + '"', "\\\\", '["\\']
    body = json.dumps({"query": "q", "documents": texts}).encode()
    assert wrong_json(body, 1000) is None
    assert "levels" in wrong_json(body[:-1] + b', "x": ' + b"[" * 40, 1000)


class Wire:
    """A client that sends what a test says, piece by piece, as a server sees it."""

    def __init__(self, *messages):
        self.messages = list(messages)
        self.taken = 0
        self.sent = []
        self.gone = asyncio.Event()

    async def receive(self):
        if self.taken < len(self.messages):
            self.taken += 1
            return self.messages[self.taken - 1]
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)

    async def ask(self, app, headers=(), path="/v1/rerank"):
        scope = {
            "type": "http", "method": "POST", "path": path, "raw_path": path.encode(),
            "query_string": b"", "headers": list(headers), "http_version": "1.1",
            "scheme": "http", "server": ("server", 80), "client": ("client", 1), "root_path": "",
            "asgi": {"version": "3.0"},
        }  # fmt: skip
        await app(scope, self.receive, self.send)

    @property
    def status(self):
        return self.sent[0]["status"] if self.sent else None


def piece(body=b"x" * 2**20, more=True):
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_body_that_is_announced_too_large_is_not_read():
    wire = Wire(*[piece()] * 100)
    async with served() as (app, _):
        await wire.ask(app, [(b"content-length", str(100 * 2**20).encode())])
    assert (wire.status, wire.taken) == (413, 0)
    assert (b"connection", b"close") in wire.sent[0]["headers"]


async def test_a_body_that_turns_out_too_large_is_read_no_further():
    wire = Wire(*[piece()] * 100)
    async with served() as (app, _):
        await wire.ask(app)
    assert wire.status == 413
    # 16 MiB are allowed.
    assert wire.taken == 17


async def test_large_bodies_at_once_are_bounded_together():
    held = asyncio.Event()

    async def app(scope, receive, send):
        await held.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    bodies = Bodies(app, ServerSettings(max_body_bytes=2**20))
    wires = [Wire(piece(b" " * 2**20, more=False)) for _ in range(9)]
    tasks = [asyncio.ensure_future(wire.ask(bodies)) for wire in wires]
    await until(lambda: tasks[8].done())
    assert wires[8].status == 429
    held.set()
    await asyncio.gather(*tasks)
    assert [wire.status for wire in wires[:8]] == [200] * 8
    assert bodies._held == 0


async def test_a_body_that_does_not_come_is_a_408():
    wire = Wire(piece(b'{"query"'))
    async with served(settings=ServerSettings(body_timeout=0.01)) as (app, _):
        await wire.ask(app)
    assert wire.status == 408
    assert b"within 0.01 s" in wire.sent[1]["body"]


async def test_who_goes_away_in_his_body_gets_no_answer():
    wire = Wire(piece(b'{"query"'))
    wire.gone.set()
    async with served() as (app, client):
        await wire.ask(app)
        assert wire.sent == []
        assert '{route="other",status="499"} 1.0' in (await client.get("/metrics")).text


async def test_who_hangs_up_while_waiting_leaves_the_line():
    reranker = FakeReranker()
    async with served(reranker) as (app, client):
        reranker.hold()
        first = asyncio.ensure_future(client.post("/v1/rerank", json=BODY))
        await begun(reranker)
        wire = Wire(piece(json.dumps({**BODY, "query": "gone"}).encode(), more=False))
        asking = asyncio.ensure_future(wire.ask(app))
        await until(lambda: len(app.state.engine._line) == 1)
        wire.gone.set()
        await asking
        assert wire.sent == []
        reranker.go_on.set()
        assert (await first).status_code == 200
        page = (await client.get("/metrics")).text
    assert reranker.alone == ["q"]
    assert metric(page, 'icr_rag_hung_up_total{while_it_was="waiting"}') == 1


# --- what goes wrong inside -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "status", "kind"), [("memory", 503, "out_of_memory"), ("defect", 500, "internal")]
)
async def test_a_failure_is_told_without_details(query, status, kind, caplog):
    caplog.set_level(logging.INFO, "icr_rag")
    async with served() as (_, client):
        found = await client.post("/v1/rerank", json={**BODY, "query": query})
        assert (found.status_code, found.json()["error_type"]) == (status, kind)
        assert (await client.post("/v1/rerank", json=BODY)).status_code == 200
    for text in (found.text, caplog.text):
        assert "secret" not in text
        assert "Traceback" not in text
    assert found.headers["x-request-id"] in caplog.text


async def test_a_full_line_is_a_429_that_says_when_to_come_back():
    reranker = FakeReranker()
    async with served(reranker, ServerSettings(batch_wait_ms=0, queue_requests=1)) as (app, client):
        reranker.hold()
        tasks = [asyncio.ensure_future(client.post("/v1/rerank", json=BODY))]
        await begun(reranker)
        tasks.append(asyncio.ensure_future(client.post("/v1/rerank", json=BODY)))
        await until(lambda: len(app.state.engine._line) == 1)
        full = await client.post("/v1/rerank", json=BODY)
        assert full.status_code == 429
        assert int(full.headers["retry-after"]) >= 1
        assert metric((await client.get("/metrics")).text, "icr_rag_queue_requests") == 1
        reranker.go_on.set()
        assert [found.status_code for found in await asyncio.gather(*tasks)] == [200, 200]


async def test_requests_in_flight_are_finished_on_shutdown():
    reranker = FakeReranker()
    async with served(reranker) as (app, client):
        reranker.hold()
        task = asyncio.ensure_future(client.post("/v1/rerank", json=BODY))
        await begun(reranker)
        stopping = asyncio.ensure_future(app.state.engine.stop())
        await until(lambda: not app.state.engine.ready)
        assert (await client.post("/v1/rerank", json=BODY)).status_code == 503
        reranker.go_on.set()
        assert (await task).status_code == 200
        await stopping


async def test_other_methods_are_told_which_there_are_and_probes_may_ask_without_a_body():
    async with served() as (_, client):
        for path in ("/health", "/ready", "/"):
            found = await client.head(path)
            assert (found.status_code, found.text) == (200, "")
        found = await client.get("/v1/rerank")
        assert (found.status_code, found.headers["allow"]) == (405, "POST")


async def test_paths_that_are_not_there_are_told_in_the_same_shape():
    async with served() as (_, client):
        found = await client.get("/no/such/path")
        assert (found.status_code, found.json()["error_type"]) == (404, "not_found")
        assert (await client.get("/v1/rerank")).status_code == 405
        # Of paths there is no end, of routes there is.
        assert "no/such" not in (await client.get("/metrics")).text


# --- the score cache ------------------------------------------------------------------------


class Store(dict):
    broken = False

    def get(self, keys):
        if self.broken:
            raise ConnectionError("secret address")
        return [super(Store, self).get(key) for key in keys]

    def put(self, scores):
        if self.broken:
            raise ConnectionError("secret address")
        self.update(scores)


def key(query, document, instruction, max_tokens):
    return repr((query, document.content, instruction, max_tokens)).encode()


async def test_known_scores_are_not_computed_again_and_answers_are_the_same():
    reranker, store = FakeReranker(), Store()
    async with served(reranker, engine={"cache": lambda _, own: KnownScores(store, key, own)}) as (
        _,
        client,
    ):
        body = {"query": "q", "documents": ["one", " ", "two"]}
        first = (await client.post("/v1/rerank", json=body)).json()
        await until(lambda: len(store) == 2)
        again = (await client.post("/v1/rerank", json=body)).json()
        assert again["results"] == first["results"]
        assert reranker.alone == ["q"]
        more = (await client.post("/v1/rerank", json={**body, "documents": ["new", "two"]})).json()
        found = {row["index"]: row["relevance_score"] for row in more["results"]}
        assert found == {0: score("q", "new"), 1: score("q", "two")}
        assert metric((await client.get("/metrics")).text, "icr_rag_cached_scores_total") == 3


async def test_a_cache_that_fails_is_done_without_and_counted(caplog):
    from icr_rag.server.meters import Meters

    store, meters = Store(), Meters()
    store.broken = True
    made = {"cache": lambda _, own: KnownScores(store, key, own)}
    async with served(FakeReranker(), engine=made, meters=meters) as (_, client):
        assert (await client.post("/v1/rerank", json=BODY)).status_code == 200
        await until(lambda: meters._cache_errors._value.get() == 2)
        assert metric((await client.get("/metrics")).text, "icr_rag_cache_errors_total") == 2
        store.broken = False
        await client.post("/v1/rerank", json=BODY)
        await until(lambda: len(store) == 3)
    warnings = [r for r in caplog.records if r.name == "icr_rag.server.known"]
    assert len(warnings) == 1
    assert "secret" not in caplog.text


async def test_scores_that_are_relative_to_a_list_are_not_kept():
    reranker = FakeReranker(CONFIG.replace(score_mode="raw"))
    made = {"cache": lambda *_: pytest.fail("asked")}
    async with served(reranker, engine=made) as (app, _):
        assert isinstance(app.state.engine.failure, ConfigError)


# --- deadlines and logs ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "milliseconds"),
    [
        ({}, None),
        ({"x-request-timeout-ms": "250"}, 250),
        ({"x-stainless-read-timeout": "10"}, 9500),
        ({"x-stainless-read-timeout": "600.0", "x-request-timeout-ms": "1000"}, 1000),
        ({"x-stainless-timeout": "2"}, 1900),
        ({"x-envoy-expected-rq-timeout-ms": "100"}, 95),
        *(({"x-request-timeout-ms": text}, None) for text in ("soon", "", "-5", "0", "nan", "inf")),
    ],
)
def test_headers_say_how_long_a_client_waits(headers, milliseconds):
    found = deadline_of(
        {"headers": [(name.encode(), text.encode()) for name, text in headers.items()]}
    )
    assert found == (None if milliseconds is None else pytest.approx(milliseconds))


async def test_a_deadline_in_a_header_reaches_the_library():
    reranker = FakeReranker()
    async with served(reranker) as (_, client):
        await client.post("/v1/rerank", json=BODY, headers={"x-stainless-read-timeout": "60"})
    assert 0 < reranker.deadlines[0] <= 57_000


async def test_a_log_line_has_numbers_and_no_texts(caplog):
    from icr_rag.server.logs import Lines

    caplog.set_level(logging.INFO, "icr_rag.server.access")
    body = {"query": "private question", "documents": ["private text"]}
    async with served() as (_, client):
        await client.post("/v1/rerank?private=1", json=body, headers={"x-request-id": "r1"})
    record = next(r for r in caplog.records if r.name == "icr_rag.server.access")
    line = Lines("json").format(record)
    assert "private" not in line
    told = json.loads(line)
    expected = {
        "request_id": "r1", "route": "/v1/rerank", "status": 200, "documents": 1, "tokens": 10,
        "batch": 1, "cached": 0, "truncated": 0, "degraded": False,
    }  # fmt: skip
    assert {name: told[name] for name in expected} == expected
    assert told["ms"] >= 0
    assert "status=200" in Lines("text").format(record)


async def test_an_application_that_embeds_the_server_logs_as_it_did():
    before = [(logger, list(logger.handlers), logger.level, logger.propagate)
              for logger in map(logging.getLogger, ("", "icr_rag", "uvicorn"))]  # fmt: skip
    async with served() as (_, client):
        await client.post("/v1/rerank", json=BODY)
    for logger, handlers, level, propagate in before:
        assert (logger.handlers, logger.level, logger.propagate) == (handlers, level, propagate)
