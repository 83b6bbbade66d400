"""The report's tables and sentences, and the whole of it in Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from icr_rag.evaluation.environment import hardware, versions
from icr_rag.evaluation.frontier import pareto, points_of
from icr_rag.evaluation.grid_result import GridResult, Row, Slice

#: Columns of costs in tables: key of `Row.costs`, heading, format.
COSTS = (
    ("seconds", "seconds", ".3g"),
    ("calls", "calls", ".1f"),
    ("tokens", "tokens", ".0f"),
    ("generated_tokens", "generated", ".1f"),
)
#: A corrected p-value below this is marked.
_LEVEL = 0.05


def table_of(result: GridResult, place: Slice) -> tuple[list[str], list[list[str]]]:
    """Headings and lines of a slice's table: best first, then what has no numbers."""
    tested = any(row.difference is not None for row in result.of(place))
    head = ["system", *result.grid.measures]
    if tested:
        head += [f"difference in {result.grid.headline} (95 %)", "p (Holm)"]
    head += [heading for _, heading, _ in COSTS]
    front = frontier_names(result, place)
    lines = []
    for row in result.of(place):
        name = f"{row.system} ◆" if row.system in front else row.system
        if row.evaluation is None:
            lines.append([name, f"{row.status}: {row.reason}"])
            continue
        line = [name, *(f"{row.evaluation.measures[m]:.4f}" for m in result.grid.measures)]
        if tested:
            line += _difference_cells(result, row)
        costs = row.costs
        line += [format(costs[key], form) if key in costs else "–" for key, _, form in COSTS]
        lines.append(line)
    given = result.given[place]
    before = ["order as given to the systems", *(f"{given[m]:.4f}" for m in result.grid.measures)]
    lines.append(before + ["–"] * (len(head) - len(before)))
    return head, lines


def _difference_cells(result: GridResult, row: Row) -> list[str]:
    if row.system == result.grid.baseline:
        return ["baseline", "–"]
    if row.difference is None:
        return ["–", "–"]
    d = row.difference
    mark = " *" if d.p_holm < _LEVEL else ""
    p = "< 0.001" if d.p_holm < 0.001 else f"{d.p_holm:.3f}"
    return [f"{d.mean:+.4f} ({d.low:+.4f} to {d.high:+.4f})", p + mark]


def frontier_names(result: GridResult, place: Slice) -> list[str]:
    """The systems that no other beats in both quality and time, fastest first."""
    timed = [point for point in points_of(result, place) if point.seconds > 0]
    return [timed[i].label for i in pareto([(p.seconds, p.quality) for p in timed])]


def explanations(result: GridResult) -> list[str]:
    """What a reader must know about the tables."""
    grid = result.grid
    test = grid.significance
    lines = [
        "Means over all queries of the subset that have a relevant document anywhere; queries "
        "without a relevant candidate count. Seconds are the median per query, the rest means per "
        "query; tokens are those run through the model, generated those it wrote.",
        f"◆: on the frontier of {grid.headline} against seconds: nothing else is both better and "
        "faster.",
    ]
    if grid.baseline is not None:
        lines.append(
            f"Differences are to the baseline {grid.baseline}; p by a paired {test.method} test "
            f"({test.samples} samples), corrected by Holm's method within each table; * below "
            f"{_LEVEL}."
        )
    for row in result.rows:
        if row.evaluation is not None and row.costs.get("repairs"):
            lines.append(
                f"{row.system} ({row.slice.title}): {row.costs['repairs']:.2f} mistakes in "
                "generated answers were mended per query."
            )
    return lines + result.notes


def subsets(result: GridResult) -> list[str]:
    """One line per data set: where it comes from and which queries count."""
    lines = []
    for entry in result.grid.data:
        parts = [f"source {entry.source}", f"split {entry.split}"]
        chosen = entry.queries
        if chosen.parity is not None:
            parts.append(f"queries with {chosen.parity} ids")
        if chosen.limit is not None:
            parts.append(f"the first {chosen.limit} queries")
        if entry.document_words is not None:
            parts.append(f"documents cut at {entry.document_words} words")
        lines.append(f"{entry.label}: {', '.join(parts)}")
    return lines


def environment_line() -> str:
    """Versions and machine, in one line."""
    named = [f"{name} {value}" for name, value in versions().items() if value is not None]
    machine = hardware()
    where = machine["accelerator"] or machine["cpu"] or machine["machine"]
    return f"{', '.join(named)}; {where}, {machine['cpus']} processors"


def render_markdown(result: GridResult, pictures: Sequence[Path]) -> str:
    """The report in Markdown."""
    parts = ["# Evaluation", "", *(f"- {_markdown(line)}" for line in subsets(result)), ""]
    for path in pictures:
        if path.suffix == ".svg":
            parts += [f"![{result.grid.headline} against seconds per query]({path.name})", ""]
    for place in result.slices:
        head, lines = table_of(result, place)
        parts += [f"## {place.title}", "", _markdown_row(head)]
        parts.append("|" + " --- |" + " ---: |" * (len(head) - 1))
        parts += [_markdown_row(line + [""] * (len(head) - len(line))) for line in lines]
        parts.append("")
    parts += ["## Notes", "", *(f"- {_markdown(line)}" for line in explanations(result))]
    parts += ["", "## The grid", "", "```json"]
    parts += [json.dumps(result.grid.model_dump(mode="json"), indent=2), "```", ""]
    parts += [f"Measured with {environment_line()}.", ""]
    return "\n".join(parts)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_markdown(cell) for cell in cells) + " |"


def _markdown(text: str) -> str:
    """Text that cannot end a cell, nor be taken for HTML."""
    line = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
    return line.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
