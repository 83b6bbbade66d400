"""Rerankers that tests of the server hold in their hand, and clients without a network."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager

import httpx

from icr_rag import Document, RankedDocument, Ranking, RerankerConfig, Usage
from icr_rag.server.app import create_app
from icr_rag.server.engine import Engine
from icr_rag.server.meters import Meters
from icr_rag.server.settings import ServerSettings

CONFIG = RerankerConfig(model="fake", scoring="likelihood", score_mode="explained", fusion="none")


def score(query, text):
    """Of the query and the document alone."""
    return float(sum(map(ord, query + text)) % 997) / 997 if text.strip() else -100.0


class FakeReranker:
    """Ranks by `score`, counts calls, waits where a test asks it to, fails where texts say so."""

    def __init__(self, config=CONFIG):
        self.config = config
        self.alone, self.together, self.deadlines = [], [], []
        self.running = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.go_on.set()

    def hold(self):
        """The next call waits in the model's thread until `go_on` is set."""
        while self.running.acquire(blocking=False):
            pass
        self.go_on.clear()

    def rank(self, query, documents, top_n=None, *, deadline_ms=None, instruction=None,
             max_tokens_per_doc=None):  # fmt: skip
        self.alone.append(query)
        self.deadlines.append(deadline_ms)
        self._work([query])
        return ranking(query, documents)

    def rank_many(self, queries, lists, top_n=None, *, deadline_ms=None, instruction=None,
                  max_tokens_per_doc=None):  # fmt: skip
        self.together.append(list(queries))
        self._work(queries)
        return [ranking(query, own) for query, own in zip(queries, lists, strict=True)]

    def _work(self, queries):
        self.running.release()
        assert self.go_on.wait(60)
        for query in queries:
            if query in MISHAPS:
                raise MISHAPS[query]()


#: Queries -> what goes wrong with them.
MISHAPS = {
    "memory": MemoryError,
    "defect": lambda: RuntimeError("secret text at /secret/path"),
}


def ranking(query, documents):
    scores = [score(query, document.content) for document in documents]
    best = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
    hits = tuple(RankedDocument(place, scores[place], documents[place]) for place in best)
    usage = Usage(tokens=10 * len(scores), seconds={"forward": 0.1, "total": 0.2})
    return Ranking(hits, tuple(scores), (0,) * len(scores), usage)


def documents(*texts):
    return tuple(map(Document, texts))


@asynccontextmanager
async def running(reranker=None, settings=None, **fields):
    """An engine that is loaded; stopped at the end."""
    reranker = reranker or FakeReranker()
    settings = settings or ServerSettings(batch_wait_ms=0)
    engine = Engine(reranker.config, lambda: reranker, settings, **fields)
    engine.start()
    await engine.loaded.wait()
    try:
        yield engine
    finally:
        reranker.go_on.set()
        await engine.stop()


async def until(condition):
    """Let others run until something is so."""
    while not condition():
        await asyncio.sleep(0.001)


async def begun(reranker):
    """Until a call is in the model's thread."""
    while not reranker.running.acquire(blocking=False):
        await asyncio.sleep(0.001)


@asynccontextmanager
async def served(source=None, settings=None, *, warm=True, **fields):
    """(app, client) over ASGI, its lifespan begun."""
    meters = fields.setdefault("meters", Meters())
    if source is None or isinstance(source, FakeReranker):
        reranker = source or FakeReranker()
        settings = settings or ServerSettings(batch_wait_ms=0)
        source = Engine(reranker.config, lambda: reranker, settings, watcher=meters,
                        **fields.pop("engine", {}))  # fmt: skip
    app = create_app(source, settings, **fields)
    async with app.router.lifespan_context(app):
        if warm and app.state.engine is not None:
            await app.state.engine.loaded.wait()
        # Ours are errors that are answered; one that comes through is a defect.
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            yield app, client


BODY = {"query": "q", "documents": ["one", "two", "three"]}
