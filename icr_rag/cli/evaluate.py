"""``icr-rag evaluate``: re-rank a data set's candidates and measure, or run a whole grid."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from icr_rag import Reranker, RerankerConfig
from icr_rag.cli.console import messages, note, output_console, prepare, write_json
from icr_rag.cli.evaluate_grid import evaluate_grid, is_grid
from icr_rag.cli.options import with_reranker_options
from icr_rag.errors import DataError, require
from icr_rag.evaluation.harness import Evaluation, Setting
from icr_rag.evaluation.harness import evaluate as run_evaluation
from icr_rag.evaluation.runs import write_trec_run
from icr_rag.evaluation.sources import Source, load_for_ranking
from icr_rag.files import write_whole
from icr_rag.model.cache_folder import cache_root

_STDOUT = "-"
_COLUMNS = (
    TextColumn("re-ranking"),
    BarColumn(),
    MofNCompleteColumn(),
    TextColumn("queries,"),
    TimeRemainingColumn(),
    TextColumn("left"),
)


# A failure must show in an evaluation, and a document left out would count as not found.
@with_reranker_options(
    without=("top_n", "on_error", "score_threshold", "min_answerable", "near_duplicates"),
    # A grid's settings are checked system by system, with what stands on the command line.
    unchecked=lambda values: is_grid(str(values["dataset"])),
)
def evaluate(
    config: RerankerConfig,
    context: typer.Context,
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="BEIR folder: corpus.jsonl, queries.jsonl, and qrels.tsv or qrels/SPLIT.tsv. Or "
            "ir_datasets:NAME, bright:DOMAIN, candidates:file=FILE, "
            "trec:corpus=FILE,topics=FILE,qrels=FILE. Or a grid: a .yaml file that names data "
            "sets, systems and peers.",
            show_default=False,
        ),
    ],
    candidates: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="First-stage run: a TREC run, or a TSV with the header 'query-id corpus-id rank "
            "score'. Not given: the data's own (in a folder, the one file run.*), else BM25's.",
            show_default=False,
        ),
    ] = None,
    depth: Annotated[
        int, typer.Option(min=1, metavar="N", help="Candidates to re-rank per query.")
    ] = 100,
    shuffle: Annotated[
        int | None,
        typer.Option(
            metavar="SEED",
            help="Shuffle these candidates first, so that their order tells nothing.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Only the first N queries; means are over these.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Which judgements, where the folder has qrels/SPLIT.tsv."
        ),
    ] = "test",
    ignore_identical_ids: Annotated[
        bool,
        typer.Option(
            "--ignore-identical-ids/--keep-identical-ids",
            help="Whether a document that has its query's id is no candidate, as in BEIR's "
            "evaluation: where queries are documents, they would find themselves.",
        ),
    ] = True,
    json_file: Annotated[
        str | None,
        typer.Option(
            "--json",
            metavar="FILE",
            help="Write everything as JSON, and finished queries to FILE.state.jsonl beside it; "
            "'-': JSON to standard output.",
            show_default=False,
        ),
    ] = None,
    run_out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the re-ranked TREC run.", show_default=False),
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh", help="Start over instead of going on; finished queries are forgotten."
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Of a grid: folder for tables, runs, the report and finished queries.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Of a grid: where the relative folders of its data sets begin. Not given: the "
            "working directory.",
            show_default=False,
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Of a grid: only this data set; may be given several times.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Measure a re-ranker on a data set: candidates, re-ranked, difference. Or run a grid.

    All queries with a relevant document count, also where no candidate is relevant.

    When interrupted, give the same command again and it goes on: finished queries are kept.

    With a grid, --limit holds for each data set, and settings of the re-ranker replace those that
    its systems share. A system that fails is marked in the report and the others go on; the exit
    code is 1 then.

    icr-rag evaluate scifact --depth 20 --layers 10-13 --shuffle 1

    icr-rag evaluate grid.yaml --out report
    """
    if is_grid(dataset):
        _check_options(
            context,
            (
                "candidates", "depth", "shuffle", "split", "ignore_identical_ids", "json_file",
                "run_out",
            ),
        )  # fmt: skip
        if out is None:
            raise typer.BadParameter("a grid needs --out DIR, a folder for its report")
        raise typer.Exit(
            evaluate_grid(
                Path(dataset),
                out,
                folder=data,
                only=only if only else None,
                limit=limit,
                fresh=fresh,
                settings=_given_settings(context, config),
            )
        )
    for name in ("out", "data", "only"):
        if _is_given(context, name):
            raise typer.BadParameter(f"--{name} is for a grid, and {dataset} is no .yaml file")
    # Before hours of work, not after.
    require("ir_measures", "cli", "Evaluation")
    for path in (run_out, None if json_file in (None, _STDOUT) else Path(str(json_file))):
        if path is not None and not path.resolve().parent.is_dir():
            raise DataError(f"cannot write {path}: there is no folder {path.resolve().parent}")

    source = load_for_ranking(
        dataset,
        depth,
        split=split,
        run=candidates,
        ignore_identical_ids=ignore_identical_ids,
    )
    setting = Setting(depth, shuffle, limit, ignore_identical_ids)
    state = _state_file(config, dataset, split, candidates, setting, json_file)
    if fresh:
        state.unlink(missing_ok=True)

    config = config.replace(
        on_error="raise", score_threshold=None, min_answerable=None, near_duplicates=None
    )
    result = _evaluate(config, source, setting, state)
    for text in source.notes:
        note(text)

    values = {**result.to_dict(), "first_stage": source.first_stage, "notes": source.notes}
    if json_file == _STDOUT:
        write_json(values)
    elif json_file is not None:
        write_whole(Path(json_file), [json.dumps(values, indent=2) + "\n"])
    if run_out is not None:
        write_trec_run(run_out, result.run, "icr_rag")
    if json_file != _STDOUT:
        _show(result, source.first_stage)


def _evaluate(config: RerankerConfig, source: Source, setting: Setting, state: Path) -> Evaluation:
    """The evaluation under a progress bar on standard error."""
    progress = Progress(*_COLUMNS, console=messages)
    bar = progress.add_task("", total=None)

    def load() -> None:
        prepare(reranker)
        reranker.warm_up()

    def advance(finished: int, total: int) -> None:
        # Started only here, because there is a spinner while the model is loaded.
        progress.start()
        progress.update(bar, completed=finished, total=total)

    with Reranker(config) as reranker:
        try:
            return run_evaluation(
                reranker,
                source.dataset,
                {} if source.candidates is None else source.candidates,
                setting,
                state,
                advance,
                load,
                source.scores,
            )
        except KeyboardInterrupt:
            note("finished queries are kept; give the same command again to go on")
            raise
        finally:
            progress.stop()


def _is_given(context: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _check_options(context: typer.Context, names: tuple[str, ...]) -> None:
    """What a grid says itself must not be said twice."""
    flags = {"json_file": "--json", "config": "--config"}
    for name in (*names, "config"):
        if _is_given(context, name):
            flag = flags.get(name, "--" + name.replace("_", "-"))
            raise typer.BadParameter(f"{flag} does not go with a grid, which says it itself")


def _given_settings(context: typer.Context, config: RerankerConfig) -> dict[str, object]:
    """The settings of the re-ranker that stand on the command line."""
    given = config.model_dump(mode="json")
    return {name: given[name] for name in given if _is_given(context, name)}


def _state_file(
    config: RerankerConfig,
    dataset: str,
    split: str,
    run: Path | None,
    setting: Setting,
    json_file: str | None,
) -> Path:
    """Where finished queries are kept: beside the JSON file, else in the cache folder."""
    if json_file is not None and json_file != _STDOUT:
        return Path(f"{json_file}.state.jsonl")
    # Without the limit, so that a larger one goes on. What is in the files, the state's own
    # fingerprint tells.
    parts = (
        config.to_dict(),
        _place(dataset),
        split,
        None if run is None else str(run.resolve()),
        setting.depth,
        setting.shuffle,
    )
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    name = re.sub(r"[^\w.-]+", "-", Path(_place(dataset)).name)
    return cache_root(config.cache_dir) / "evaluations" / f"{name}-{key}.jsonl"


def _place(dataset: str) -> str:
    """A folder's whole path, so that another working directory finds the same; or the name."""
    path = Path(dataset)
    return str(path.resolve()) if path.exists() else dataset


def _show(result: Evaluation, first_stage: str) -> None:
    setting = result.setting
    order = "" if setting.shuffle is None else f", shuffled with seed {setting.shuffle}"
    table = Table(
        title=f"{result.dataset}: {len(result.per_query)} queries, top {setting.depth}{order}",
        title_justify="left",
    )
    table.add_column("measure")
    for name in ("candidates", "re-ranked", "difference"):
        table.add_column(name, justify="right")
    for name, after in result.measures.items():
        before = result.candidates[name]
        table.add_row(name, f"{before:.4f}", f"{after:.4f}", f"{after - before:+.4f}")
    out = output_console()
    out.print(table)
    out.print(f"median {result.seconds_per_query:.2f} s per query")
    out.print(f"candidates: {first_stage}", markup=False)
    if result.truncated:
        note(f"{result.truncated} documents were cut to fit")
    if result.degraded:
        note(f"{result.degraded} rankings were not whole at their deadline, or late")
