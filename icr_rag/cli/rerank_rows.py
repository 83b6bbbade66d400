"""``icr-rag rerank --rows``: many queries with documents of their own, here or on a cluster."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from pathlib import Path

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from icr_rag import RerankerConfig
from icr_rag.cli.console import messages, note, output_console, quiet_bars
from icr_rag.errors import require
from icr_rag.server.job import Job, do_here
from icr_rag.server.job_input import Part

_COLUMNS = (
    TextColumn("ranking"),
    BarColumn(),
    MofNCompleteColumn(),
    TextColumn("rows,"),
    TimeRemainingColumn(),
    TextColumn("left"),
)


class Engine(str, Enum):
    """What runs a job."""

    local = "local"
    ray = "ray"


def rank_rows(
    config: RerankerConfig,
    rows: Path,
    out: Path | None,
    engine: Engine,
    workers: int,
    gpus_per_worker: float,
) -> None:
    """Rank every row of a file; a job that was interrupted goes on.

    Raises:
        DataError: for files that cannot be read or written, or rows without a result.
        MissingDependencyError: for Ray, or Parquet, where it is not installed.
    """
    if out is None:
        raise typer.BadParameter("--rows needs it: a .jsonl or .parquet file", param_hint="--out")
    if engine is Engine.ray:
        # Before a folder for parts is made.
        require("ray.data", "ray", "A job on several machines")
    job = Job.begin(rows, out, config)
    quiet_bars(config)
    with Progress(*_COLUMNS, console=messages) as progress:
        left = sum(part.rows for part in job.unfinished())
        kept = job.input.rows - left
        bar = progress.add_task("", total=job.input.rows, completed=kept)
        for part in _done(job, engine, workers, gpus_per_worker):
            progress.advance(bar, part.rows)
    counts = job.finish()
    if kept:
        note(f"{kept} rows were finished before")
    if counts.failed:
        note(f"{counts.failed} rows could not be ranked; 'error' in {out} says why")
    output_console().print(f"{counts.rows} rows in {out}", soft_wrap=True)


def _done(job: Job, engine: Engine, workers: int, gpus: float) -> Iterable[Part]:
    if engine is Engine.local:
        return do_here(job)
    from icr_rag.server.ray_job import do_with_ray

    return do_with_ray(job, workers, gpus=gpus)
