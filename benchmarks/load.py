"""Load on `icr-rag serve`: rates, latencies, refusals, memory, and whether every score is right.

    python benchmarks/load.py                    # five minutes of overload for each size
    python benchmarks/load.py --seconds 20 --documents 8

Starts the server on a free port of this machine, with the embedded model and document states in
memory, and asks it three ways, for requests of one document and of eight:

- alone: one client, a request after the other;
- together: ``--together`` clients that each send the next request when they have an answer, so
  that the server ranks several at once; the higher rate of these two is what is sustainable;
- overload: ``--clients`` clients that send twice as much as that by the clock, whether or not they
  were answered; latencies count from the moment at which a request was due.

Every score of every answer is compared with what `Reranker.rank` gives for the same settings, one
request after the other. A Markdown table and JSON on standard output. Exit status 1, and why on
standard error, where an answer is neither 200 nor 429, a score differs by more than
``--tolerance``, an order is not by score, a 429 does not say when to come back, or the server's
memory grows by more than 5 %.

In bfloat16 a pass over several requests rounds differently from one over a request alone, in
`Reranker.rank_many` as in the server, and by more than the tolerance: that bar is missed then, and
the table says by how much. ``--dtype float32`` shows that nothing but rounding differs.

Memory is resident memory, looked at each second of the overload. Its bar is on the median of the
last fifth against that of the second fifth: when overload begins, memory rises once, for batches
are larger than before. What it was before, and the most it was, are told as well.

The clients run on the cores that the server runs on and take their share of them, as does whatever
else the machine does: rates are lower bounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

WORDS = (
    "tide", "moon", "harbour", "sand", "cliff", "boat", "rope", "gull", "salt", "wave",
    "depth", "current", "anchor", "storm", "pier", "light", "stone", "shell", "crab", "fog",
)  # fmt: skip
QUERIES = (
    "How does the tide change when the moon is full?",
    "harbour depth",
    "Which rope holds an anchor in a storm, and how long must it be for a small boat?",
    "why do gulls follow boats",
    "What is a pier?",
)
TEXTS, REQUESTS = 64, 48
#: Largest difference of a score that is no mistake.
TOLERANCE = {"bfloat16": 1e-3, "float32": 1e-4}
#: Growth of the server's resident memory under overload.
GROWTH = 0.05
#: Requests that the clients have under way at most; what is due beyond is counted, and not sent.
UNDER_WAY = 1000
SERVE = "import sys; from icr_rag.cli import main; sys.exit(main())"


@dataclass
class Phase:
    """What came of one way of asking.

    Attributes:
        statuses: how many answers of each; "failed": no answer. unsent: due, but not sent.
        seconds: per answer with status 200, from when it was due. took: of the whole phase.
        memory: resident bytes of the server, each second.
        wrong: what is not as it must be, each kind once. off: the largest difference of a score.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    memory: list[int] = field(default_factory=list)
    unsent: int = 0
    seconds: list[float] = field(default_factory=list)
    took: float = 0.0
    wrong: set[str] = field(default_factory=set)
    off: float = 0.0

    @property
    def growth(self) -> float:
        """Of memory, from the second fifth to the last one, as a share."""
        fifth = max(1, len(self.memory) // 5)
        early = self.memory[fifth : 2 * fifth] or self.memory[:1]
        return statistics.median(self.memory[-fifth:]) / statistics.median(early) - 1

    @property
    def rate(self) -> float:
        """Answers with status 200 per second."""
        return self.statuses["200"] / self.took

    def percentile(self, share: float) -> float | None:
        """Milliseconds within which this share of the answers came."""
        if not self.seconds:
            return None
        return 1000 * sorted(self.seconds)[math.ceil(share * len(self.seconds)) - 1]


class Load:
    """Requests with the scores that they must get, and where to send them."""

    def __init__(
        self, client: httpx.AsyncClient, expected: list[tuple[dict[str, object], list[float]]],
        tolerance: float,
    ) -> None:  # fmt: skip
        self._client, self._expected, self._tolerance = client, expected, tolerance

    async def send(self, phase: Phase, number: int, due: float) -> None:
        """One request; what comes of it is put into ``phase``."""
        body, scores = self._expected[number % len(self._expected)]
        try:
            answer = await self._client.post("/v1/rerank", json=body)
        except httpx.HTTPError as error:
            phase.statuses["failed"] += 1
            phase.wrong.add(f"no answer: {type(error).__name__}")
            return
        phase.statuses[str(answer.status_code)] += 1
        if answer.status_code == 200:
            phase.seconds.append(time.perf_counter() - due)
            self._compare(phase, answer.json()["results"], scores)
        elif answer.status_code != 429:
            phase.wrong.add(f"status {answer.status_code}: {answer.text[:200]}")
        elif not answer.headers.get("retry-after", "").isdecimal():
            phase.wrong.add("a 429 without Retry-After")

    def _compare(self, phase: Phase, results: list[dict[str, float]], scores: list[float]) -> None:
        given = {result["index"]: result["relevance_score"] for result in results}
        if sorted(given) != list(range(len(scores))) or len(results) != len(scores):
            phase.wrong.add(f"{len(results)} results for {len(scores)} documents")
            return
        if list(given.values()) != sorted(given.values(), reverse=True):
            phase.wrong.add("results that are not in the order of their scores")
        off = max(abs(given[place] - score) for place, score in enumerate(scores))
        phase.off = max(phase.off, off)
        if not off <= self._tolerance:
            phase.wrong.add(f"scores that differ by more than {self._tolerance:g}")

    async def closed(self, clients: int, seconds: float) -> Phase:
        """Clients that wait for each answer."""
        phase, begin = Phase(), time.perf_counter()

        async def ask(number: int) -> None:
            while (due := time.perf_counter()) < begin + seconds:
                await self.send(phase, number, due)
                number += clients

        await asyncio.gather(*map(ask, range(clients)))
        phase.took = time.perf_counter() - begin
        if phase.statuses["200"] != phase.statuses.total():
            phase.wrong.add(f"{dict(phase.statuses)} where there is no overload")
        return phase

    async def open(
        self, clients: int, rate: float, seconds: float, process: psutil.Process
    ) -> Phase:
        """Clients that send by the clock, ``rate`` requests per second in all."""
        phase, begin = Phase(), time.perf_counter()
        under_way: set[asyncio.Task[None]] = set()

        async def ask(own: int) -> None:
            for number in range(own, int(rate * seconds), clients):
                due = begin + number / rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                if len(under_way) >= UNDER_WAY:
                    phase.unsent += 1
                    continue
                task = asyncio.create_task(self.send(phase, number, due))
                under_way.add(task)
                task.add_done_callback(under_way.discard)

        async def watch() -> None:
            while True:
                phase.memory.append(process.memory_info().rss)
                await asyncio.sleep(1)

        watching = asyncio.create_task(watch())
        await asyncio.gather(*map(ask, range(clients)))
        watching.cancel()
        await asyncio.gather(*under_way)
        phase.took = time.perf_counter() - begin
        return phase


def make_texts() -> list[str]:
    """Different documents of about 100 tokens."""
    return [
        f"No {n}: " + " ".join(WORDS[(n * 7 + i * (n % 19 + 1)) % len(WORDS)] for i in range(85))
        for n in range(TEXTS)
    ]


def make_bodies(documents: int) -> list[dict[str, object]]:
    """Requests of so many documents; every text is in one, as far as there are enough."""
    texts = make_texts()
    return [
        {
            "query": QUERIES[n % len(QUERIES)],
            "documents": [texts[(n * documents + i) % TEXTS] for i in range(documents)],
        }
        for n in range(max(REQUESTS, math.ceil(TEXTS / documents)))
    ]


def library_scores(
    settings: dict[str, object], mode: str, bodies: list[dict[str, object]]
) -> list[list[float]]:
    """What the library gives, in a process that ends: its memory is not the clients'."""
    code = (
        "import json, sys; from icr_rag import Reranker\n"
        "settings, bodies = json.load(sys.stdin)\n"
        "with Reranker(**settings) as reranker:\n"
        "    ranked = [reranker.rank(b['query'], b['documents']).scores for b in bodies]\n"
        "print(json.dumps(ranked))"
    )
    given = json.dumps([{**settings, "score_mode": mode, "fusion": "none"}, bodies])
    done = subprocess.run(
        [sys.executable, "-c", code], input=given, stdout=subprocess.PIPE, text=True, check=True
    )
    found: list[list[float]] = json.loads(done.stdout)
    return found


@contextmanager
def server(settings: dict[str, object], queue: int) -> Iterator[tuple[str, str, psutil.Process]]:
    """(address, score mode, process) of a server that is warm; stopped at the end."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "reranker.yaml")
        # JSON is YAML.
        config.write_text(json.dumps(settings))
        command = [sys.executable, "-c", SERVE, "serve", "--port", "0", "--no-access-log",
                   "--config", str(config),
                   "--queue-requests", str(queue)]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            told = ""
            for line in process.stdout or ():
                told += line
                if line.startswith("ready: "):
                    break
            address = re.search(r"http://127\.0\.0\.1:\d+", told)
            mode = re.search(r"score_mode (\w+)", told)
            if address is None or mode is None:
                raise SystemExit(f"the server did not start; it said: {told!r}")
            yield address[0], mode[1], psutil.Process(process.pid)
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def measure(
    address: str, process: psutil.Process, expected: list[tuple[dict[str, object], list[float]]],
    arguments: argparse.Namespace,
) -> tuple[dict[str, Phase], float]:  # fmt: skip
    """The phases, and the rate of overload."""
    limits = httpx.Limits(max_connections=UNDER_WAY, max_keepalive_connections=UNDER_WAY)
    # No proxy may stand between.
    async with httpx.AsyncClient(
        base_url=address, limits=limits, timeout=300, trust_env=False
    ) as client:
        load = Load(client, expected, arguments.tolerance)
        warm = Phase()
        for number in range(len(expected)):
            await load.send(warm, number, time.perf_counter())
        phases = {"warming up": warm}
        for name, clients in (("alone", 1), ("together", arguments.together)):
            phases[name] = await load.closed(clients, min(30, arguments.seconds))
        rate = 2 * max(phases["alone"].rate, phases["together"].rate)
        if rate:
            phases["overload"] = await load.open(
                arguments.clients, rate, arguments.seconds, process
            )
        return phases, rate


def described(name: str, phase: Phase) -> dict[str, object]:
    """A phase, for JSON."""
    others = phase.statuses.total() - phase.statuses["200"] - phase.statuses["429"]
    return {
        "phase": name, "rate": phase.rate, "200": phase.statuses["200"],
        "429": phase.statuses["429"], "other": others, "unsent": phase.unsent,
        **{f"p{n}_ms": phase.percentile(n / 100) for n in (50, 95, 99)}, "off": phase.off,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300, help="of overload, for each size")
    parser.add_argument("--documents", type=int, nargs="+", default=[1, 8], help="of a request")
    parser.add_argument("--together", type=int, default=8, help="clients that wait for answers")
    parser.add_argument("--clients", type=int, default=64, help="clients that do not")
    parser.add_argument("--queue", type=int, default=64, help="requests that the server lets wait")
    parser.add_argument("--dtype", choices=sorted(TOLERANCE), default="bfloat16")
    parser.add_argument(
        "--tolerance", type=float,
        help=f"of scores; left out, by the number format: {TOLERANCE}".replace("%", "%%"),
    )  # fmt: skip
    arguments = parser.parse_args()
    if arguments.tolerance is None:
        arguments.tolerance = TOLERANCE[arguments.dtype]
    if not (arguments.seconds > 0 and min(arguments.documents) >= 1):
        parser.error("--seconds must be more than 0, --documents 1 or more")
    if max(arguments.documents) > TEXTS or min(arguments.clients, arguments.together) < 1:
        parser.error(f"--documents: at most {TEXTS}; --clients and --together: 1 or more")

    # Who stops this stops the server, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    # Imports no torch: clients need none.
    from icr_rag.evaluation.environment import hardware, versions

    settings: dict[str, object] = {
        "model": "smollm2-135m", "dtype": arguments.dtype, "device": "cpu",
        "document_states": "independent", "states_memory": 1024,
    }  # fmt: skip
    report: dict[str, object] = {
        "hardware": hardware(), "versions": versions(), "settings": settings,
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"), "queue": arguments.queue,
        "tolerance": arguments.tolerance,
        "note": "the clients share the server's cores",
    }  # fmt: skip
    rows, missed = [], []
    print(f"{hardware()['cpu']}, {os.cpu_count()} cores, shared by the server and its clients\n")
    print("| documents | clients | sent/s | 200/s | 200 | 429 | other | p50 ms | p95 ms | p99 ms "
          "| score off by | memory MiB |\n" + "|---" * 12 + "|")  # fmt: skip
    for documents in arguments.documents:
        bodies = make_bodies(documents)
        with server(settings, arguments.queue) as (address, mode, process):
            scores = library_scores(settings, mode, bodies)
            expected = list(zip(bodies, scores, strict=True))
            phases, rate = asyncio.run(measure(address, process, expected, arguments))
        for name, phase in phases.items():
            missed += [f"{documents} documents, {name}: {own}" for own in sorted(phase.wrong)]
            if name == "warming up":
                continue
            row = described(name, phase)
            over = name == "overload"
            if over:
                row |= {"sent_rate": rate, "rss": phase.memory, "growth": phase.growth}
                if phase.growth > GROWTH:
                    missed.append(f"{documents} documents: memory grew by {phase.growth:.1%}")
                held = [f"{own / 2**20:.0f}" for own in (phase.memory[0], max(phase.memory))]
            rows.append({"documents": documents, "score_mode": mode, **row})
            clients = {"alone": 1, "together": arguments.together}.get(name, arguments.clients)
            times = " | ".join(f"{row[p] or math.nan:.0f}" for p in ("p50_ms", "p95_ms", "p99_ms"))
            print(
                f"| {documents} | {clients} | {f'{rate:.1f}' if over else 'as answered'} | "
                f"{phase.rate:.1f} | {row['200']} | {row['429']} | {row['other']} | {times} | "
                f"{phase.off:.1e} | "
                + (f"{held[0]}, at most {held[1]}, {phase.growth:+.1%} |" if over else "|"),
                flush=True,
            )
    print("\n" + json.dumps({**report, "rows": rows, "missed": missed}, indent=1))
    if missed:
        sys.exit("missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()
