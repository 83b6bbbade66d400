"""Labels beside the points of a plot that cover neither each other nor the points."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from matplotlib.text import Annotation, Text
    from matplotlib.transforms import Bbox

#: A rectangle in pixels: left, bottom, right, top.
Box = tuple[float, float, float, float]

_POINT = 7.0
#: Where a label is tried, in points from its point: (right, up), nearest first.
_OFFSETS = [
    (side * right, up)
    for right, up in (
        (8, -3), (6, 7), (6, -13), (14, 14), (14, -20), (22, 24), (22, -30), (30, 36), (30, -42),
        (40, 50), (40, -56), (50, 66), (50, -72), (60, 84), (60, -90),
    )
    for side in (1, -1)
]  # fmt: skip


class _Canvas(Protocol):
    """Agg's canvas; matplotlib's base class promises no renderer to measure text with."""

    def get_renderer(self) -> RendererBase: ...


def overlap(first: Box, second: Box) -> float:
    """The area that two rectangles share."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return width * height if width > 0 and height > 0 else 0.0


def place_labels(axis: Axes, points: Sequence[tuple[float, float, str]]) -> list[Annotation]:
    """Write each point's label where it covers least; a thin line leads to one that is far off.

    Args:
        axis: of matplotlib; its figure has been laid out and drawn once, on Agg's canvas.
        points: (x, y, label).

    Returns:
        The annotations.
    """
    renderer = cast("_Canvas", axis.figure.canvas).get_renderer()
    scale = axis.figure.dpi / 72
    half = _POINT * scale / 2
    frame = axis.get_window_extent(renderer)
    dots = []
    for x, y, _ in points:
        at = axis.transData.transform((x, y))
        dots.append((at[0] - half, at[1] - half, at[0] + half, at[1] + half))
    texts = [text for text in axis.texts if text.get_transform() != axis.transAxes]
    taken: list[Box] = [*dots, *(_box(text, renderer) for text in texts), *_lines(axis)]
    made = []
    # From the top down: what is best gets the nearest place.
    for x, y, label in sorted(points, key=lambda point: -point[1]):
        best: tuple[float, tuple[float, float]] | None = None
        annotation = axis.annotate(
            label, (x, y), xytext=_OFFSETS[0], textcoords="offset points", fontsize=8
        )
        for rank, (right, up) in enumerate(_OFFSETS):
            _put(annotation, right, up)
            box = _box(annotation, renderer)
            cost = sum(overlap(box, other) for other in taken) + _outside(box, frame)
            # Near places first, but a covered word is worse than any distance.
            cost = cost * 1000 + rank
            if best is None or cost < best[0]:
                best = cost, (right, up)
        if best is not None:
            _put(annotation, *best[1])
            if abs(best[1][1]) > 13:
                _lead(axis, (x, y), best[1])
        taken.append(_box(annotation, renderer))
        made.append(annotation)
    return made


def _lines(axis: Axes) -> list[Box]:
    """The horizontal and vertical lines of a panel, each as a thin rectangle."""
    boxes = []
    for line in axis.lines:
        # A line across the panel has its x in parts of the panel's width.
        corners: Iterable[Sequence[float]] = line.get_transform().transform(line.get_xydata())
        if line.get_drawstyle() == "steps-post":
            corners = [
                corner
                for start, end in itertools.pairwise(corners)
                for corner in (start, (end[0], start[1]), end)
            ]
        for (x0, y0), (x1, y1) in itertools.pairwise(corners):
            boxes.append((min(x0, x1) - 1, min(y0, y1) - 1, max(x0, x1) + 1, max(y0, y1) + 1))
    return boxes


def _put(annotation: Annotation, right: float, up: float) -> None:
    annotation.set_position((right, up))
    annotation.set_horizontalalignment("left" if right > 0 else "right")


def _lead(axis: Axes, at: tuple[float, float], offset: tuple[float, float]) -> None:
    right, up = offset
    axis.annotate(
        "",
        at,
        xytext=(right, up + (0 if up > 0 else 7)),
        textcoords="offset points",
        arrowprops={"arrowstyle": "-", "color": "#757575", "linewidth": 0.6, "shrinkB": 4},
    )


def _box(text: Text, renderer: RendererBase) -> Box:
    extent = text.get_window_extent(renderer)
    return extent.x0, extent.y0, extent.x1, extent.y1


def _outside(box: Box, frame: Bbox) -> float:
    """How much of a label the panel's edge would cut off."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    return area - overlap(box, (frame.x0, frame.y0, frame.x1, frame.y1))
