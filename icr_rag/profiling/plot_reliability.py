"""A picture of a calibration: what was predicted, and what was so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from icr_rag.errors import DataError, require
from icr_rag.profiles import Calibration
from icr_rag.profiling.plot import STYLE, check_plots, undated

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINE = "#2f8fd0"
_TEXT = "#7a7f87"


def plot_reliability(paths: Sequence[Path], calibration: Calibration, title: str = "") -> None:
    """Draw the reliability table above how the pairs are spread.

    Args:
        paths: one file per format; .png and .svg.
        calibration: one with ``reliability``.
        title: above the picture.

    Raises:
        MissingDependencyError: without matplotlib.
        InputError: for another format. DataError: if a file cannot be written.
    """
    check_plots(paths)
    matplotlib = require("matplotlib", "plot", "Plotting")
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 5.4), layout="constrained")
        _draw(figure.subplots(), calibration)
        if title:
            figure.suptitle(title, fontsize=11)
        for path in paths:
            try:
                figure.savefig(path, dpi=150, transparent=True, metadata=undated(path))
            except OSError as error:
                raise DataError(f"cannot write {path}: {error.strerror}") from error


def _draw(axes: Axes, calibration: Calibration) -> None:
    predicted = [row[0] for row in calibration.reliability]
    observed = [row[1] for row in calibration.reliability]
    axes.plot([0, 1], [0, 1], color=_TEXT, lw=1, ls="--", label="as predicted")
    axes.plot(predicted, observed, "o-", color=_LINE, lw=2, ms=5, label="cross-validated")
    measured = calibration.measured
    axes.set_title(
        f"{calibration.kind}, {measured.get('pairs', 0):.0f} pairs: ECE "
        f"{measured.get('ECE', 0):.3f}, Brier {measured.get('Brier', 0):.3f}",
        fontsize=10,
        loc="left",
    )
    axes.set_xlabel("mean probability of a tenth of the pairs")
    axes.set_ylabel("share that is relevant")
    largest = max([*predicted, *observed, 0.05])
    axes.set_xlim(0, min(1.0, largest * 1.1))
    axes.set_ylim(0, min(1.0, largest * 1.1))
    axes.grid(alpha=0.25, color=_TEXT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, labelcolor=_TEXT, loc="upper left")
