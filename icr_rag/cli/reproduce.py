"""``icr-rag reproduce``: run the commands behind published numbers, and check them."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from icr_rag.cli.console import messages, note, one_line, output_console, write_json
from icr_rag.errors import ConfigError
from icr_rag.evaluation.reproduce import Check, Outcome, load_checks, run_checks, select

_DEFAULT = Path("benchmarks/reproduce.yaml")
_STYLES = {"passed": "green", "failed": "bold red", "error": "bold red", "not run": "dim"}


def reproduce(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="[FILE]",
            help="YAML file of entries: command, expected value, tolerance. Paths in commands are "
            "relative to the working directory.",
        ),
    ] = _DEFAULT,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Only this entry, or those whose names match, with * and ?.",
            show_default=False,
        ),
    ] = None,
    list_only: Annotated[
        bool, typer.Option("--list", help="Show the entries and what they need; run nothing.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder that holds the data sets' folders.", show_default=False
        ),
    ] = None,
    hub: Annotated[
        bool,
        typer.Option("--hub", help="Run entries that fetch models or data from a hub, too."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep what the commands write, and go on from there when given again. Not given: "
            "a temporary folder.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")] = False,
) -> None:
    """Run the commands behind the numbers of the documentation and the papers, and check them.

    Entries whose needs are not met here are shown as not run. Where nothing is expected, because
    nobody whom the file can name has measured it, the number is only shown. The exit code is 1 if
    a number is off or a command fails.

    icr-rag reproduce --list

    icr-rag reproduce --data ../shared/data --only "first-stage/*"
    """
    if file == _DEFAULT and not file.exists():
        raise ConfigError(f"there is no {file} here; give FILE, or run this where the source is")
    checks = select(load_checks(file), only)
    if list_only:
        _list(checks, as_json)
        return
    with _folder(out) as folder:
        outcomes = []
        for outcome in run_checks(checks, folder, data=data, hub=hub, begin=_begin):
            outcomes.append(outcome)
    if as_json:
        write_json([_values(outcome) for outcome in outcomes])
    else:
        _show(outcomes)
    if out is None and any(outcome.status == "error" for outcome in outcomes):
        note("with --out DIR, what the commands said is kept, in output.txt")
    if any(outcome.status in ("failed", "error") for outcome in outcomes):
        raise typer.Exit(1)


def _begin(check: Check) -> None:
    messages.print(Text(f"running {check.name}"), soft_wrap=True)


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="icr_rag-reproduce-") as folder:
        yield Path(folder)


def _needs(checks: list[Check]) -> str:
    """What any of them needs."""
    parts = []
    for check in checks:
        needs = check.needs
        parts += ["an accelerator"] * needs.gpu + ["a hub"] * needs.hub
        parts += [*needs.data, *needs.packages]
    return ", ".join(dict.fromkeys(parts))


def _list(checks: list[Check], as_json: bool) -> None:
    """One line per entry of the file, however many numbers its matrix leads to."""
    if as_json:
        write_json([_check_values(check) for check in checks])
        return
    table = Table()
    for name in ("entry", "numbers", "expected", "source", "needs"):
        table.add_column(name, overflow="fold", justify="right" if name == "numbers" else "left")
    for group in dict.fromkeys(check.group for check in checks):
        members = [check for check in checks if check.group == group]
        known = sum(check.expected is not None for check in members)
        first = members[0]
        # Text, because names may hold brackets, which are markup to rich.
        table.add_row(
            Text(group),
            str(len(members)),
            "not known" if not known else str(known),
            Text(first.source),
            Text(_needs(members)),
        )
    output_console().print(table)


def _show(outcomes: list[Outcome]) -> None:
    """A line per number; what was not run is told by entry, below."""
    run = [outcome for outcome in outcomes if outcome.status != "not run"]
    table = Table()
    table.add_column("entry", overflow="fold")
    for name in ("expected", "tolerance", "measured"):
        table.add_column(name, justify="right")
    table.add_column("status", overflow="fold")
    for outcome in run:
        check = outcome.check
        table.add_row(
            Text(check.name),
            "–" if check.expected is None else f"{check.expected:g}",
            "–" if check.expected is None else f"{check.tolerance:g}",
            "–" if outcome.value is None else f"{outcome.value:.4f}",
            Text(outcome.status, style=_STYLES.get(outcome.status, "")),
        )
    console = output_console()
    if run:
        console.print(table)
    # A reason that many entries share is told once.
    reasons: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.reason is not None:
            text = one_line(outcome.reason)
            if outcome.check.not_run_here is not None and outcome.status == "not run":
                text += f"; {one_line(outcome.check.not_run_here)}"
            unrun = outcome.status == "not run"
            name = outcome.check.group if unrun else outcome.check.name
            reasons.setdefault(f"{outcome.status}: {text}", []).append(name)
    for reason, names in reasons.items():
        told = [
            f"{name} ({count} numbers)" if count > 1 else name
            for name, count in Counter(names).items()
        ]
        console.print(Text(f"{', '.join(told)}: {reason}"), soft_wrap=True)
    counts = Counter(outcome.status for outcome in outcomes)
    console.print(", ".join(f"{count} {status}" for status, count in counts.items()))


def _check_values(check: Check) -> dict[str, object]:
    return {
        "name": check.name,
        "source": check.source,
        "command": list(check.command),
        "result": check.result,
        "read": list(check.read),
        "expected": check.expected,
        "tolerance": check.tolerance,
        "needs": check.needs.model_dump(mode="json"),
        "not_run_here": check.not_run_here,
    }


def _values(outcome: Outcome) -> dict[str, object]:
    return {
        **_check_values(outcome.check),
        "status": outcome.status,
        "value": outcome.value,
        "reason": outcome.reason,
    }
