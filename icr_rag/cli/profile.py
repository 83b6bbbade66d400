"""``icr-rag profile``: the layer study, probabilities, and a profile that a reranker reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from icr_rag import Reranker, RerankerConfig
from icr_rag.cli.console import note, output_console
from icr_rag.cli.options import with_reranker_options
from icr_rag.cli.profile_calibrate import calibrate_profile, show_fitted, steps
from icr_rag.cli.profile_options import (
    Kinds,
    Language,
    Penalty,
    Queries,
    Size,
    TeacherNames,
    WritePairs,
)
from icr_rag.cli.profile_show import show_study
from icr_rag.cli.profile_teach import Asked, choose, collect_taught
from icr_rag.errors import DataError, InputError

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
            "of texts or .jsonl file without queries, from which label-free ones are made.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The profile; readings go to FILE.samples.npz.")
    ] = Path("profile.json"),
    queries: Queries = "auto",
    kinds: Kinds = "title,sentence,passage",
    language: Language = None,
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
    teacher: TeacherNames = None,
    write_pairs: WritePairs = None,
    size: Size = None,
    read: Annotated[
        str,
        typer.Option(metavar="NAME", help="Reading: log_mass, lift, max or calibrated."),
    ] = "log_mass",
    l2: Penalty = None,
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

    icr-rag profile handbook/ --queries log.txt --framework pointwise --teacher likelihood,yes_no

    icr-rag profile path/to/scifact --framework pointwise --teacher labels,scores.jsonl

    icr-rag profile path/to/scifact --parity odd --profile profile.json --target-precision 0.8

    icr-rag profile path/to/scifact --scoring likelihood --calibrate isotonic
    """
    from icr_rag.profiling.collect import profiling_config
    from icr_rag.profiling.plot import check_plots, plot_profile
    from icr_rag.profiling.plot_reliability import plot_reliability
    from icr_rag.profiling.sources import Wanted, load_queries
    from icr_rag.profiling.study import make_profile, run_study
    from icr_rag.profiling.teacher_scores import write_pairs as write

    # What is found is for one way of scoring, which the profile names.
    config = config.settled()
    asked = steps(config, method, calibrate, target_precision, target_recall)
    if asked.method is None and (teacher is not None or write_pairs is not None):
        raise InputError("--teacher and --write-pairs are for choosing heads; nothing is chosen")
    profiled = None if asked.method is None else profiling_config(config)
    if profiled is not None and asked.kind is not None:
        # What has no absolute scores is refused before hours are spent on its heads.
        profiled.replace(score_mode="explained")
    for path in (out, *(plot or ())):
        if not path.resolve().parent.is_dir():
            raise DataError(f"cannot write {path}: there is no folder {path.resolve().parent}")
    check_plots(plot or [])
    wanted = Wanted(queries, tuple(kinds.split(",")), limit, parity, depth, language or "english")
    writer = _question_writer(config) if "question" in wanted.kinds else None
    tasks = load_queries(data, wanted, writer)
    if language is not None and not any(task.label_free or task.unlabelled for task in tasks):
        raise InputError("--language is for queries that are made or searched for; there are none")
    unknown = [task.name for task in tasks if task.unlabelled]
    if unknown and asked.kind is not None:
        raise InputError(
            f"--calibrate needs queries of which it is known what is relevant; of those of "
            f"{', '.join(unknown)} it is not"
        )
    if write_pairs is not None:
        count = write(write_pairs, tasks)
        output_console().print(f"{count:,} pairs of a query and a document -> {write_pairs}")
        return
    if plot and len(unknown) == len(tasks):
        raise InputError("--plot draws nDCG@10, and nothing is known to be relevant; leave it out")
    told: dict[str, object] = {
        "queries": {task.name: len(task.queries) for task in tasks},
        "label-free": sorted(task.name for task in tasks if task.label_free),
        "unlabelled": sorted(unknown),
        "depth": depth,
        "parity": parity,
    }
    heads = None if config.profile is None else Path(config.profile)
    pictures = list(plot or [])
    if profiled is not None and asked.method is not None:
        choice, teaching = choose(
            Asked(asked.method, size, read, l2, depth_penalty, max_layer, teacher), tasks
        )
        found = collect_taught(config, teaching, tasks, out)
        study = run_study(found.samples, choice, mixed=config.scoring == "mixed")
        own = found.config.switched(scoring=config.scoring, framework=profiled.framework)
        told["taught by"] = str(teaching)
        made = make_profile(study, choice, own, found.text_config, told)
        made.save(out)
        if pictures and study.curve is not None:
            plot_profile(pictures, study.curve, study.heads, study.chosen, f"{config.model}")
            pictures = [path.with_suffix(f".reliability{path.suffix}") for path in pictures]
        show_study(study, out)
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


def _question_writer(config: RerankerConfig) -> Callable[[str], str]:
    """A function that has the model write a question to a text."""
    from icr_rag.profiling.collect import make_question_writer

    writing = RerankerConfig(
        **config.model_dump(include={"model", "revision", "device", "dtype", "cache_dir"}),
        scoring="generation",
    )
    return make_question_writer(Reranker(writing))
