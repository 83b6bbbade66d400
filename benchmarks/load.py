"""The server under load: throughput of one client and of many, and what excess does.

    python benchmarks/load.py                        # five minutes of twice what it sustains
    python benchmarks/load.py --seconds 20 --documents 1

Starts `icr-rag serve` on this machine (embedded model, document states kept) and asks it over
loopback, warm: every document has been seen. The same list of requests, each with a query and
documents of its own of about 100 tokens, is used throughout:

1. one client, which waits for each answer: requests a second, latency;
2. several clients, which wait likewise: what ranking waiting requests together brings;
3. many clients who send twice as many requests as phase 2 had answered, whatever comes back, for
   ``--seconds``; the queue is short, so that the excess is refused.

Every answer's scores are compared with the library's for the same request. Exit status 1 if one
differs, if a status is neither 200 nor 429, or if the server's memory grew by more than 5 % after
the first tenth of phase 3. The clients run on the same cores as the server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from latency import machine, make_documents
from together import QUERIES

from icr_rag import RerankerConfig
from icr_rag.server.score_choice import load_served

SETTINGS = {"model": "smollm2-135m", "document_states": "independent", "states_memory": 4096}
#: Distinct requests, and documents that they draw from.
REQUESTS, POOL = 48, 96
#: Most that a score may differ by from the library's, as a probability: batches are padded
#: differently.
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.02}
GROWTH = 1.05


@dataclass
class Phase:
    """What came back."""

    name: str
    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    wrong: int = 0
    apart: float = 0.0
    took: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.statuses["200"] / self.took if self.took else 0.0

    def row(self) -> str:
        """A row of the table."""
        times = sorted(self.seconds) or [0.0]
        marks = [times[min(len(times) - 1, int(share * len(times)))] for share in (0.5, 0.95, 0.99)]
        cells = [f"{1000 * mark:.0f}" for mark in marks]
        others = sum(self.statuses.values()) - self.statuses["200"] - self.statuses["429"]
        return (
            f"| {self.name} | {self.rate:.2f} | {' | '.join(cells)} | {self.statuses['200']} | "
            f"{self.statuses['429']} | {others} |"
        )


def make_requests(documents: int, tokenizer: Any) -> list[dict[str, Any]]:
    """Bodies, each with a query of its own."""
    draw = random.Random(0)  # not for secrets
    texts = make_documents(tokenizer, POOL, 100)
    return [
        {"query": f"{QUERIES[number % len(QUERIES)]} {number}",
         "documents": draw.sample(texts, documents)}
        for number in range(REQUESTS)
    ]  # fmt: skip


@contextlib.contextmanager
def server(dtype: str, queue: int) -> Iterator[tuple[str, psutil.Process]]:
    """The address of a server that is ready, and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
    command = [
        str(Path(sys.executable).with_name("icr-rag")), "serve", f"--port={port}",
        f"--dtype={dtype}", f"--queue-requests={queue}", *flags,
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        until = time.monotonic() + 300
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/ready", timeout=10).status_code == 200:
                    break
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit("the server did not become ready")
            time.sleep(0.2)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


class Clients:
    """Asks the server, and compares."""

    def __init__(self, url: str, bodies: list[dict[str, Any]], expected: list[list[float]],
                 tolerance: float) -> None:  # fmt: skip
        self.url, self.bodies, self.expected = url, bodies, expected
        self.tolerance = tolerance

    async def ask(self, client: httpx.AsyncClient, number: int, phase: Phase) -> None:
        """One request, of which ``phase`` takes note."""
        place = number % len(self.bodies)
        started = time.perf_counter()
        try:
            answer = await client.post(f"{self.url}/v1/rerank", json=self.bodies[place])
        except httpx.TransportError as error:
            phase.statuses[type(error).__name__] += 1
            return
        phase.statuses[str(answer.status_code)] += 1
        if answer.status_code != 200:
            return
        phase.seconds.append(time.perf_counter() - started)
        rows = {row["index"]: row["relevance_score"] for row in answer.json()["results"]}
        own = self.expected[place]
        if sorted(rows) != list(range(len(own))):
            phase.wrong += 1
            return
        apart = max(abs(rows[index] - score) for index, score in enumerate(own))
        phase.apart = max(phase.apart, apart)
        phase.wrong += apart > self.tolerance

    async def warm(self) -> None:
        """Every request once, so that all documents' states are kept, and twice more together."""
        for many in (1, len(self.bodies), len(self.bodies)):
            async with _client(many) as client:
                for first in range(0, len(self.bodies), many):
                    numbers = range(first, first + many)
                    await asyncio.gather(*(self.ask(client, n, Phase("warm")) for n in numbers))

    async def waiting(self, name: str, clients: int, seconds: float) -> Phase:
        """Clients who send the next request when the last is answered."""
        phase, numbers = Phase(name), iter(range(10**9))
        until = time.perf_counter() + seconds

        async def one(client: httpx.AsyncClient) -> None:
            while time.perf_counter() < until:
                await self.ask(client, next(numbers), phase)

        started = time.perf_counter()
        async with _client(clients) as client:
            await asyncio.gather(*(one(client) for _ in range(clients)))
        phase.took = time.perf_counter() - started
        return phase

    async def pressing(self, name: str, clients: int, rate: float, seconds: float,
                       process: psutil.Process) -> tuple[Phase, list[float]]:  # fmt: skip
        """Clients who together send so many requests a second, each as soon as it has an answer;
        and the server's resident MiB, a hundred times."""
        phase, memory = Phase(name), []
        begun = time.perf_counter()

        async def one(client: httpx.AsyncClient, first: int) -> None:
            number = first
            while number / rate < seconds:
                await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
                await self.ask(client, number, phase)
                # What it had no time to send is sent by nobody: it still waits for an answer.
                late = int((time.perf_counter() - begun) * rate)
                number += clients * max(1, (late - number) // clients)

        async def watch() -> None:
            for _ in range(100):
                memory.append(process.memory_info().rss / 2**20)
                await asyncio.sleep(seconds / 100)

        async with _client(clients) as client:
            await asyncio.gather(watch(), *(one(client, first) for first in range(clients)))
        phase.took = time.perf_counter() - begun
        return phase, memory


@contextlib.asynccontextmanager
async def _client(most: int) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=most, max_keepalive_connections=most)
    async with httpx.AsyncClient(timeout=600, limits=limits, trust_env=False) as client:
        yield client


async def measure(arguments: argparse.Namespace, documents: int) -> tuple[list[Phase], list[float]]:
    """All phases with requests of so many documents."""
    with load_served(RerankerConfig(dtype=arguments.dtype, **SETTINGS)) as own:
        bodies = make_requests(documents, own.tokenizer)
        expected = [own.rank(body["query"], body["documents"]).scores for body in bodies]
    with server(arguments.dtype, arguments.queue) as (url, process):
        clients = Clients(url, bodies, expected, TOLERANCE[arguments.dtype])
        short = max(10.0, arguments.seconds / 5)
        await clients.warm()
        alone = await clients.waiting("1, waits", 1, short)
        few = await clients.waiting(f"{arguments.few}, wait", arguments.few, short)
        name = f"{arguments.clients}, twice that rate"
        pressed, memory = await clients.pressing(
            name, arguments.clients, 2 * few.rate, arguments.seconds, process
        )
    return [alone, few, pressed], memory


def faults(phases: list[Phase], memory: list[float]) -> list[str]:
    """What must not be."""
    found = []
    for phase in phases:
        others = {s: n for s, n in phase.statuses.items() if s not in ("200", "429")}
        if others:
            found.append(f"{phase.name}: {others}")
        if phase.wrong:
            found.append(f"{phase.name}: {phase.wrong} answers unlike the library's")
    if not phases[-1].statuses["429"]:
        found.append("nothing was refused")
    early, late = statistics.median(memory[5:15]), statistics.median(memory[-10:])
    if late > GROWTH * early:
        found.append(f"memory grew from {early:.0f} to {late:.0f} MiB")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300, help="of the last phase")
    parser.add_argument("--documents", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--few", type=int, default=16, help="clients of the second phase")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--queue", type=int, default=16, help="requests that may wait")
    parser.add_argument("--dtype", choices=TOLERANCE, default="float32")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    told: dict[str, Any] = {"machine": machine(), "settings": SETTINGS, "dtype": arguments.dtype}
    print("| documents | clients | answers/s | p50, ms | p95, ms | p99, ms | 200 | 429 | others |")
    print("|---|---|---|---|---|---|---|---|---|")
    wrong = []
    for documents in arguments.documents:
        phases, memory = asyncio.run(measure(arguments, documents))
        for phase in phases:
            print(f"| {documents} {phase.row()}", flush=True)
        wrong += [f"{documents} documents: {fault}" for fault in faults(phases, memory)]
        told[f"{documents} documents"] = {
            "gain of ranking together": round(phases[1].rate / phases[0].rate, 2),
            "largest difference of a score": max(phase.apart for phase in phases),
            "MiB": [round(own) for own in memory[::10]],
            "phases": {p.name: {"rate": p.rate, **p.statuses} for p in phases},
        }
    text = json.dumps({**told, "faults": wrong}, indent=1)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n", encoding="utf-8")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
