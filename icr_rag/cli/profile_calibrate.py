"""The part of ``icr-rag profile`` that fits probabilities to scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from icr_rag import Reranker, RerankerConfig
from icr_rag.cli.console import messages, note, output_console, prepare
from icr_rag.errors import ConfigError, InputError

if TYPE_CHECKING:
    from icr_rag.profiles import Profile, Proposal
    from icr_rag.profiling.calibrate import Fitted, ScoredList
    from icr_rag.profiling.resume import Task


@dataclass(frozen=True)
class Steps:
    """What a call of ``icr-rag profile`` does.

    Attributes:
        method: how heads are chosen; None: they are not.
        kind: how probabilities are fitted; None: they are not.
        targets: of thresholds, ("precision" or "recall", how much of it).
    """

    method: str | None
    kind: str | None
    targets: tuple[tuple[str, float], ...]


def steps(
    config: RerankerConfig,
    method: str | None,
    calibrate: str | None,
    precision: float | None,
    recall: float | None,
) -> Steps:
    """What the options ask for.

    Raises:
        ConfigError: for a way of scoring that there is nothing to find out about.
        InputError: for a value that is not allowed, or options that leave nothing to do.
    """
    from icr_rag.profiling.calibrate import KINDS
    from icr_rag.profiling.study import METHODS

    if method not in (None, "none", *METHODS):
        raise InputError(f"--method {method}; allowed are {', '.join([*METHODS, 'none'])}")
    if calibrate not in (None, "none", *KINDS):
        raise InputError(f"--calibrate {calibrate}; allowed are {', '.join([*KINDS, 'none'])}")
    reads = config.method.reads_attention
    if not reads and not config.method.explained:
        raise ConfigError(
            f"{config.method.label} reads no attention, so that there are no heads to choose, and "
            "has no absolute scores to calibrate"
        )
    fixed = config.profile is not None or not reads
    if fixed and method not in (None, "none"):
        why = "--profile has heads already" if reads else "this scoring reads no attention"
        raise InputError(f"--method {method} chooses heads, but {why}; leave it out")
    choosing = None if fixed or method == "none" else method or "learned"
    # Heads fit the queries that they were chosen on better than others, and so would a calibration
    # to their scores; it is made beside a choice only where it is asked for.
    kind = calibrate or ("none" if choosing else "logistic")
    named = (("precision", precision), ("recall", recall))
    targets = tuple((name, value) for name, value in named if value is not None)
    if kind == "none" and targets:
        raise InputError("--target-precision and --target-recall need --calibrate logistic")
    if kind == "none" and choosing is None:
        raise InputError("nothing is chosen and --calibrate is none, so that nothing is left to do")
    return Steps(choosing, None if kind == "none" else kind, targets)


def calibrate_profile(
    config: RerankerConfig,
    heads: Path | None,
    tasks: Sequence[Task],
    asked: Steps,
    data: Mapping[str, object],
) -> tuple[Profile, Fitted]:
    """Score the queries' candidates, fit, and make a profile with what was fitted.

    Args:
        config: the command's settings. heads: a profile whose heads are read; None: what ships.
        tasks: what to score. data: where it comes from.
    """
    from icr_rag.profiling.calibrate import fit
    from icr_rag.profiling.score_lists import calibrated, heads_to_calibrate, scoring_config

    own = scoring_config(config, None if heads is None else str(heads))
    with Reranker(own) as reranker:
        prepare(reranker)
        # Before anything is scored, in case there are no heads to score by.
        profile = heads_to_calibrate(own, reranker.engine.text_config)
        lists = _score(reranker, tasks)
        told = {**data, "max_document_tokens": own.max_document_tokens}
        kind = asked.kind or "logistic"
        fitted = fit(lists, kind, reranker.scorer.basis(), told, asked.targets)
        return calibrated(reranker, fitted, profile), fitted


def _score(reranker: Reranker, tasks: Sequence[Task]) -> list[ScoredList]:
    from icr_rag.profiling.score_lists import score_lists

    columns = (TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), TextColumn("queries,"),
               TimeRemainingColumn(), TextColumn("left"))  # fmt: skip
    bars = Progress(*columns, console=messages)
    with ExitStack() as stack:

        def show(finished: int, count: int) -> None:
            if not bars.tasks:
                stack.enter_context(bars).add_task("", total=count)
            bars.update(bars.task_ids[0], completed=finished)

        return score_lists(reranker, tasks, show)


def show_fitted(fitted: Fitted, out: Path) -> None:
    """Figures, the reliability table and proposed thresholds."""
    console = output_console()
    found = fitted.calibration
    table = Table(title=f"{found.kind} calibration, cross-validated", title_justify="left")
    for name in ("what is told", "pairs", "relevant", "Brier", "ECE", "log loss", "AUC"):
        table.add_column(name, justify="left" if name == "what is told" else "right")
    measured = {"relevance": found.measured}
    if fitted.abstention is not None:
        own = fitted.abstention.measured
        measured["answerable"] = {"pairs": own["lists"], "relevant": own["with an answer"], **own}
    for name, row in measured.items():
        counts = [f"{row[key]:.0f}" for key in ("pairs", "relevant")]
        values = [f"{row[key]:.4f}" for key in ("Brier", "ECE", "log loss", "AUC")]
        table.add_row(name, *counts, *values)
    console.print(table)
    reliability = Table(title="reliability", title_justify="left")
    for name in ("predicted", "observed", "pairs"):
        reliability.add_column(name, justify="right")
    for predicted, observed, count in found.reliability:
        reliability.add_row(f"{predicted:.4f}", f"{observed:.4f}", str(count))
    console.print(reliability)
    for proposal in found.thresholds:
        console.print(_told(proposal))
    console.print(f"probabilities -> {out}")
    if fitted.abstention is None:
        note("too few lists with and without an answer to fit abstention weights")


def _told(proposal: Proposal) -> str:
    wanted = f"{proposal.target} {proposal.wanted:g}"
    if proposal.score_threshold is None:
        return f"{wanted}: no score_threshold reaches it on these queries"
    # Without a pair above it there is no precision.
    precision = "none" if proposal.precision is None else f"{proposal.precision:.3f}"
    return (
        f"{wanted}: score_threshold {proposal.score_threshold:.4f} (on queries that it was not "
        f"chosen on: precision {precision}, recall {proposal.recall or 0.0:.3f})"
    )
