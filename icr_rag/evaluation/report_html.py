"""The report as one HTML file: no scripts, no links to the outside, light and dark."""

from __future__ import annotations

import json
import re
from html import escape

from icr_rag.evaluation.grid_result import GridResult, Slice
from icr_rag.evaluation.report_text import environment_line, explanations, subsets, table_of

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --ground: #ffffff;
  --line: #d1d9e0; --band: #f6f8fa; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1;
  --ground: #0d1117; --line: #3d444d; --band: #151b23; --bad: #ff8a80; } }
body { color: var(--ink); background: var(--ground); font: 15px/1.5 system-ui, sans-serif;
  max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; }
h2 { margin-top: 2.5rem; font-size: 1.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
tbody tr:nth-child(even) { background: var(--band); }
td.reason { text-align: left; white-space: normal; color: var(--bad); }
tr.given td { color: var(--soft); }
figure { margin: 1.5rem 0; }
figure svg { width: 100%; height: auto; }
pre { background: var(--band); padding: 1rem; overflow-x: auto; font-size: .85rem; }
.soft { color: var(--soft); }
"""


def render_html(result: GridResult, svg: str | None) -> str:
    """The whole page.

    Args:
        result: what was measured.
        svg: the frontier plot; None: none.
    """
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Evaluation</title><style>{_STYLE}</style></head><body>",
        "<h1>Evaluation</h1>",
        _list(subsets(result)),
    ]
    if svg is not None:
        caption = f"{result.grid.headline} against seconds per query"
        parts.append(
            f"<figure>{_inline(svg, caption)}<figcaption class='soft'>{escape(caption)}: what "
            "lies on the line is beaten by nothing in both.</figcaption></figure>"
        )
    parts += [_table(result, place) for place in result.slices]
    grid = json.dumps(result.grid.model_dump(mode="json"), indent=2)
    parts += [
        "<h2>Notes</h2>",
        _list(explanations(result)),
        f"<h2>The grid</h2><pre>{escape(grid)}</pre>",
        f"<p class='soft'>Measured with {escape(environment_line())}.</p>",
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _table(result: GridResult, place: Slice) -> str:
    head, lines = table_of(result, place)
    rows = []
    for number, line in enumerate(lines):
        first, *rest = (escape(cell) for cell in line)
        if len(line) < len(head):
            cells = f"<td class='reason' colspan='{len(head) - 1}'>{rest[0]}</td>"
        else:
            cells = "".join(f"<td>{cell}</td>" for cell in rest)
        kind = " class='given'" if number == len(lines) - 1 else ""
        rows.append(f"<tr{kind}><td>{first}</td>{cells}</tr>")
    headings = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    return (
        f"<h2>{escape(place.title)}</h2>\n<div class='wide'><table><thead><tr>{headings}</tr>"
        f"</thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody></table></div>"
    )


def _list(lines: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _inline(svg: str, label: str) -> str:
    """The picture itself, without the prologue of a file of its own."""
    start = svg.index("<svg")
    # A label for readers who hear the page.
    return re.sub(r"<svg ", f'<svg role="img" aria-label="{escape(label)}" ', svg[start:], count=1)
