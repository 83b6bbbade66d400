"""``icr-rag encode``: document states ahead of time."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from icr_rag import Reranker, RerankerConfig
from icr_rag.cli.console import messages, note, output_console, prepare
from icr_rag.cli.documents import read_documents
from icr_rag.cli.options import with_reranker_options
from icr_rag.errors import ConfigError

_COLUMNS = (
    TextColumn("encoding"),
    BarColumn(),
    MofNCompleteColumn(),
    TextColumn("documents,"),
    TimeRemainingColumn(),
    TextColumn("left"),
)
_LEFT_OUT = ("top_n", "score_threshold", "min_answerable", "near_duplicates", "on_error",
             "fusion", "fusion_weight", "score_mode", "sort", "sort_top", "set_size", "cascade",
             "cascade_framework", "diversity", "first_stage_weights", "embedder")  # fmt: skip


@with_reranker_options(without=_LEFT_OUT, document_states="independent")
def encode(
    config: RerankerConfig,
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Documents: text files (one document each), .jsonl files with 'text', 'title', "
            "'id', or with --rank-fields any keys; '-' or none: standard input, JSONL or one "
            "document a line."
        ),
    ] = None,
) -> None:
    """Encode documents once and keep their states, so that ranking costs the query's tokens only.

    What is stored already is skipped; interrupted, the same command goes on.

    icr-rag encode notes.jsonl --states-dir states

    icr-rag rerank "what melts first?" notes.jsonl --document-states independent --states-dir states
    """
    if config.states_dir is None:
        raise ConfigError("encode needs --states-dir DIR, the folder where states are kept")
    documents = read_documents(files or [], any_fields=config.rank_fields is not None)
    with Reranker(config) as reranker:
        prepare(reranker)
        with Progress(*_COLUMNS, console=messages) as progress:
            bar = progress.add_task("", total=None)

            def advance(finished: int, total: int) -> None:
                progress.update(bar, completed=finished, total=total)

            done = reranker.encode(documents, advance)
    if done.truncated:
        note(f"{len(done.truncated)} documents were cut to fit")
    output_console().print(
        f"{done.documents} documents have states in {config.states_dir}: {done.new} new, "
        f"{done.tokens} tokens run in {done.seconds:.1f} s"
    )
