"""The page at ``/``: what it may load, what it may run, and that texts stay texts."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re

import httpx
from fastapi import FastAPI

from icr_rag.server.playground import playground_routes


def page() -> httpx.Response:
    app = FastAPI()
    app.include_router(playground_routes())

    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.get("/")

    return asyncio.run(get())


def test_the_policy_lets_the_pages_own_script_and_style_run_and_nothing_else():
    response = page()
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(
        part.strip().split(" ", 1)
        for part in response.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    for element, source in (("script", "script-src"), ("style", "style-src")):
        (content,) = re.findall(f"<{element}>(.*?)</{element}>", response.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy[source] == f"'sha256-{digest}'"


def test_nothing_comes_from_elsewhere_and_no_text_becomes_html():
    html = page().text
    assert not re.search(r"https?:|//[a-z]|@import|url\(", html.replace("// ", ""))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", html)
    assert not re.search(r"localStorage|sessionStorage|cookie|indexedDB", html)
    # A style in an attribute, or a handler in one, would be stopped by the policy.
    assert not re.search(r"<[^>]+\s(style|on\w+)=", html)


def test_every_field_has_a_label():
    html = page().text
    fields = re.findall(r'<(?:input|textarea) id="(\w+)"', html)
    assert fields == ["query", "documents", "top", "key"]
    assert re.findall(r'<label for="(\w+)"', html) == fields
