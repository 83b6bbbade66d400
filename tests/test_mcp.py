"""The MCP server, by the SDK's own client: what the tool takes and gives, and nothing beside it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from pathlib import Path

import httpx
import jsonschema
import pytest
from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters, stdio_client

from icr_rag.cli import main
from icr_rag.errors import ConfigError, InputError, MissingDependencyError, OverloadedError
from icr_rag.server.addresses import is_loopback
from icr_rag.server.call import RerankAnswer
from icr_rag.server.mcp_app import http_app, mcp_server
from icr_rag.server.mcp_tool import SNIPPET

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ["tin", "lead is soft", "melting"]


class Lengths:
    """Longer is better; remembers what it was asked."""

    model = "lengths"

    def __init__(self, error=None):
        self.error = error
        self.calls = []

    async def rerank(self, call):
        self.calls.append(call)
        if self.error is not None:
            raise self.error
        scores = tuple(len(own.content) / 10 for own in call.documents)
        order = tuple(sorted(range(len(scores)), key=lambda place: -scores[place]))
        return RerankAnswer("lengths", scores, order, True, truncated=(1,), degraded="late")


async def called(answers=None, *, mode="auto", **arguments):
    async with Client(mcp_server(answers or Lengths(), most_documents=4), mode=mode) as client:
        return await client.call_tool("rerank", arguments)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_tool_is_described(mode):
    async with Client(mcp_server(Lengths()), mode=mode) as client:
        [tool] = (await client.list_tools()).tools
    assert tool.name == "rerank"
    hints = tool.annotations
    assert (hints.read_only_hint, hints.idempotent_hint) == (True, True)
    assert (hints.destructive_hint, hints.open_world_hint) == (False, False)
    assert set(tool.input_schema["properties"]) == {
        "query", "documents", "top_n", "instruction", "min_score",
    }  # fmt: skip
    assert tool.input_schema["required"] == ["query", "documents"]
    assert "candidates" in tool.description
    for schema in (tool.input_schema, tool.output_schema):
        jsonschema.Draft202012Validator.check_schema(schema)
        assert all("description" in own for own in schema["properties"].values())


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_ranking_is_structured(mode):
    answers = Lengths()
    documents = ["tin", {"text": "lead is soft", "title": "Metals", "id": "7"}, "melting"]
    done = await called(
        answers, mode=mode, query="q", documents=documents, top_n=1, min_score=0.5,
        instruction="Find it."
    )  # fmt: skip
    assert not done.is_error
    assert done.structured_content == {
        "results": [{"index": 1, "score": 1.9, "id": "7", "snippet": "Metals lead is soft"}],
        "model": "lengths", "probability": True, "below_min_score": 1, "beyond_top_n": 1,
        "cut": [1], "note": "late",
    }  # fmt: skip
    assert json.loads(done.content[0].text) == done.structured_content
    [call] = answers.calls
    assert (call.query, call.instruction) == ("q", "Find it.")
    assert call.documents[1].title == "Metals"


async def test_the_answer_is_as_its_schema_says():
    async with Client(mcp_server(Lengths())) as client:
        [tool] = (await client.list_tools()).tools
        done = await client.call_tool("rerank", {"query": "q", "documents": DOCUMENTS})
    jsonschema.validate(done.structured_content, tool.output_schema)
    assert [own["index"] for own in done.structured_content["results"]] == [1, 2, 0]


async def test_a_long_text_is_not_repeated():
    done = await called(query="q", documents=["word \n" * 5000])
    [result] = done.structured_content["results"]
    assert len(result["snippet"]) == SNIPPET + 3
    assert "\n" not in result["snippet"]


WRONG = [
    ({"documents": ["a"]}, "query: Field required"),
    ({"query": "q"}, "documents: Field required"),
    ({"query": "q", "documents": "a"}, "documents: Input should be a valid list"),
    ({"query": "q", "documents": ["a", 3]}, "documents.1: a document is a text, or an object"),
    ({"query": "q", "documents": [{"title": "t"}]}, "documents.0.text: Field required"),
    ({"query": "q", "documents": [{"text": "t", "x": 1}]}, "documents.0.x: Extra inputs"),
    ({"query": "q", "documents": ["a"], "top_n": 0}, "top_n: Input should be greater than or"),
    ({"query": "q", "documents": ["a"], "k": 1}, "k: Extra inputs are not permitted"),
    ({"query": "q", "documents": ["a"] * 5}, "5 documents are too many for one call; pass at most"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=[words for _, words in WRONG])
async def test_a_wrong_call_is_told_in_plain_words(arguments, words):
    answers = Lengths()
    done = await called(answers, **arguments)
    assert done.is_error
    assert words in done.content[0].text
    assert "pydantic" not in done.content[0].text
    assert not answers.calls


@pytest.mark.parametrize(
    "error", [InputError("the query is blank"), OverloadedError("the queue is full")]
)
async def test_what_is_wrong_with_a_call_is_told(error):
    done = await called(Lengths(error), query="q", documents=DOCUMENTS)
    assert done.is_error
    assert done.content[0].text == str(error)


@pytest.mark.parametrize("error", [RuntimeError("secret"), ConfigError("/a/path")])
async def test_other_errors_are_not_told(error, caplog):
    with caplog.at_level(logging.INFO, logger="icr_rag"):
        done = await called(Lengths(error), query="q", documents=DOCUMENTS)
    assert done.is_error
    assert type(error).__name__ in done.content[0].text
    assert str(error) not in done.content[0].text
    assert "secret" not in caplog.text


async def test_another_tool_is_no_tool():
    async with Client(mcp_server(Lengths())) as client:
        with pytest.raises(MCPError, match="there is no such tool; there is 'rerank'"):
            await client.call_tool("search", {})


# --- streamable HTTP --------------------------------------------------------------------------

ASKED = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "rerank", "arguments": {"query": "q", "documents": DOCUMENTS}},
}


async def posted(headers, body=None, **fields):
    app = http_app(mcp_server(Lengths()), **fields)
    headers = {
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2025-06-18",
        "host": "127.0.0.1:8788",
        **headers,
    }
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client,
    ):
        return await client.post("/mcp", headers=headers, json=body or ASKED)


async def test_http_answers_a_single_request():
    for headers in ({}, {"host": "localhost:1"}, {"origin": "http://localhost:6274"}):
        done = await posted(headers)
        assert done.status_code == 200, done.text
        assert done.json()["result"]["structuredContent"]["results"][0]["index"] == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example:8788"}, 421),
        ({"host": "127.0.0.1.evil.example:8788"}, 421),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"content-type": "text/plain"}, 400),
    ],
)
async def test_pages_of_others_are_refused(headers, status):
    assert (await posted(headers)).status_code == status


async def test_names_that_are_allowed_are_answered():
    allowed = {
        "host": "0.0.0.0",
        "allow_public": True,
        "allowed_hosts": ["rank.example:*"],
        "allowed_origins": ["https://page.example"],
    }
    own = {"host": "rank.example:80", "origin": "https://page.example"}
    assert (await posted(own, **allowed)).status_code == 200
    assert (await posted({"host": "other.example:80"}, **allowed)).status_code == 421


async def test_a_body_beyond_bounds_is_refused():
    body = {**ASKED, "params": {"name": "rerank", "arguments": {"query": "q" * (17 * 2**20)}}}
    assert (await posted({}, body)).status_code == 413


def test_an_address_that_others_reach_must_be_asked_for():
    server = mcp_server(Lengths())
    for host in ("0.0.0.0", "::", "192.168.1.1", "rank.example"):
        with pytest.raises(ConfigError, match="can be reached from other machines"):
            http_app(server, host=host)
        with pytest.raises(ConfigError, match="needs allowed_hosts"):
            http_app(server, host=host, allow_public=True)
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.3.2.1", "::1", "[::1]")))


def test_making_a_server_leaves_logging_alone():
    before = list(logging.getLogger().handlers), logging.getLogger().level
    http_app(mcp_server(Lengths()))
    assert (list(logging.getLogger().handlers), logging.getLogger().level) == before


@pytest.mark.parametrize("missing", ["mcp", "mcp_types"])
def test_without_the_sdk_the_extra_is_named(missing, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'icr-rag\[mcp\]'"):
        mcp_server(Lengths())
    assert main(["mcp"]) == 1
    assert f"error: The MCP server needs {missing}: pip install" in capsys.readouterr().err


# --- the command ------------------------------------------------------------------------------


def test_the_command_refuses_before_it_loads(capsys):
    assert main(["mcp", "--transport", "http", "--host", "0.0.0.0", "--model", "/nowhere"]) == 1
    assert "can be reached from other machines" in capsys.readouterr().err
    assert main(["mcp", "--transport", "http", "--host", "203.0.113.7", "--allow-public",
                 "--allowed-host", "x", "--model", "/nowhere"]) == 1  # fmt: skip
    assert "cannot be listened on" in capsys.readouterr().err


def command(folder, *more):
    run = "import sys; from icr_rag.cli import main; sys.exit(main())"
    settings = ["--model", folder, "--dtype", "float32", "--scoring", "likelihood"]
    return ["-c", run, "mcp", *settings, *more]


def environment():
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    # Where it is set nothing waits in a buffer.
    own = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**own, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


#: Prints from Python, from the descriptor and from a child, before and while the server runs.
NOISY = """
import os, subprocess, sys, asyncio
print("early", file=sys.stderr)
from icr_rag.server.mcp_app import mcp_server, serve_stdio
sys.path.insert(0, "tests")
from test_mcp import Lengths
class Noisy(Lengths):
    async def rerank(self, call):
        print("from Python")
        os.write(1, b"from the descriptor\\n")
        subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
        return await super().rerank(call)
asyncio.run(serve_stdio(mcp_server(Noisy())))
"""


async def test_nothing_but_the_protocol_is_on_standard_output(tmp_path):
    log = (tmp_path / "log").open("w")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", NOISY, stdin=-1, stdout=-1, stderr=log, env=environment(), cwd=ROOT
    )
    hello = {
        "jsonrpc": "2.0", "id": 0, "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {},
                   "clientInfo": {"name": "test", "version": "1"}},
    }  # fmt: skip
    ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    for message in (hello, ready, ASKED):
        process.stdin.write(json.dumps(message).encode() + b"\n")
    await process.stdin.drain()
    lines = [await process.stdout.readline() for _ in range(2)]
    process.stdin.close()
    rest = await process.stdout.read()
    assert await process.wait() == 0
    log.close()
    assert [json.loads(line)["id"] for line in lines] == [0, 1]
    assert json.loads(lines[1])["result"]["structuredContent"]["model"] == "lengths"
    assert rest == b""
    told = (tmp_path / "log").read_text()
    assert all(own in told for own in ("from Python", "from the descriptor", "from a child"))


async def test_a_client_starts_the_command_and_ranks(model_folder, tmp_path):
    with (tmp_path / "log").open("w") as log:
        server = StdioServerParameters(
            command=sys.executable, args=command(model_folder), env=environment(), cwd=ROOT
        )
        async with Client(stdio_client(server, errlog=log)) as client:
            done = await client.call_tool("rerank", {"query": "tin?", "documents": DOCUMENTS})
            assert not done.is_error, done.content
            found = done.structured_content
            assert sorted(own["index"] for own in found["results"]) == [0, 1, 2]
            again = await client.call_tool("rerank", {"query": " ", "documents": DOCUMENTS})
            assert again.is_error
            assert "query" in again.content[0].text
    assert "Traceback" not in (tmp_path / "log").read_text()


async def test_the_command_serves_http(model_folder):
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command(model_folder, "--transport", "http", "--port", "0"),
        stdin=-3, stdout=-1, stderr=-1, env=environment(), cwd=ROOT,
    )  # fmt: skip
    try:
        line = (await process.stderr.readline()).decode()
        assert line.startswith("listening on http://127.0.0.1:"), line
        async with Client(line.split()[-1]) as client:
            done = await client.call_tool("rerank", {"query": "tin?", "documents": DOCUMENTS})
            assert len(done.structured_content["results"]) == 3
    finally:
        process.terminate()
        printed, _ = await process.communicate()
    assert printed == b""
