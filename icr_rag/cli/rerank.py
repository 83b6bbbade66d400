"""``icr-rag rerank``: rank documents from files or standard input."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from icr_rag import RankedDocument, Ranking, Reranker, RerankerConfig
from icr_rag.cli.console import (
    note,
    one_line,
    output_console,
    quiet_bars,
    working,
    write,
    write_json,
)
from icr_rag.cli.documents import identifiers, read_documents
from icr_rag.cli.options import with_reranker_options
from icr_rag.cli.rerank_rows import Engine, rank_rows
from icr_rag.document_files import read_text
from icr_rag.errors import DataError
from icr_rag.prompts.passages import passage

_MANY = "Many queries"


class Format(str, Enum):
    """How the ranking is written."""

    text = "text"
    json = "json"
    trec = "trec"


@with_reranker_options()
def rerank(
    config: RerankerConfig,
    query: Annotated[
        str | None, typer.Argument(help="The query; leave it out with --query-file.")
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Documents, best first: text files (one document each), .jsonl files with "
            "'text', 'title', 'id', or with --rank-fields any keys; '-' or none: standard input, "
            "JSONL or one document a line."
        ),
    ] = None,
    query_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Read the query from this file; all arguments are documents."
        ),
    ] = None,
    output: Annotated[
        Format,
        typer.Option(
            "--format",
            "-f",
            metavar="text|json|trec",
            help="text: a table, or tab-separated rank, score, id, text in a pipe, the text of a "
            "document that was split (--passages) being its best passage; json: one "
            "object; trec: qid Q0 docid rank score icr_rag, with scores n to 1.",
        ),
    ] = Format.text,
    query_id: Annotated[
        str, typer.Option(metavar="ID", help="The query's id in a TREC run.")
    ] = "q",
    rows: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Instead of a query and documents: rows with 'query', 'documents' (texts, or "
            "objects with 'text', 'title', 'id') and, if they have them, 'id' and "
            "'retrieval_scores'; .jsonl or .parquet.",
            rich_help_panel=_MANY,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="One row per row: 'row', 'id', 'ids', 'indices', 'scores', 'error'; .jsonl or "
            ".parquet. Interrupted, the same command goes on.",
            rich_help_panel=_MANY,
        ),
    ] = None,
    engine: Annotated[
        Engine,
        typer.Option(
            metavar="local|ray",
            help="local: in this process; ray: by workers on the cluster that RAY_ADDRESS names, "
            "or on this machine.",
            rich_help_panel=_MANY,
        ),
    ] = Engine.local,
    workers: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Rerankers of --engine ray.", rich_help_panel=_MANY),
    ] = 1,
    gpus_per_worker: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="X",
            help="Accelerators of each, fractions allowed.",
            rich_help_panel=_MANY,
        ),
    ] = 0.0,
) -> None:
    """Rank documents for a query, or many queries with documents of their own.

    icr-rag rerank "what melts first?" tin.txt lead.txt

    grep -h tin *.txt | icr-rag rerank "what melts first?" --format json

    icr-rag rerank --rows rows.jsonl --out ranked.jsonl --engine ray --workers 4
    """
    if rows is not None:
        if query is not None or query_file is not None:
            raise typer.BadParameter("has queries of its own; give no other", param_hint="--rows")
        rank_rows(config, rows, out, engine, workers, gpus_per_worker)
        return
    if out is not None or engine is not Engine.local or workers > 1 or gpus_per_worker:
        raise typer.BadParameter(
            "--out, --engine, --workers and --gpus-per-worker go with it", param_hint="--rows"
        )
    paths = list(files or [])
    if query_file is not None:
        if query is not None:
            paths.insert(0, query)
        query = read_text(query_file).strip()
    if query is None:
        raise typer.BadParameter(
            "none given; it is the first argument, or comes with --query-file", param_hint="query"
        )
    documents = read_documents(paths, any_fields=config.rank_fields is not None)
    ids = identifiers(documents)
    # A long ranking must not be thrown away for an id that cannot be written.
    names = _trec_names(query_id, ids) if output is Format.trec else []

    with working(f"ranking {len(documents)} documents with {config.model}"):
        quiet_bars(config)
        ranking = Reranker(config).rank(query, documents)

    if output is Format.json:
        write_json({"query": query, **as_json(ranking)})
    elif output is Format.trec:
        for rank, hit in enumerate(ranking, start=1):
            # Scores of different windows do not compare, and equal ones may be re-ordered by a
            # tool that sorts by score; n, n-1, ... 1 says the order and nothing else.
            score = len(ranking) + 1 - rank
            write(f"{query_id} Q0 {names[hit.index]} {rank} {score} icr_rag\n")
    else:
        _write_text(ranking)
    _write_notes(ranking, ids, output)


def as_json(ranking: Ranking) -> dict[str, object]:
    """The ranking as JSON types."""
    usage = ranking.usage
    return {
        "hits": [
            {
                "rank": rank,
                "index": hit.index,
                "id": hit.document.id,
                "score": hit.score,
                "score_group": ranking.score_groups[hit.index],
                "title": hit.document.title,
                "text": hit.document.text,
                "passage": None if hit.passage is None else list(hit.passage),
            }
            for rank, hit in enumerate(ranking, start=1)
        ],
        "comparable": ranking.comparable,
        "answerable": ranking.answerable,
        "degraded": ranking.degraded,
        "usage": {
            "tokens": usage.tokens,
            "layers": list(usage.layers),
            "windows": usage.windows,
            "truncated": list(usage.truncated),
            "query_truncated": usage.query_truncated,
            "unscored": list(usage.unscored),
            "passages": usage.passages,
            "scoring": usage.scoring,
            "scoring_reason": usage.scoring_reason,
            "fused": dict(usage.fused),
            "seconds": dict(usage.seconds),
        },
    }


def _trec_names(query_id: str, ids: list[str | None]) -> list[str]:
    """Each document's id, or its position (from 0) if it has none.

    Raises:
        DataError: if an id cannot stand in a TREC run.
    """
    names = [
        str(index) if identifier is None else identifier for index, identifier in enumerate(ids)
    ]
    for name in [query_id, *names]:
        if not name or len(name.split()) != 1 or name != name.strip():
            raise DataError(
                f"the id {name!r} cannot stand in a TREC run, whose columns are separated by "
                "blanks; give ids without white space, or use --format json"
            )
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(
                f"two documents have the id {name!r}, which a TREC run cannot tell apart; "
                "give ids that differ, or use --format json"
            )
        seen.add(name)
    return names


def _read(hit: RankedDocument) -> str:
    """What is shown of a hit: of a document that was split, its best passage."""
    return (hit.document if hit.passage is None else passage(hit.document, hit.passage)).content


def _write_text(ranking: Ranking) -> None:
    """A table on a terminal, tab-separated lines in a pipe."""
    console = output_console()
    if not console.is_terminal:
        for rank, hit in enumerate(ranking, start=1):
            name = one_line(hit.document.id or "")
            write(f"{rank}\t{hit.score:.6f}\t{name}\t{one_line(_read(hit))}\n")
        return
    named = any(hit.document.id is not None for hit in ranking)
    table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
    table.add_column("", justify="right", style="dim", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    if named:
        table.add_column("id", overflow="ellipsis", no_wrap=True, max_width=24, style="cyan")
    # Takes what room is left; without a ratio, a long document would squeeze the others out.
    table.add_column("document", overflow="ellipsis", no_wrap=True, ratio=1)
    for rank, hit in enumerate(ranking, start=1):
        # Text, not str: what looks like markup in a document is shown, not obeyed.
        cells = [Text(str(rank)), Text(f"{hit.score:.4f}")]
        if named:
            cells.append(Text(one_line(hit.document.id or "")))
        table.add_row(*cells, Text(one_line(_read(hit))))
    console.print(table)


def _write_notes(ranking: Ranking, ids: list[str | None], output: Format) -> None:
    """What the reader of the ranking must know, on standard error."""
    if not ids:
        note("no documents were given")
    if ranking.abstained and ids:
        likely = "unknown" if ranking.answerable is None else f"{ranking.answerable:.3f}"
        note(f"nothing is shown: the list answers with probability {likely}, below min_answerable")
    if ranking.degraded is not None:
        note(ranking.degraded)
    if ranking.usage.query_truncated:
        note("the query was cut to max_query_tokens")
    if ranking.usage.truncated:
        cut = [ids[index] or f"number {index + 1}" for index in ranking.usage.truncated]
        shown = ", ".join(one_line(name) for name in cut[:5]) + (", ..." if len(cut) > 5 else "")
        note(f"{len(cut)} of {len(ids)} documents were cut to fit: {shown}")
    if output is Format.text and not ranking.comparable:
        note(
            "read in several windows: the order holds, but scores of different windows do not "
            "compare (--format json gives the groups)"
        )
