"""What ranks in tests of the server's shapes: scores that are known beforehand."""

from __future__ import annotations

import asyncio
import functools

import httpx
from fastapi import FastAPI

from icr_rag.server.call import RerankAnswer, RerankCall
from icr_rag.server.routes import rerank_routes


class KnownAnswers:
    """Scores each document by ``score``; remembers the calls.

    A document's score is the share of its letters that are "a", unless another function is given.
    """

    model = "served-model"

    def __init__(self, score=None, *, probability=True, truncated=(), degraded=None, error=None):
        self.score = score or share_of_a
        self.probability = probability
        self.truncated = truncated
        self.degraded = degraded
        self.error = error
        self.calls: list[RerankCall] = []

    @functools.cached_property
    def app(self) -> FastAPI:
        return served(self)

    async def rerank(self, call: RerankCall) -> RerankAnswer:
        self.calls.append(call)
        if self.error is not None:
            raise self.error
        scores = tuple(self.score(document.content) for document in call.documents)
        return RerankAnswer(
            model=self.model,
            scores=scores,
            order=best_first(scores),
            probability=self.probability,
            tokens=7 * len(scores),
            truncated=tuple(self.truncated),
            cached=1,
            degraded=self.degraded,
            seconds=(("queue", 0.25), ("total", 0.5)),
        )


def share_of_a(text: str) -> float:
    return text.count("a") / len(text) if text else 0.0


def best_first(scores) -> tuple[int, ...]:
    return tuple(sorted(range(len(scores)), key=lambda place: -scores[place]))


def served(answers, **settings) -> FastAPI:
    """An application with the paths of the server and nothing else."""
    app = FastAPI()
    app.include_router(rerank_routes(answers, **settings))
    return app


def post(answers, path, body, *, raw=None) -> httpx.Response:
    """What one request is answered; ``raw`` is sent in place of JSON."""

    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(answers.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            if raw is not None:
                return await client.post(path, content=raw)
            return await client.post(path, json=body)

    return asyncio.run(call())
