"""A picture of a calibration: what was predicted, and what was so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from icr_rag.profiles import Calibration
from icr_rag.profiling.plot import LINE, TEXT, save_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    save_picture(paths, (5.2, 5.4), lambda figure: _draw(figure.subplots(), calibration), title)


def _draw(axes: Axes, calibration: Calibration) -> None:
    predicted = [row[0] for row in calibration.reliability]
    observed = [row[1] for row in calibration.reliability]
    axes.plot([0, 1], [0, 1], color=TEXT, lw=1, ls="--", label="as predicted")
    axes.plot(predicted, observed, "o-", color=LINE, lw=2, ms=5, label="cross-validated")
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
    axes.grid(alpha=0.25, color=TEXT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, labelcolor=TEXT, loc="upper left")
