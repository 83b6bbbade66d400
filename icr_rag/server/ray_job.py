"""A job over many rows on many machines, by Ray Data.

What Ray does here is to hand parts to a pool of workers, each with one `Reranker` that is loaded
once, and to start another worker where one died. What a part is, and that its rows come out exactly
once, is `icr_rag.server.job`'s affair, the same as in one process. The input, the output and what
the settings name (model, profile) must be at the same paths on all machines.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from icr_rag.errors import ConfigError, ModelLoadError, brief, require
from icr_rag.reranker import Reranker
from icr_rag.server.job import Job, do_part
from icr_rag.server.job_input import Part

if TYPE_CHECKING:
    import numpy as np

#: How often a part may be begun before it is left out, and the others go on. Ray itself would begin
#: it for ever.
_MOST_BEGINNINGS = 3
#: Workers that may die while they load the model, beyond one each.
_MOST_LOADS = 3


class RankParts:
    """A worker: one reranker, and parts one after the other.

    Args:
        job: what the parts are of.
        workers: how many there are.

    Raises:
        ModelLoadError: if the model cannot be loaded, or those who tried died.
    """

    def __init__(self, job: Job, workers: int) -> None:
        self._job = job
        # Workers that die of it leave no word but this, and Ray starts others without end.
        mark, loads = job.mark("load")
        if loads > workers + _MOST_LOADS:
            raise ModelLoadError(
                "workers died again and again; is there memory for the model in each of them?"
            )
        self._reranker = self.load()
        mark.unlink(missing_ok=True)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Do the part whose number is given; whether it is done now."""
        part = self._job.input.parts[int(batch["part"][0])]
        _, begun = self._job.mark(f"part-{part.number}")
        if begun > _MOST_BEGINNINGS:
            return {**batch, "done": batch["part"] < 0}
        self.do(part)
        return {**batch, "done": batch["part"] >= 0}

    def load(self) -> Reranker:
        """A reranker that is warm."""
        return Reranker(self._job.config).warm_up()

    def do(self, part: Part) -> None:
        """Rank the part's rows."""
        do_part(self._reranker, self._job, part)


def do_with_ray(
    job: Job,
    workers: int = 1,
    *,
    gpus: float = 0.0,
    cpus: float = 1.0,
    address: str | None = None,
) -> Iterator[Part]:
    """Do what is unfinished of a job; each part is given when it is done.

    A part whose workers die again and again is not given, and `Job.finish` names it.

    Args:
        job: what to do.
        workers: processes with a reranker each, from 1.
        gpus: accelerators per worker, fractions allowed.
        cpus: CPU cores that Ray counts per worker.
        address: of a running cluster, as ``ray.init`` takes it; None: the one that the variable
            RAY_ADDRESS names, else one that is started on this machine and ends with the job, and
            that reports nothing to anybody.

    Raises:
        ConfigError: for numbers that are not allowed.
        MissingDependencyError: without Ray.
        ModelLoadError: if no worker can be started.
    """
    if workers < 1 or gpus < 0 or cpus < 0:
        raise ConfigError(
            f"workers={workers}, gpus={gpus}, cpus={cpus}; allowed are whole numbers from 1 for "
            "workers, and from 0 for the others"
        )
    require("ray.data", "ray", "A job on several machines")
    unfinished = {part.number: part for part in job.unfinished()}
    if not unfinished:
        return
    with _cluster(address), _quiet_data():
        import ray

        workers = min(workers, len(unfinished))
        numbers = ray.data.from_items(
            [{"part": number} for number in unfinished], override_num_blocks=len(unfinished)
        )
        # A worker takes the next part when it is done with one: a slow one holds up no other.
        done = numbers.map_batches(
            RankParts,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(
                min_size=1, max_size=workers, max_tasks_in_flight_per_actor=1
            ),
            fn_constructor_args=(job, workers),
            num_cpus=cpus,
            num_gpus=gpus,
        )
        try:
            for row in done.iter_rows():
                if row["done"]:
                    yield unfinished[int(row["part"])]
        except ray.exceptions.ActorDiedError as error:
            raise ModelLoadError(
                f"no worker could be started: {brief(_cause(error))}; try --engine local, which "
                "shows what is wrong"
            ) from error


def _cause(error: BaseException) -> str:
    """The last line of what Ray tells, which names the error in the worker."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """Connected to Ray; what was not connected before is not afterwards."""
    import ray

    if ray.is_initialized():
        yield
        return
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    before = os.environ.get("RAY_USAGE_STATS_ENABLED")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        own = {"include_dashboard": False} if where == "local" else {}
        ray.init(address=where, configure_logging=False, log_to_driver=False, **own)
        yield
    finally:
        ray.shutdown()
        if before is None:
            del os.environ["RAY_USAGE_STATS_ENABLED"]
        else:
            os.environ["RAY_USAGE_STATS_ENABLED"] = before


@contextmanager
def _quiet_data() -> Iterator[None]:
    """Ray Data without bars of its own, and going on where one part cannot be done."""
    import ray

    context = ray.data.DataContext.get_current()
    before = context.enable_progress_bars, context.max_errored_blocks
    context.enable_progress_bars, context.max_errored_blocks = False, -1
    try:
        yield
    finally:
        context.enable_progress_bars, context.max_errored_blocks = before
