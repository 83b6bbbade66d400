"""``icr-rag evaluate``: re-rank a data set's candidates and measure."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from icr_rag import Reranker, RerankerConfig
from icr_rag.cli.console import messages, note, output_console, prepare, write_json
from icr_rag.cli.options import with_reranker_options
from icr_rag.errors import DataError, require
from icr_rag.evaluation.datasets import Dataset, load_beir
from icr_rag.evaluation.files import write_whole
from icr_rag.evaluation.harness import Evaluation, Setting
from icr_rag.evaluation.harness import evaluate as run_evaluation
from icr_rag.evaluation.runs import Run, read_run, read_run_scores, write_trec_run
from icr_rag.model.cache import cache_root

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
@with_reranker_options(without=("top_n", "on_error", "score_threshold", "near_duplicates"))
def evaluate(
    config: RerankerConfig,
    dataset: Annotated[
        Path,
        typer.Argument(
            metavar="DATASET",
            help="BEIR folder: corpus.jsonl, queries.jsonl, and qrels.tsv or qrels/SPLIT.tsv.",
            show_default=False,
        ),
    ],
    candidates: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="First-stage run: a TREC run, or a TSV with the header 'query-id corpus-id rank "
            "score'. Not given: the one file run.* in the folder.",
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
) -> None:
    """Measure a re-ranker on a data set: candidates, re-ranked, difference.

    All queries with a relevant document count, also where no candidate is relevant.

    When interrupted, give the same command again and it goes on: finished queries are kept.

    icr-rag evaluate scifact --depth 20 --layers 10-13 --shuffle 1
    """
    # Before hours of work, not after.
    require("ir_measures", "cli", "Evaluation")
    for path in (run_out, None if json_file in (None, _STDOUT) else Path(str(json_file))):
        if path is not None and not path.resolve().parent.is_dir():
            raise DataError(f"cannot write {path}: there is no folder {path.resolve().parent}")

    run_path = _only_run(dataset) if candidates is None else candidates
    run = read_run(run_path)
    # A large corpus need not fit in memory, only what may be ranked.
    keep = {document for documents in run.values() for document in documents[:depth]}
    data = load_beir(dataset, split, keep)
    setting = Setting(depth, shuffle, limit)
    state = _state_file(config, dataset, split, run_path, setting, json_file)
    if fresh:
        state.unlink(missing_ok=True)

    config = config.replace(on_error="raise", score_threshold=None, near_duplicates=None)
    scores = None if config.fusion == "none" else read_run_scores(run_path)
    result = _evaluate(config, data, run, scores, setting, state)

    if json_file == _STDOUT:
        write_json(result.to_dict())
    elif json_file is not None:
        write_whole(Path(json_file), [json.dumps(result.to_dict(), indent=2) + "\n"])
    if run_out is not None:
        write_trec_run(run_out, result.run, "icr_rag")
    if json_file != _STDOUT:
        _show(result)


def _evaluate(
    config: RerankerConfig,
    data: Dataset,
    run: Run,
    scores: dict[str, dict[str, float]] | None,
    setting: Setting,
    state: Path,
) -> Evaluation:
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
            return run_evaluation(reranker, data, run, setting, state, advance, load, scores)
        except KeyboardInterrupt:
            note("finished queries are kept; give the same command again to go on")
            raise
        finally:
            progress.stop()


def _only_run(dataset: Path) -> Path:
    """The one file ``run.*`` of a data set's folder."""
    found = sorted(path for path in dataset.glob("run.*") if path.is_file())
    if len(found) == 1:
        return found[0]
    if found:
        choices = ", ".join(path.name for path in found)
        raise DataError(f"{dataset} holds several runs: {choices}; choose one with --candidates")
    if not dataset.is_dir():
        raise DataError(f"{dataset} is not a folder; give a data set's folder in BEIR form")
    raise DataError(f"{dataset} holds no file run.*; name the first-stage run with --candidates")


def _state_file(
    config: RerankerConfig,
    dataset: Path,
    split: str,
    run: Path,
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
        str(dataset.resolve()),
        split,
        str(run.resolve()),
        setting.depth,
        setting.shuffle,
    )
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    return cache_root(config.cache_dir) / "evaluations" / f"{dataset.resolve().name}-{key}.jsonl"


def _show(result: Evaluation) -> None:
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
    if result.truncated:
        note(f"{result.truncated} documents were cut to fit")
