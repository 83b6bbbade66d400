"""What ``icr-rag profile`` prints of a study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from icr_rag.cli.console import note, output_console

if TYPE_CHECKING:
    from icr_rag.profiling.study import Study

#: So many queries make choices stable.
_FEW = 40


def show_study(study: Study, out: Path) -> None:
    """Figures, the curve over queries, the peak of the layers, and what was chosen."""
    console = output_console()
    table = Table(title=f"nDCG@10, {study.queries} queries", title_justify="left")
    table.add_column("what is read")
    table.add_column("mean", justify="right")
    for name, value in study.measured.items():
        if isinstance(value, float):
            table.add_row(name, f"{value:.4f}")
    if study.held_out is not None:
        left_out = f"{study.held_out.groups} groups" if study.held_out.groups else "folds"
        for name, figure in study.held_out.figures().items():
            table.add_row(f"{name}, {left_out} left out", f"{figure:.4f}")
    for size, figure in study.sizes.items():
        table.add_row(f"attention, chosen on {size} queries", f"{figure:.4f}")
    if table.row_count:
        console.print(table)
    curve = study.curve
    if curve is None:
        note("no query has a document that is known to be relevant, so that nothing is measured")
    else:
        first, last = curve.window
        console.print(
            f"peak: layer {curve.peak} (95 %: {curve.peak_low} to {curve.peak_high}); window "
            f"{first}-{last}, chosen by {curve.window_share:.0%} of the resamples"
        )
    deepest = max(item.layer for item in study.chosen)
    console.print(f"{len(study.chosen)} readings up to layer {deepest} -> {out}")
    if study.queries < _FEW:
        note(f"{study.queries} queries are few; from about 50 on, choices become stable")
