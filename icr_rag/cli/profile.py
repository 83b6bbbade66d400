"""``icr-rag profile``: the layer study, probabilities, and a profile that a reranker reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from icr_rag import Reranker, RerankerConfig
from icr_rag.cli.console import messages, note, output_console, prepare
from icr_rag.cli.options import with_reranker_options
from icr_rag.cli.profile_calibrate import calibrate_profile, show_fitted, steps
from icr_rag.errors import DataError

if TYPE_CHECKING:
    from icr_rag.profiling.resume import Task
    from icr_rag.profiling.samples import Sample
    from icr_rag.profiling.study import Study

_LEFT_OUT = ("top_n", "on_error", "score_threshold", "min_answerable", "near_duplicates", "layers",
             "heads", "fusion", "fusion_weight", "score_mode", "reading", "aggregation", "window",
             "stride", "cascade", "cascade_framework", "sort", "sort_top", "set_size", "diversity",
             "rank_fields", "rank_fields_format", "passages", "passage_tokens",
             "passage_overlap", "first_stage_weights", "embedder")  # fmt: skip


@with_reranker_options(without=_LEFT_OUT)
def profile(
    config: RerankerConfig,
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA...",
            help="BEIR folders with labelled queries and a run.*, or your own documents: a folder "
            "or .jsonl file without queries, from which label-free ones are made.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The profile; readings go to FILE.samples.npz.")
    ] = Path("profile.json"),
    queries: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="labelled; label-free: made from the documents; both; auto: labelled where "
            "there are labels.",
        ),
    ] = "auto",
    kinds: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Kinds of label-free queries: title, sentence, passage, and question, which the "
            "model writes.",
        ),
    ] = "title,sentence,passage",
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="How heads are chosen: learned, core, qrhead, greedy or window; none: those of "
            "--profile or of what ships stay. Default: none with --profile or for likelihood, "
            "else learned.",
            show_default=False,
        ),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="Fit probabilities to explained scores: logistic, isotonic (from some thousand "
            "candidates on) or none. Default: logistic where no heads are chosen, else none.",
            show_default=False,
        ),
    ] = None,
    target_precision: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Propose a score_threshold that keeps candidates of this precision.",
            show_default=False,
        ),
    ] = None,
    target_recall: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Propose a score_threshold that keeps this share of the relevant candidates.",
            show_default=False,
        ),
    ] = None,
    size: Annotated[int, typer.Option(min=1, metavar="N", help="How many heads to choose.")] = 64,
    read: Annotated[
        str,
        typer.Option(metavar="NAME", help="Reading: log_mass, lift, max or calibrated."),
    ] = "log_mass",
    l2: Annotated[float, typer.Option(metavar="X", help="Penalty of learned weights.")] = 20.0,
    depth_penalty: Annotated[
        float, typer.Option(metavar="X", help="Prefer heads that exit earlier.")
    ] = 0.0,
    max_layer: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Choose nothing above it.", show_default=False),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=2, metavar="N", help="Most queries of each kind and data.")
    ] = 100,
    parity: Annotated[
        str | None,
        typer.Option(
            metavar="HALF",
            help="Labelled queries with 'even' or 'odd' ids only, to keep the others for a test.",
            show_default=False,
        ),
    ] = None,
    depth: Annotated[int, typer.Option(min=2, metavar="N", help="Candidates read per query.")] = 20,
    plot: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Curve and heads as .png or .svg; of a calibration its reliability, beside them "
            "as NAME.reliability.png.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Find the layers and heads with which a model ranks your documents best, or what its scores
    mean.

    Every head of every layer is read once per query; everything else is computed from that in
    seconds, so that another --method or --size costs nothing. When interrupted, give the same
    command again and it goes on.

    icr-rag profile path/to/scifact --parity even --framework pointwise --plot study.png

    icr-rag profile notes.jsonl --kinds sentence,passage --framework pointwise

    icr-rag profile path/to/scifact --parity odd --profile profile.json --target-precision 0.8

    icr-rag profile path/to/scifact --scoring likelihood --calibrate isotonic
    """
    from icr_rag.profiling.collect import profiling_config
    from icr_rag.profiling.plot import check_plots, plot_profile
    from icr_rag.profiling.plot_reliability import plot_reliability
    from icr_rag.profiling.sources import Wanted, load_queries
    from icr_rag.profiling.study import Choice, make_profile, run_study

    asked = steps(config, method, calibrate, target_precision, target_recall)
    profiled = None if asked.method is None else profiling_config(config)
    if profiled is not None and asked.kind is not None:
        # What has no absolute scores is refused before hours are spent on its heads.
        profiled.replace(score_mode="explained")
    for path in (out, *(plot or ())):
        if not path.resolve().parent.is_dir():
            raise DataError(f"cannot write {path}: there is no folder {path.resolve().parent}")
    check_plots(plot or [])
    wanted = Wanted(queries, tuple(kinds.split(",")), limit, parity, depth)
    writer = _question_writer(config) if "question" in wanted.kinds else None
    tasks = load_queries(data, wanted, writer)
    told = {
        "queries": {task.name: len(task.queries) for task in tasks},
        "label-free": sorted(task.name for task in tasks if task.label_free),
        "depth": depth,
        "parity": parity,
    }
    heads = None if config.profile is None else Path(config.profile)
    pictures = list(plot or [])
    if profiled is not None and asked.method is not None:
        choice = Choice(asked.method, size, read, l2, depth_penalty, max_layer)
        with Reranker(profiled) as reranker:
            samples = _collect(reranker, tasks, Path(f"{out}.samples.npz"))
            if not samples:
                raise DataError("no query has candidates to read")
            study = run_study(samples, choice, mixed=config.scoring == "mixed")
            made = make_profile(study, choice, reranker.config, reranker.engine.text_config, told)
        made.save(out)
        if pictures:
            plot_profile(pictures, study.curve, study.heads, study.chosen, f"{config.model}")
            pictures = [path.with_suffix(f".reliability{path.suffix}") for path in pictures]
        _show(study, out)
        heads = out
    if asked.kind is not None:
        made, fitted = calibrate_profile(config, heads, tasks, asked, told)
        made.save(out)
        if pictures:
            plot_reliability(pictures, fitted.calibration, f"{config.model}")
        show_fitted(fitted, out)
        if profiled is not None:
            note(
                "the heads were chosen on these queries, so that they look better here than they "
                "are; calibrate on others with --profile"
            )


def _collect(reranker: Reranker, tasks: Sequence[Task], path: Path) -> list[Sample]:
    """Readings of all queries: those kept in ``path``, and the rest from the model, under a bar."""
    from icr_rag.profiling.resume import collect_or_resume

    columns = (TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TextColumn("queries,"),
               TimeRemainingColumn(), TextColumn("left"))  # fmt: skip
    bars = Progress(*columns, console=messages)
    with ExitStack() as stack:

        def show(finished: int, count: int) -> None:
            if not bars.tasks:
                prepare(reranker)
                stack.enter_context(bars).add_task("", total=count)
            bars.update(bars.task_ids[0], completed=finished)

        return collect_or_resume(reranker, tasks, path, progress=show)


def _question_writer(config: RerankerConfig) -> Callable[[str], str]:
    """A function that has the model write a question to a text."""
    from icr_rag.profiling.collect import make_question_writer

    writing = RerankerConfig(
        **config.model_dump(include={"model", "revision", "device", "dtype", "cache_dir"}),
        scoring="generation",
    )
    return make_question_writer(Reranker(writing))


def _show(study: Study, out: Path) -> None:
    console = output_console()
    curve = study.curve
    table = Table(title=f"nDCG@10, {curve.queries} queries", title_justify="left")
    table.add_column("what is read")
    table.add_column("mean", justify="right")
    for name, value in study.measured.items():
        if isinstance(value, float):
            table.add_row(name, f"{value:.4f}")
    console.print(table)
    first, last = curve.window
    console.print(
        f"peak: layer {curve.peak} (95 %: {curve.peak_low} to {curve.peak_high}); window "
        f"{first}-{last}, chosen by {curve.window_share:.0%} of the resamples"
    )
    deepest = max(item.layer for item in study.chosen)
    console.print(f"{len(study.chosen)} readings up to layer {deepest} -> {out}")
    if curve.queries < 40:
        note(f"{curve.queries} queries are few; from about 50 on, choices become stable")
