"""A small Ray on this machine, and what its tests serve. Imported after `importorskip("ray")`."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

#: What Ray itself warns of; nothing of ours is among it.
RAY_WARNS = [
    pytest.mark.filterwarnings(f"ignore{rule}")
    for rule in (
        ":.*:FutureWarning:ray",
        ":.*:DeprecationWarning:ray",
        # Its own processes and sockets, which it leaves to the collector.
        ":(subprocess .* is still running|unclosed .*):ResourceWarning",
        "::pytest.PytestUnraisableExceptionWarning",
    )
]


@contextmanager
def small_ray():
    """Two logical CPUs, no dashboard, nothing reported; gone at the end."""
    import ray

    before = dict(os.environ)
    os.environ.update(
        RAY_USAGE_STATS_ENABLED="0",
        RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
        # No worker before there is work for it.
        RAY_prestart_worker_first_driver="0",
        OMP_NUM_THREADS="1",
        HF_HUB_OFFLINE="1",
        # Its workers find this package and the tests' helpers where this process finds them.
        PYTHONPATH=os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent)]),
    )
    try:
        _start(ray)
        yield
    finally:
        ray.shutdown()
        os.environ.clear()
        os.environ.update(before)


def _start(ray):
    """Ray gives a node half a minute, which a machine that does other things may exceed."""
    for left in (2, 1, 0):
        try:
            ray.init(
                address="local",
                num_cpus=2,
                object_store_memory=80 * 2**20,
                include_dashboard=False,
                configure_logging=False,
                log_to_driver=False,
            )
        except Exception as error:
            ray.shutdown()
            if not left or "timed out during startup" not in str(error):
                raise
        else:
            return


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def served(config, settings):
    """The reranker's answers; their model's name says in which process they were made.

    A call with the query "die, FILE" kills the process, unless the file exists, which it makes.
    """
    from icr_rag.server.ray_replica import WarmEngine

    return Mortal(Lengths() if config.model == "lengths" else WarmEngine(config, settings))


class Lengths:
    """Without a model, and soon there: longer documents are better."""

    model = "lengths"

    async def rerank(self, call):
        from icr_rag.server.call import RerankAnswer

        scores = tuple(float(len(document.text)) for document in call.documents)
        order = sorted(range(len(scores)), key=lambda place: -scores[place])
        return RerankAnswer(self.model, scores, tuple(order), probability=False)


class Mortal:
    def __init__(self, answers):
        self.answers = answers

    @property
    def model(self):
        return f"{Path(self.answers.model).name}@{os.getpid()}"

    async def rerank(self, call):
        import dataclasses

        if call.query.startswith("die, "):
            flag = Path(call.query.removeprefix("die, "))
            if not flag.exists():
                flag.touch()
                os._exit(1)
        return dataclasses.replace(await self.answers.rerank(call), model=self.model)


def small_app(answers):
    """POST /rank; the calls that were retried at GET /retried."""
    from fastapi import FastAPI
    from fastapi.responses import JSONResponse

    from icr_rag import Document
    from icr_rag.errors import ICRError
    from icr_rag.server.call import RerankCall

    app = FastAPI()

    async def rank(body: dict) -> JSONResponse:
        documents = tuple(Document(text) for text in body.pop("documents"))
        try:
            answer = await answers.rerank(RerankCall(documents=documents, **body))
        except ICRError as error:
            return JSONResponse({"kind": type(error).__name__, "message": str(error)}, 400)
        return JSONResponse(
            {"model": answer.model, "scores": answer.scores, "order": answer.order,
             "degraded": answer.degraded}
        )  # fmt: skip

    rank.__annotations__ = {"body": dict}
    app.post("/rank", response_model=None)(rank)
    app.get("/retried")(lambda: answers.retried)
    return app


def by_value():
    """Serve's processes get this module with what is sent to them."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
