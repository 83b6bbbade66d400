"""Each system against the baseline, by a paired test over queries, corrected for their number."""

from __future__ import annotations

from icr_rag.evaluation.grid_result import Difference, GridResult, Row, Slice
from icr_rag.evaluation.significance import holm, paired_test


def compare(result: GridResult) -> None:
    """Put the difference to the baseline into each row that was measured.

    In each slice by itself, on the headline measure; p-values are corrected for the number of
    systems in the slice. Rows of a slice whose baseline was not measured get none.
    """
    if result.grid.baseline is None:
        return
    for place in result.slices:
        _compare_slice(result, place)


def _compare_slice(result: GridResult, place: Slice) -> None:
    rows = [row for row in result.of(place) if row.evaluation is not None]
    baseline = next((row for row in rows if row.system == result.grid.baseline), None)
    if baseline is None:
        result.notes.append(
            f"{place.title}: the baseline {result.grid.baseline} was not measured, so that nothing "
            "is tested against it"
        )
        return
    others = [row for row in rows if row is not baseline]
    settings = result.grid.significance
    reference = _values(result, baseline)
    found = [
        paired_test(
            _values(result, row),
            reference,
            method=settings.method,
            samples=settings.samples,
            seed=settings.seed,
        )
        for row in others
    ]
    corrected = holm([test.p_value for test in found])
    for row, test, p in zip(others, found, corrected, strict=True):
        row.difference = Difference(test.mean_difference, test.low, test.high, test.p_value, p)


def _values(result: GridResult, row: Row) -> dict[str, float]:
    """Query -> the headline measure."""
    per_query = {} if row.evaluation is None else row.evaluation.per_query
    return {query: values[result.grid.headline] for query, values in per_query.items()}
