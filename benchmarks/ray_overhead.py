"""What Ray costs on one machine: calls through Ray Serve, and a Ray Data job, against one process.

    python benchmarks/ray_overhead.py ../shared/data/scifact --queries 40 --json ray.json

Calls: the server's engine in this process, asked directly; the same engine in a replica, asked
through a deployment's handle as the ingress asks it. What HTTP costs comes to both. With ``--fake``
nothing is ranked, so that what is left is Ray's own.

Job: BM25's candidates of the first queries of a BEIR folder, in this process and by Ray Data; the
outputs must be the same bytes. Seconds of Ray include starting it and loading the model again.

Needs icr-rag[ray,server,cli]. On a machine that does other things, numbers say little; the load is
kept beside them.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from icr_rag import Document, RerankerConfig
from icr_rag.evaluation.datasets import load_beir
from icr_rag.evaluation.environment import hardware, versions
from icr_rag.evaluation.first_stage import bm25_candidates
from icr_rag.server.call import Answers, RerankAnswer, RerankCall
from icr_rag.server.job import Job, do_here

Ask = Callable[[RerankCall], Awaitable[object]]


class Fake:
    """Answers without a model."""

    model = "fake"

    async def rerank(self, call: RerankCall) -> RerankAnswer:
        """The order given."""
        places = range(len(call.documents))
        return RerankAnswer(self.model, tuple(float(-i) for i in places), tuple(places), False)


def make_fake(config: RerankerConfig, settings: Mapping[str, object]) -> Answers:
    return Fake()


async def measure(ask: Ask, calls: list[RerankCall], at_once: int) -> dict[str, float]:
    """Calls per second, and milliseconds of a call, with so many under way."""
    turns, took = asyncio.Semaphore(at_once), []

    async def one(call: RerankCall) -> None:
        async with turns:
            began = time.perf_counter()
            await ask(call)
            took.append(1000 * (time.perf_counter() - began))

    await asyncio.gather(*(one(call) for call in calls[:at_once]))
    took.clear()
    began = time.perf_counter()
    await asyncio.gather(*(one(call) for call in calls))
    seconds = time.perf_counter() - began
    cuts = statistics.quantiles(took, n=20)
    return {"per_second": len(calls) / seconds, "p50_ms": cuts[9], "p95_ms": cuts[18]}


def calls_here(calls: list[RerankCall], config: RerankerConfig, fake: bool, at_once: int):
    from icr_rag.server.ray_replica import WarmEngine

    answers = Fake() if fake else WarmEngine(config, {"queue_documents": 10**6})
    return asyncio.run(measure(answers.rerank, calls, at_once))


def calls_by_serve(calls: list[RerankCall], config: RerankerConfig, fake: bool, at_once: int):
    from ray import cloudpickle, serve

    from icr_rag.server.affinity import document_set_key
    from icr_rag.server.ray_handles import RayReplicas
    from icr_rag.server.ray_replica import RerankerReplica, WarmEngine

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    deployment = serve.deployment(
        name="reranker", max_ongoing_requests=10 * at_once, ray_actor_options={"num_cpus": 0.5}
    )(RerankerReplica)
    given = config.model_dump(mode="json", exclude_unset=True)
    make = make_fake if fake else WarmEngine
    handle = serve.run(
        deployment.bind(given, {"queue_documents": 10**6}, make), name="bench", route_prefix=None
    )
    replicas = RayReplicas(handle)
    try:
        return asyncio.run(
            measure(lambda call: replicas(call, document_set_key(call.documents)), calls, at_once)
        )
    finally:
        serve.shutdown()


def job(rows: list[dict[str, object]], config: RerankerConfig, workers: int) -> dict[str, object]:
    from icr_rag.server.ray_job import do_with_ray

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "rows.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        seconds, outputs = {}, []
        for name in ("here", "ray"):
            out = Path(folder) / f"{name}.jsonl"
            began = time.perf_counter()
            made = Job.begin(source, out, config, part_rows=5)
            for _ in do_here(made) if name == "here" else do_with_ray(made, workers, cpus=0.5):
                pass
            made.finish()
            seconds[name] = time.perf_counter() - began
            outputs.append(out.read_bytes())
        return {"rows": len(rows), "seconds": seconds, "same_bytes": outputs[0] == outputs[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--depth", type=int, default=10)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--fake-calls", type=int, default=400)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    config = RerankerConfig(
        model=given.model, scoring="likelihood", dtype="float32", max_document_tokens=96
    )
    data = load_beir(given.data)
    names = list(data.queries)[: given.queries]
    data = dataclasses.replace(data, queries={name: data.queries[name] for name in names})
    candidates = bm25_candidates(data, given.depth)
    rows: list[dict[str, object]] = []
    calls = []
    for name, query in data.queries.items():
        found = [(key, data.documents[key]) for key in candidates[name]]
        documents = [{"id": key, "title": d.title, "text": d.text} for key, d in found]
        rows.append({"id": name, "query": query, "documents": documents})
        calls.append(RerankCall(query, tuple(Document(d.text, d.title) for _, d in found)))
    many = [calls[number % len(calls)] for number in range(given.fake_calls)]
    report: dict[str, object] = {"hardware": hardware(), "load": os.getloadavg()}
    report |= {"versions": versions(), "model": given.model, "at_once": given.at_once}

    def keep(name: str, value: object) -> None:
        report[name] = value
        print(f"{name}: {value}", file=sys.stderr, flush=True)

    keep("no model, here", calls_here(many, config, True, given.at_once))
    keep("model, here", calls_here(calls, config, False, given.at_once))

    import ray

    ray.init(
        address="local", num_cpus=2, object_store_memory=80 * 2**20, include_dashboard=False,
        log_to_driver=False,
    )  # fmt: skip
    try:
        keep("no model, Serve", calls_by_serve(many, config, True, given.at_once))
        keep("model, Serve", calls_by_serve(calls, config, False, given.at_once))
        keep("job", job(rows, config, given.workers))
    finally:
        ray.shutdown()
    report["ray"] = ray.__version__
    text = json.dumps(report, indent=2)
    print(text)
    if given.json is not None:
        given.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
