"""``icr-rag evaluate GRID.yaml``: many systems on many data sets, and a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from icr_rag.cli.console import messages, note, one_line, output_console
from icr_rag.errors import ConfigError, require
from icr_rag.evaluation.comparison import compare
from icr_rag.evaluation.grid import clear_state, run_grid
from icr_rag.evaluation.grid_config import Grid, load_grid, make_grid
from icr_rag.evaluation.grid_result import GridResult
from icr_rag.evaluation.report import write_report

_COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeRemainingColumn(),
)


def is_grid(path: str) -> bool:
    """Whether the argument names a grid and not a data set."""
    return Path(path).suffix in (".yaml", ".yml")


def evaluate_grid(
    path: Path,
    out: Path,
    *,
    folder: Path | None = None,
    only: Sequence[str] | None = None,
    limit: int | None = None,
    fresh: bool = False,
    settings: dict[str, object] | None = None,
) -> int:
    """Run a grid, write the report, show its tables; return the exit code.

    Args:
        path: the grid.
        out: folder for the report and for finished queries.
        folder: where relative sources of data begin; None: the working directory.
        only: names of the data sets to take; None: all.
        limit: only the first so many queries of each data set.
        fresh: forget finished queries.
        settings: fields of `RerankerConfig` that replace those that all systems share.
    """
    # Before hours of work, not after.
    require("ir_measures", "cli", "Evaluation")
    require("matplotlib", "plot", "The frontier plot of a grid")
    grid = _changed(load_grid(path), only, limit, settings or {}, str(path))
    state = out / "state"
    if fresh:
        clear_state(state)
    with _Bars() as bars:
        try:
            result = run_grid(grid, state, bars, folder=folder)
        except KeyboardInterrupt:
            note("finished queries are kept; give the same command again to go on")
            raise
    compare(result)
    write_report(result, out)
    _show(result, out)
    return 1 if result.failed else 0


def _changed(
    grid: Grid,
    only: Sequence[str] | None,
    limit: int | None,
    settings: dict[str, object],
    name: str,
) -> Grid:
    """The grid with what the command line says instead."""
    labels = [entry.label for entry in grid.data]
    unknown = [label for label in only or () if label not in labels]
    if unknown:
        raise ConfigError(f"{name} has no data set {unknown[0]!r}; it has {', '.join(labels)}")
    entries = []
    for entry in grid.data:
        if only is None or entry.label in only:
            values = entry.model_dump()
            if limit is not None:
                values["queries"]["limit"] = limit
            entries.append(values)
    changes = {"data": entries, "reranker": {**grid.reranker, **settings}}
    return make_grid({**grid.model_dump(exclude_unset=True), **changes}, name)


class _Bars:
    """Two progress bars on standard error: rows, and queries of the row."""

    def __init__(self) -> None:
        self._progress = Progress(*_COLUMNS, console=messages)
        self._rows = self._progress.add_task("systems", total=None)
        self._queries = self._progress.add_task("", total=None)

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._progress.stop()

    def row(self, number: int, total: int, name: str) -> None:
        """The next row begins."""
        self._progress.update(self._rows, completed=number, total=total)
        self._progress.reset(self._queries, description=name, visible=number < total)
        if number < total and not messages.is_terminal:
            # A log has no bars that move.
            messages.print(f"{number + 1}/{total} {name}", soft_wrap=True, markup=False)

    def query(self, finished: int, total: int) -> None:
        """One more query of the row is done."""
        self._progress.update(self._queries, completed=finished, total=total)

    @contextmanager
    def loading(self, name: str) -> Iterator[None]:
        """Transformers' own bars would break ours."""
        import transformers

        logging = transformers.utils.logging
        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        self._progress.update(self._queries, description=f"{name}: loading")
        try:
            yield
        finally:
            self._progress.update(self._queries, description=name)
            if shown:
                logging.enable_progress_bar()


def _show(result: GridResult, out: Path) -> None:
    """The headline measure of every row; the rest is in the report."""
    console = output_console()
    for place in result.slices:
        table = Table(title=place.title, title_justify="left")
        table.add_column("system", overflow="fold")
        for name in (*result.grid.measures[:3], "seconds"):
            table.add_column(name, justify="right")
        for row in result.of(place):
            if row.evaluation is None:
                table.add_row(row.system, row.status)
                continue
            values = [f"{row.evaluation.measures[name]:.4f}" for name in result.grid.measures[:3]]
            seconds = f"{row.costs['seconds']:.3g}" if row.costs else "–"
            table.add_row(row.system, *values, seconds)
        console.print(table)
    # The same reason on every data set is told once.
    reasons = [
        f"{row.system}: {row.status}: {row.reason}" for row in result.rows if row.evaluation is None
    ]
    for reason in dict.fromkeys(reasons):
        note(one_line(reason))
    console.print(f"report: {out / 'report.html'}", soft_wrap=True, markup=False)
