"""The server's page in a real browser: `make test-browser`.

Needs playwright, a chromium (CHROMIUM names it) and axe-core (AXE names its file); skipped without
them.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import uvicorn
from known_answers import KnownAnswers

from icr_rag.server.app import create_app

sync_api = pytest.importorskip("playwright.sync_api", reason="make test-browser")

CHROMIUM, AXE = os.environ.get("CHROMIUM", ""), os.environ.get("AXE", "")
if not (Path(CHROMIUM).is_file() and Path(AXE).is_file()):
    pytest.skip("CHROMIUM and AXE name no files", allow_module_level=True)

DOCUMENTS = ["bbb", "aab <script>window.broken = 1</script> \"'&", "aaa"]
SIZES = {"desk": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}


@pytest.fixture(scope="module")
def url():
    server = uvicorn.Server(uvicorn.Config(create_app(KnownAnswers()), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=[(size, scheme) for size in SIZES for scheme in ("light", "dark")])
def page(request, chromium, url):
    size, scheme = request.param
    # axe is put into the page by the test, which the page's own policy would forbid.
    context = chromium.new_context(viewport=SIZES[size], color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.asked, page.errors = [], []
    page.on("request", lambda asked: page.asked.append(asked.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(url)
    yield page
    context.close()


def violations(page):
    page.add_script_tag(path=AXE)
    found = page.evaluate("axe.run(document).then(found => found.violations)")
    return [(one["id"], [node["target"] for node in one["nodes"]]) for one in found]


def test_ranking_by_keyboard_alone(page, url):
    assert violations(page) == []
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "query":
            break
    page.keyboard.type("which has a?")
    page.keyboard.press("Tab")
    for number, text in enumerate(DOCUMENTS):
        page.keyboard.press("Enter") if number else None
        page.keyboard.type(text)
    page.keyboard.press("Control+Enter")
    page.wait_for_function("document.body.innerText.includes('3 documents ranked')")
    shown = page.inner_text("body")
    # Best first, and a text is a text.
    assert shown.index("document 3") < shown.index("document 2") < shown.index("document 1")
    assert "<script>window.broken = 1</script>" in shown
    assert page.evaluate("window.broken === undefined")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert violations(page) == []
    assert all(asked.startswith(url) for asked in page.asked)
    assert page.errors == []
