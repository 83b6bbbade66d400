"""Pictures of a layer study: the curve with its band and window, and the map of heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from icr_rag.errors import DataError, InputError, require
from icr_rag.profiles import HeadWeight
from icr_rag.profiling.curve import LayerCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Readable on white and on black; the background stays transparent.
TEXT = "#7a7f87"
LINE = "#2f8fd0"
_BAND = "#2f8fd0"
_WINDOW = "#e08a1e"
#: Of all pictures of profiling, for matplotlib.
_STYLE = {
    "text.color": TEXT, "axes.labelcolor": TEXT, "font.size": 10, "xtick.color": TEXT,
    "ytick.color": TEXT, "axes.edgecolor": TEXT, "svg.hashsalt": "icr_rag",
}  # fmt: skip


def check_plots(paths: Sequence[Path]) -> None:
    """Raise what `plot_profile` would raise for these files, before there is anything to draw."""
    for path in paths:
        if path.suffix not in (".png", ".svg"):
            raise InputError(f"{path}: plots are written as .png or .svg")
    if paths:
        require("matplotlib", "plot", "Plotting")


def plot_profile(
    paths: Sequence[Path],
    curve: LayerCurve,
    heads: np.ndarray,
    chosen: Sequence[HeadWeight] = (),
    title: str = "",
) -> None:
    """Draw the layer curve above the map of heads.

    Args:
        paths: one file per format; .png and .svg.
        curve: of the layers.
        heads: [layer, head], the same measure for each head alone.
        chosen: heads to mark with a ring, larger for a larger weight.
        title: above the picture.

    Raises:
        MissingDependencyError: without matplotlib.
        InputError: for another format. DataError: if a file cannot be written.
    """

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
        _draw_curve(upper, curve)
        _draw_heads(figure, lower, curve, heads, chosen)

    save_picture(paths, (8.2, 6.2), draw, title)


def save_picture(
    paths: Sequence[Path],
    size: tuple[float, float],
    draw: Callable[[Figure], None],
    title: str = "",
) -> None:
    """Write a picture of profiling, in the look that all of them have.

    Args:
        paths: one file per format; .png and .svg.
        size: width and height in inches.
        draw: draws it.
        title: above it.

    Raises:
        MissingDependencyError: without matplotlib.
        InputError: for another format. DataError: if a file cannot be written.
    """
    check_plots(paths)
    matplotlib = require("matplotlib", "plot", "Plotting")
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        if title:
            figure.suptitle(title, fontsize=11)
        for path in paths:
            try:
                figure.savefig(path, dpi=150, transparent=True, metadata=_undated(path))
            except OSError as error:
                raise DataError(f"cannot write {path}: {error.strerror}") from error


def _draw_curve(axes: Axes, curve: LayerCurve) -> None:
    layers = np.arange(len(curve.values))
    first, last = curve.window
    axes.axvspan(first - 0.5, last + 0.5, color=_WINDOW, alpha=0.25, lw=0,
                 label=f"window {first}-{last}")  # fmt: skip
    axes.fill_between(layers, curve.low, curve.high, color=_BAND, alpha=0.25, lw=0,
                      label="95 % of resampled queries")  # fmt: skip
    axes.plot(layers, curve.smooth, color=LINE, lw=2, label="smoothed")
    axes.plot(layers, curve.values, "o", color=LINE, ms=4, label="each layer alone")
    axes.axvline(curve.peak, color=_WINDOW, lw=1.5, ls="--", label=f"peak: layer {curve.peak}")
    axes.set_ylabel(curve.measure)
    axes.set_title(f"{curve.queries} queries, reading {curve.reading}", fontsize=10, loc="left")
    axes.grid(alpha=0.25, color=TEXT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, labelcolor=TEXT, loc="best")


def _draw_heads(
    figure: Figure, axes: Axes, curve: LayerCurve, heads: np.ndarray, chosen: Sequence[HeadWeight]
) -> None:
    image = axes.imshow(heads.T, aspect="auto", origin="lower", cmap="viridis",
                        interpolation="nearest")  # fmt: skip
    largest = max((abs(item.weight) for item in chosen), default=1.0)
    for item in chosen:
        size = 3 + 7 * abs(item.weight) / largest
        colour = "white" if item.weight > 0 else "#ff5a5a"
        axes.plot(item.layer, item.head, "o", mfc="none", mec=colour, ms=size, mew=1.4)
    axes.set_xlabel("layer")
    axes.set_ylabel("head")
    if any(item.weight < 0 for item in chosen):
        axes.set_title("rings: weighted heads, white for, red against", fontsize=9, loc="left")
    elif chosen:
        axes.set_title("rings: chosen heads", fontsize=9, loc="left")
    bar = figure.colorbar(image, ax=axes, pad=0.01)
    bar.set_label(f"{curve.measure} of one head", color=TEXT)


def _undated(path: Path) -> dict[str, None]:
    """No date in the file, so that the same data give the same bytes."""
    return {"Date": None} if path.suffix == ".svg" else {}
