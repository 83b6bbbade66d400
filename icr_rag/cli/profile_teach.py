"""The part of ``icr-rag profile`` that finds out what teaches the heads, and reads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from icr_rag import Reranker, RerankerConfig
from icr_rag.cli.console import messages, prepare
from icr_rag.errors import DataError, InputError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from icr_rag.profiling.resume import Task
    from icr_rag.profiling.samples import Sample
    from icr_rag.profiling.study import Choice
    from icr_rag.profiling.teachers import Teaching

#: Endings of files that may hold scores; a model of this name is not looked for.
_SCORES = (".jsonl", ".tsv", ".trec", ".run", ".txt")


@dataclass(frozen=True)
class Asked:
    """The options of a choice of heads, as given: None where they are not."""

    method: str
    size: int | None
    read: str
    l2: float | None
    depth_penalty: float
    max_layer: int | None
    teacher: str | None


def choose(asked: Asked, tasks: Sequence[Task]) -> tuple[Choice, Teaching]:
    """How heads are chosen, and what teaches them.

    Raises:
        InputError: for options that mean nothing to the method, or a teacher that cannot teach.
        DataError: for a file of scores that does not exist.
    """
    from icr_rag.profiling.study import Choice
    from icr_rag.profiling.teachers import BLEND, LABELS, LIKELIHOOD, average

    learned = asked.method == "learned"
    if not learned and asked.teacher not in (None, LABELS):
        raise InputError(
            f"--teacher {asked.teacher} is for --method learned; {asked.method} knows labels alone"
        )
    if not learned and asked.l2 is not None:
        raise InputError(f"--l2 is for --method learned; {asked.method} has no penalty")
    default = BLEND if any(task.labels == "given" for task in tasks) else LIKELIHOOD
    given = asked.teacher or (default if learned else LABELS)
    names = [name.strip() for name in given.split(",")]
    for name in names:
        if not name or (Path(name).suffix in _SCORES and not Path(name).is_file()):
            raise DataError(f"--teacher {name or ','.join(names)}: there is no file {name!r}")
    teaching = average(names)
    unknown = [task.name for task in tasks if task.labels == "none"]
    if set(teaching.weights) == {LABELS} and unknown:
        raise InputError(
            f"of the queries of {', '.join(unknown)} nothing is known to be relevant, so that "
            "labels cannot teach; give --method learned with --teacher likelihood or another"
        )
    choice = Choice(
        asked.method,
        # What did best for the teacher, or of a choice of equally weighted heads.
        (teaching.size if learned else 64) if asked.size is None else asked.size,
        asked.read,
        teaching.l2 if asked.l2 is None else asked.l2,
        asked.depth_penalty,
        asked.max_layer,
        teaching,
    )
    return choice, teaching


@dataclass(frozen=True)
class Collected:
    """What heads are chosen from.

    Attributes:
        samples: readings and scores of all queries.
        config: of the reranker that read them, "auto" replaced.
        text_config: transformers configuration of the whole model.
    """

    samples: list[Sample]
    config: RerankerConfig
    text_config: PreTrainedConfig


def collect_taught(
    config: RerankerConfig, teaching: Teaching, tasks: Sequence[Task], out: Path
) -> Collected:
    """Readings of all queries and the scores of what teaches them, kept beside ``out``.

    The model's own likelihood is always among them, for the held-out figures.

    Raises:
        DataError: if there is nothing to read, or a file of scores lacks some.
        ConfigError: for a teacher that cannot score.
        ModelLoadError: for one that is no model, before anything is read.
    """
    from icr_rag.calls.load import depth_run
    from icr_rag.model.loading import load_config
    from icr_rag.profiling.collect import reading_config
    from icr_rag.profiling.resume import collect_or_resume
    from icr_rag.profiling.teacher_scores import (
        read_scores,
        score_or_resume,
        teacher_config,
        with_scores,
    )
    from icr_rag.profiling.teachers import LABELS, LIKELIHOOD

    # Files and settings first: what is wrong with them is said before hours are spent.
    names = [name for name in teaching.weights if name not in (LABELS, LIKELIHOOD)]
    found = {name: read_scores(Path(name), tasks) for name in names if _is_file(name)}
    scoring = {name: teacher_config(config, name) for name in names if name not in found}
    for own in scoring.values():
        # A name that was mistyped is that of no model.
        depth_run(own, load_config(own).text)
    scoring[LIKELIHOOD] = teacher_config(config, LIKELIHOOD)
    reading = reading_config(config)
    with ExitStack() as stack, Reranker(reading) as reranker:
        show = _bar(stack, "reading")
        samples = collect_or_resume(
            reranker,
            tasks,
            Path(f"{out}.samples.npz"),
            progress=lambda finished, count: show(reranker, finished, count),
        )
        if not samples:
            raise DataError("no query has candidates to read")
        collected = reranker.config, reranker.engine.text_config
    if all(sample.likelihood is not None for sample in samples):
        del scoring[LIKELIHOOD]
    for name, own in scoring.items():
        with ExitStack() as stack:
            found[name] = score_or_resume(
                own, tasks, Path(f"{out}.teachers.jsonl"), progress=_bar(stack, f"asking {name}")
            )
    for name, scores in found.items():
        samples = with_scores(samples, name, scores)
    return Collected(samples, *collected)


def _is_file(name: str) -> bool:
    return Path(name).is_file() and Path(name).suffix != ".gguf"


def _bar(stack: ExitStack, what: str) -> Callable[[Reranker, int, int], None]:
    """What shows progress in a bar, from the first report on."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("queries,"),
               TimeRemainingColumn(), TextColumn("left"))  # fmt: skip
    bars = Progress(*columns, console=messages)

    def show(reranker: Reranker, finished: int, count: int) -> None:
        if not bars.tasks:
            prepare(reranker)
            stack.enter_context(bars).add_task("", total=count)
        bars.update(bars.task_ids[0], completed=finished)

    return show
