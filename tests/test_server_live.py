"""A real server on a real port: slow clients, clients that vanish, shutting down, the command."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from server_parts import BODY, FakeReranker

from icr_rag import cli
from icr_rag.server.app import create_app
from icr_rag.server.engine import Engine
from icr_rag.server.meters import Meters
from icr_rag.server.patient import PatientProtocol, PatientServer
from icr_rag.server.settings import ServerSettings

ROOT = Path(__file__).resolve().parent.parent
REQUEST = b"POST /v1/rerank HTTP/1.1\r\nHost: server\r\nContent-Type: application/json\r\n"


class Live(threading.Thread):
    """A server in a thread."""

    def __init__(self, reranker, **fields):
        super().__init__(daemon=True)
        self.reranker = reranker
        settings = ServerSettings(port=0, batch_wait_ms=0, **fields)
        meters = Meters()
        engine = Engine(reranker.config, lambda: reranker, settings, watcher=meters)
        app = create_app(engine, settings, meters=meters)
        self.ready = threading.Event()
        self.server = PatientServer(app, settings, on_ready=self._tell)

    def _tell(self, url):
        self.url = url
        self.ready.set()

    def run(self):
        self.server.run()

    def connect(self):
        port = int(self.url.rpartition(":")[2])
        return socket.create_connection(("127.0.0.1", port), timeout=60)

    def metric(self, name):
        page = httpx.get(f"{self.url}/metrics").text
        found = [line for line in page.splitlines() if line.startswith(name + " ")]
        return float(found[0].split()[-1]) if found else 0.0

    def until(self, name, value):
        while self.metric(name) != value:
            pass


@contextmanager
def live(reranker=None, **fields):
    thread = Live(reranker or FakeReranker(), **fields)
    thread.start()
    assert thread.ready.wait(60)
    try:
        yield thread
    finally:
        thread.reranker.go_on.set()
        thread.server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def test_headers_that_do_not_come_close_the_connection():
    with live(header_timeout=0.2) as server:
        for begin in (b"", b"POST /v1/rerank HTTP/1.1\r\nHost: s\r\nX-A: "):
            with server.connect() as slow:
                slow.sendall(begin)
                # Until the server hangs up; other clients are served meanwhile.
                assert httpx.post(f"{server.url}/v1/rerank", json=BODY).status_code == 200
                assert slow.recv(100) == b""


def test_headers_of_a_second_request_on_a_connection_are_waited_for_no_longer():
    with live(header_timeout=0.2) as server, server.connect() as slow:
        slow.sendall(b"GET /health HTTP/1.1\r\nHost: s\r\n\r\n")
        assert slow.recv(15) == b"HTTP/1.1 200 OK"
        slow.sendall(b"GET /health HTTP/1.1\r\nX-A: ")
        while slow.recv(10_000):
            pass


def test_a_request_that_takes_longer_than_headers_may_is_not_cut_off():
    reranker = FakeReranker()
    with live(reranker, header_timeout=0.1) as server, server.connect() as client:
        reranker.hold()
        body = b'{"query": "q", "documents": ["a"]}'
        client.sendall(REQUEST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert reranker.running.acquire(timeout=60)
        # As long as another connection needs to be found too slow.
        with server.connect() as slow:
            assert slow.recv(100) == b""
        reranker.go_on.set()
        assert client.recv(15) == b"HTTP/1.1 200 OK"


def test_a_body_that_trickles_is_a_408_and_the_end_of_the_connection():
    with live(body_timeout=0.1) as server, server.connect() as slow:
        slow.sendall(REQUEST + b"Content-Length: 1000\r\n\r\n{")
        answer = b""
        while part := slow.recv(10_000):
            answer += part
        assert answer.startswith(b"HTTP/1.1 408")


def test_an_answer_that_nobody_reads_is_given_up(monkeypatch):
    gone, lost = threading.Event(), PatientProtocol.connection_lost

    def noticed(self, exc):
        lost(self, exc)
        if self._unread:
            gone.set()

    monkeypatch.setattr(PatientProtocol, "reading_timeout", 0.1)
    monkeypatch.setattr(PatientProtocol, "connection_lost", noticed)
    body = json.dumps({**BODY, "documents": ["a" * 10**5] * 100, "return_documents": True}).encode()
    with live() as server, server.connect() as client:
        client.sendall(REQUEST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        # Nothing is read until the server has let go of it.
        assert gone.wait(60)
        answer = 0
        with contextlib.suppress(ConnectionResetError):
            while part := client.recv(10**6):
                answer += len(part)
        assert answer < 10**7
        assert httpx.post(f"{server.url}/v1/rerank", json=BODY).status_code == 200


def test_a_hundred_megabytes_are_refused_by_their_announcement():
    with live() as server, server.connect() as client:
        client.sendall(REQUEST + b"Content-Length: 100000000\r\n\r\n")
        answer = b""
        while part := client.recv(10_000):
            answer += part
        assert answer.startswith(b"HTTP/1.1 413")


def test_a_client_that_vanishes_while_it_runs_is_counted_and_the_next_is_served():
    reranker = FakeReranker()
    with live(reranker) as server:
        reranker.hold()
        body = b'{"query": "gone", "documents": ["a"]}'
        client = server.connect()
        client.sendall(REQUEST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert reranker.running.acquire(timeout=60)
        client.close()
        server.until('icr_rag_hung_up_total{while_it_was="running"}', 1)
        reranker.go_on.set()
        assert httpx.post(f"{server.url}/v1/rerank", json=BODY).status_code == 200


@pytest.mark.parametrize("grace", [60, 0])
def test_what_is_in_flight_when_the_server_ends(grace):
    """Finished within the grace, or told that it will not be."""
    reranker = FakeReranker()
    with live(reranker, shutdown_grace=grace) as server:
        reranker.hold()
        found = []
        ask = threading.Thread(
            target=lambda: found.append(
                httpx.post(f"{server.url}/v1/rerank", json=BODY, timeout=60)
            )
        )
        ask.start()
        assert reranker.running.acquire(timeout=60)
        server.server.handle_exit(signal.SIGTERM, None)
        if grace:
            reranker.go_on.set()
        ask.join(60)
    assert found[0].status_code == (200 if grace else 503)


def test_requests_sent_down_one_connection_at_once_are_all_answered():
    body = b'{"query": "q", "documents": ["a"]}'
    request = REQUEST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with live() as server, server.connect() as client:
        client.sendall(3 * request)
        answer = b""
        while answer.count(b"HTTP/1.1 200 OK") < 3:
            part = client.recv(10_000)
            assert part
            answer += part


MAIN = "import sys; from icr_rag.cli import main; sys.exit(main())"

# --- the command ----------------------------------------------------------------------------


@contextmanager
def command(*options, **environment):
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, "serve", "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_command_serves_says_how_to_ask_and_ends_when_it_is_told_to(model_folder):
    with command("-m", model_folder, ICR_RAG_API_KEY="a-secret-key") as process:
        url = re.search(r"http://\S+?(?=,)", process.stdout.readline()).group()
        ready = process.stdout.readline()
        assert "score_mode explained" in ready
        curl = process.stdout.readline()
        assert f"curl {url}/v1/rerank -H 'Authorization: Bearer KEY'" in curl
        assert httpx.post(f"{url}/v1/rerank", json=BODY).status_code == 401
        keyed = {"authorization": "Bearer a-secret-key"}
        found = httpx.post(f"{url}/v1/rerank", json=BODY, headers=keyed, timeout=60)
        assert sorted(row["index"] for row in found.json()["results"]) == [0, 1, 2]
        # A local model's folder is nobody's business.
        assert model_folder not in found.text
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        log = process.stderr.read()
    assert '"route": "/v1/rerank", "status": 200' in log
    assert "a-secret-key" not in log
    assert "Traceback" not in log


def test_a_model_that_is_not_there_ends_the_command_with_one_line():
    with command("-m", "./no/such/folder") as process:
        assert process.wait(120) == 1
        last = process.stderr.read().strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "no/such/folder" in last


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "can be reached by others, and there is no API key"),
        (["--host", "::"], "can be reached by others"),
        (["--host", "example.org"], "can be reached by others"),
        (["--port", "70000"], "port=70000"),
        (["--keys-file", "no-such-file"], "cannot read keys_file"),
        (["--batch-tokens", "0"], "batch_tokens=0"),
        (["--log-format", "xml"], "log_format='xml'"),
    ],
)
def test_settings_that_cannot_be_are_one_line(options, words, capsys, monkeypatch, model_folder):
    monkeypatch.delenv("ICR_RAG_API_KEY", raising=False)
    assert cli.main(["serve", "-m", model_folder, *options]) == 1
    error = capsys.readouterr().err
    assert words in " ".join(error.split())


def test_a_key_that_is_too_short_is_refused_without_being_said(capsys, monkeypatch):
    monkeypatch.setenv("ICR_RAG_API_KEY", "abc")
    assert cli.main(["serve"]) == 1
    error = capsys.readouterr().err
    assert "api_key has 3 characters" in error
    assert "abc" not in error
