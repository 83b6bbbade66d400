"""Quality against time per query, drawn: which systems no other beats in both.

One panel per slice. Colours are told apart by readers with any kind of colour vision and have at
least a contrast of 3:1 on white and on near-black, text 4:1; the ground is transparent. Shapes
repeat what colours say.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from icr_rag.errors import require
from icr_rag.evaluation.grid_result import GridResult, Slice
from icr_rag.evaluation.plot_labels import place_labels
from icr_rag.method import AUTO
from icr_rag.methods import methods

if TYPE_CHECKING:
    from types import ModuleType

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Text and lines: as far from white as from near-black.
GREY = "#757575"


def styles() -> dict[str, tuple[str, str]]:
    """What a point is -> colour, marker: those of the table of methods, that of what was left to
    the model's profile, and that of peers."""
    found: dict[str, tuple[str, str]] = {}
    for row in methods():
        found.setdefault(row.scoring, (row.colour, row.marker))
    return {**found, AUTO: ("#b26200", "*"), "peer": (GREY, "P")}


#: With more points than this in a panel, names would cover it.
_MOST_NAMES = 14


@dataclass(frozen=True)
class Point:
    """One system in one slice.

    Attributes:
        label: its name.
        kind: key of `styles`.
        seconds: median per query; 0 for what costs nothing.
        quality: the headline measure.
    """

    label: str
    kind: str
    seconds: float
    quality: float


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of the points that no other beats, by rising cost.

    Args:
        points: (cost, quality); less of the first and more of the second is better. A point is
            beaten by one that is better in one of the two and not worse in the other. Of equal
            points the first counts.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i))
    kept: list[int] = []
    for position in order:
        if not kept or points[position][1] > points[kept[-1]][1]:
            kept.append(position)
    return kept


def points_of(result: GridResult, place: Slice) -> list[Point]:
    """The measured systems of a slice, best first."""
    return [
        Point(row.system, row.kind, row.costs.get("seconds", 0.0), result.headline(row))
        for row in result.of(place)
        if row.evaluation is not None
    ]


def draw_frontier(result: GridResult, folder: Path) -> list[Path]:
    """Write ``frontier.png`` and ``frontier.svg``; return their paths.

    None are written if nothing was measured.

    Raises:
        MissingDependencyError: without matplotlib.
    """
    matplotlib = require("matplotlib", "plot", "The frontier plot")
    require("matplotlib.figure", "plot", "The frontier plot")
    panels = [(place, points_of(result, place)) for place in result.slices]
    panels = [(place, points) for place, points in panels if points]
    if not panels:
        return []
    settings = {
        "font.size": 9,
        "text.color": GREY,
        "axes.edgecolor": GREY,
        "axes.labelcolor": GREY,
        "xtick.color": GREY,
        "ytick.color": GREY,
        # The same file for the same numbers.
        "svg.hashsalt": "icr_rag",
    }
    paths = [folder / "frontier.png", folder / "frontier.svg"]
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes, which harms nothing.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = _figure(matplotlib, panels, result.grid.headline)
        for path in paths:
            metadata = {"Date": None} if path.suffix == ".svg" else {}
            figure.savefig(path, transparent=True, dpi=160, metadata=metadata)
    return paths


def _figure(
    matplotlib: ModuleType, panels: list[tuple[Slice, list[Point]]], measure: str
) -> Figure:
    columns = 1 if len(panels) == 1 else 2
    rows = -(-len(panels) // columns)
    # As high as the longest key.
    height = max(4.6, 0.8 + 0.14 * max(len(points) for _, points in panels))
    figure: Figure = matplotlib.figure.Figure(figsize=(7.2 * columns, height * rows + 0.5))
    # The renderer that measures labels.
    backend = require("matplotlib.backends.backend_agg", "plot", "The frontier plot")
    backend.FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", w_pad=0.15, h_pad=0.12)
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis, (place, points) in zip(axes, panels, strict=False):
        _panel(axis, place, points, measure)
    for axis in list(axes)[len(panels) :]:
        axis.set_visible(False)
    _legend(figure, [point for _, points in panels for point in points])
    # Labels need to know where things are, and constrained layout moves them once.
    figure.canvas.draw()
    figure.set_layout_engine("none")
    for axis, (_, points) in zip(figure.axes, panels, strict=False):
        place_labels(axis, [(p.seconds, p.quality, name) for p, name in _named(points)])
    return figure


def _named(points: list[Point]) -> list[tuple[Point, str]]:
    """Points that take time and what is written beside them: a name, or a number of the key."""
    timed = [point for point in points if point.seconds > 0]
    if len(timed) <= _MOST_NAMES:
        return [(point, point.label) for point in timed]
    return [(point, str(number)) for number, point in enumerate(timed, start=1)]


def _panel(axis: Axes, place: Slice, points: list[Point], measure: str) -> None:
    timed = [point for point in points if point.seconds > 0]
    axis.set_title(place.title, loc="left", fontsize=10)
    axis.set_xlabel("median seconds per query (log scale)")
    axis.set_ylabel(measure)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(True, axis="y", color=GREY, alpha=0.25, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.margins(x=0.12, y=0.14)
    for point in points:
        if point.seconds <= 0:
            # No place on a logarithmic scale: a line across.
            axis.axhline(point.quality, color=GREY, linestyle=(0, (4, 3)), linewidth=1)
            axis.annotate(
                f"{point.label} {point.quality:.3f}, no time",
                (0.995, point.quality),
                xycoords=("axes fraction", "data"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="right",
                fontsize=8,
            )
    if not timed:
        axis.set_xticks([])
        axis.set_xlabel("nothing that takes time was measured")
        return
    axis.set_xscale("log")
    drawn = styles()
    front = pareto([(point.seconds, point.quality) for point in timed])
    _staircase(axis, [timed[position] for position in front])
    for number, point in enumerate(timed):
        colour, marker = drawn[point.kind]
        axis.plot(
            point.seconds,
            point.quality,
            marker=marker,
            markersize=8 if number in front else 6.5,
            # Filled: on the frontier.
            markerfacecolor=colour if number in front else "none",
            markeredgecolor=colour,
            markeredgewidth=1.6,
            linestyle="none",
            zorder=3,
        )
    _ticks(axis)
    if len(timed) > _MOST_NAMES:
        key = [f"{name}  {point.label}" for point, name in _named(points)]
        axis.text(
            1.02, 1, "\n".join(key), transform=axis.transAxes, va="top", fontsize=7, linespacing=1.4
        )


def _staircase(axis: Axes, front: list[Point]) -> None:
    """The best quality that can be had in so many seconds."""
    axis.step(
        [point.seconds for point in front],
        [point.quality for point in front],
        where="post",
        color=GREY,
        linewidth=1.3,
        zorder=2,
    )


def _ticks(axis: Axes) -> None:
    """Plain numbers: 0.2 and not 2 x 10^-1."""
    ticker = require("matplotlib.ticker", "plot", "The frontier plot")
    low, high = axis.get_xlim()
    # Within one power of ten, the powers alone would leave an axis without numbers.
    subs = (1, 2, 5) if high / low < 1000 else (1,)
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=subs))
    axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(ticker.NullFormatter())


def _legend(figure: Figure, points: list[Point]) -> None:
    lines = require("matplotlib.lines", "plot", "The frontier plot")
    drawn = styles()
    kinds = [kind for kind in drawn if any(p.kind == kind and p.seconds > 0 for p in points)]
    handles = [
        lines.Line2D(
            [],
            [],
            color="none",
            marker=drawn[kind][1],
            markeredgecolor=drawn[kind][0],
            markerfacecolor=drawn[kind][0],
            label=kind,
        )
        for kind in kinds
    ]
    if handles:
        handles.append(
            lines.Line2D([], [], color=GREY, linewidth=1.3, label="frontier (filled points)")
        )
        figure.legend(
            handles=handles, loc="outside lower left", ncols=len(handles), frameon=False, fontsize=8
        )
