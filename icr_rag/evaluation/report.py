"""What a grid found, as files: tables, runs, values per query, a report in Markdown and HTML."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path

from icr_rag.errors import DataError
from icr_rag.evaluation.environment import hardware, versions
from icr_rag.evaluation.frontier import draw_frontier
from icr_rag.evaluation.grid_result import GridResult, Row, Slice
from icr_rag.evaluation.report_html import render_html
from icr_rag.evaluation.report_text import render_markdown
from icr_rag.evaluation.runs import write_trec_run
from icr_rag.files import write_whole

#: Columns of costs: keys of `Row.costs`, and fields of `Finished`.
_COSTS = ("seconds", "tokens", "calls", "generated_tokens", "repairs")


def write_report(result: GridResult, folder: Path, *, plot: bool = True) -> list[Path]:
    """Write everything into ``folder``; return the paths.

    ``results.json`` and ``results.csv`` (one line per row), ``per_query.csv``, ``runs/*.trec``,
    ``report.md``, ``report.html`` (one file, pictures included), ``frontier.png`` and ``.svg``.

    Args:
        result: with differences to the baseline, if there is one.
        folder: made if need be; files of the same names are replaced.
        plot: draw the frontier; needs matplotlib.

    Raises:
        DataError: if a file cannot be written.
        MissingDependencyError: without matplotlib, if ``plot``.
    """
    try:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write to {folder}: {error.strerror}") from error
    # Numbers before pictures: what was measured must be kept even if drawing fails.
    paths = [folder / "results.json", folder / "results.csv", folder / "per_query.csv"]
    write_whole(paths[0], [json.dumps(to_dict(result), indent=2) + "\n"])
    write_whole(paths[1], [_csv(_result_rows(result))])
    write_whole(paths[2], [_csv(_query_rows(result))])
    paths += _write_runs(result, folder / "runs")
    drawn = draw_frontier(result, folder) if plot else []
    svg = next((path.read_text("utf-8") for path in drawn if path.suffix == ".svg"), None)
    report, page = folder / "report.md", folder / "report.html"
    write_whole(report, [render_markdown(result, drawn)])
    write_whole(page, [render_html(result, svg)])
    return [*paths, *drawn, report, page]


def to_dict(result: GridResult) -> dict[str, object]:
    """JSON types. ``means`` is for reading single numbers: slice, system, measure or cost."""
    return {
        "means": {
            _key(place): {
                row.system: {**row.evaluation.measures, **row.costs}
                for row in result.rows
                if row.slice == place and row.evaluation is not None
            }
            for place in result.slices
        },
        "given": {_key(place): values for place, values in result.given.items()},
        "rows": [_row_dict(result, row) for row in result.rows],
        "notes": result.notes,
        "grid": result.grid.model_dump(mode="json"),
        "versions": versions(),
        "hardware": hardware(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _key(place: Slice) -> str:
    return f"{place.dataset}/{place.order}/{place.depth}"


def _row_dict(result: GridResult, row: Row) -> dict[str, object]:
    values: dict[str, object] = {
        "dataset": row.slice.dataset,
        "order": row.slice.order,
        "depth": row.slice.depth,
        "system": row.system,
        "kind": row.kind,
        "status": row.status,
        "reason": row.reason,
        "difference": None if row.difference is None else vars(row.difference),
    }
    if row.evaluation is not None:
        # The queries' values have a file of their own.
        measured = row.evaluation.to_dict()
        for name in ("per_query", "versions", "hardware", "dataset", "shuffle", "depth"):
            measured.pop(name)
        values["per_query_means"] = row.costs
        values.update(measured)
    if row.traceback is not None:
        values["traceback"] = row.traceback
    return values


def _result_rows(result: GridResult) -> Iterable[list[object]]:
    measures = result.grid.measures
    yield [
        "dataset", "order", "depth", "system", "kind", "status", "queries", *measures,
        *(f"given {name}" for name in measures), "difference", "low", "high", "p", "p_holm",
        *_COSTS, "reason",
    ]  # fmt: skip
    for row in result.rows:
        evaluation, difference = row.evaluation, row.difference
        given = result.given[row.slice]
        names = ("mean", "low", "high", "p", "p_holm")
        tested = ["" if difference is None else getattr(difference, name) for name in names]
        yield [
            row.slice.dataset, row.slice.order, row.slice.depth, row.system, row.kind, row.status,
            "" if evaluation is None else len(evaluation.per_query),
            *("" if evaluation is None else evaluation.measures[name] for name in measures),
            *(given[name] for name in measures),
            *tested,
            *(row.costs.get(name, "") for name in _COSTS),
            row.reason or "",
        ]  # fmt: skip


def _query_rows(result: GridResult) -> Iterable[list[object]]:
    measures = result.grid.measures
    yield ["dataset", "order", "depth", "system", "query", *measures, *_COSTS]
    for row in result.rows:
        if row.evaluation is None:
            continue
        for query, values in row.evaluation.per_query.items():
            finished = row.evaluation.finished.get(query)
            yield [
                row.slice.dataset, row.slice.order, row.slice.depth, row.system, query,
                *(values[name] for name in measures),
                *("" if finished is None else getattr(finished, name) for name in _COSTS),
            ]  # fmt: skip


def _csv(rows: Iterable[list[object]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def _write_runs(result: GridResult, folder: Path) -> list[Path]:
    paths = []
    for row in result.rows:
        if row.evaluation is None:
            continue
        path = folder / f"{row.slug}.trec"
        try:
            write_trec_run(path, row.evaluation.run, "icr_rag")
        except DataError as error:
            # An id that the format cannot hold must not cost the rest of the report.
            result.notes.append(f"{path.name} was not written: {error}")
            continue
        paths.append(path)
    return paths
