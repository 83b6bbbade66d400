"""Measures, computed by ir-measures (trec_eval's definitions: nDCG with linear gain)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from icr_rag.errors import ConfigError, require

#: Names as ir-measures writes them; the first is the headline. All are better when higher.
MEASURES = ("nDCG@10", "nDCG@5", "RR@10", "P@1", "R@5", "R@10", "R@20")


def check_measures(names: Sequence[str]) -> tuple[str, ...]:
    """The names as ir-measures writes them.

    Raises:
        ConfigError: naming one that ir-measures does not know, or that there is twice.
        MissingDependencyError: without ir-measures.
    """
    ir_measures = require("ir_measures", "cli", "Evaluation")
    checked = []
    for name in names:
        try:
            checked.append(str(ir_measures.parse_measure(name)))
        except (ValueError, NameError, SyntaxError) as error:
            raise ConfigError(
                f"measure {name!r} is not known to ir-measures; write it as nDCG@10, RR@10, "
                "AP or R@20"
            ) from error
    if len(set(checked)) < len(checked) or not checked:
        raise ConfigError(f"measures={list(names)}: give at least one, and each only once")
    return tuple(checked)


def evaluate_run(
    run: Mapping[str, Sequence[str]],
    judgements: Mapping[str, Mapping[str, int]],
    queries: Sequence[str],
    names: Sequence[str] = MEASURES,
) -> dict[str, dict[str, float]]:
    """Each measure for each query.

    Args:
        run: query id -> document ids, best first. A query that is missing scores 0.
        judgements: query id -> document id -> graded relevance.
        queries: the queries to report; each needs a relevant document in ``judgements``.
        names: the measures, as ir-measures writes them.

    Returns:
        query id -> measure -> value from 0 to 1, for every query in ``queries``, in their order.

    Raises:
        MissingDependencyError: without ir-measures.
    """
    ir_measures = require("ir_measures", "cli", "Evaluation")
    measures = [ir_measures.parse_measure(name) for name in names]
    relevance = {query: dict(judgements[query]) for query in queries}
    # Strictly falling scores: trec_eval breaks ties by document id.
    scores = {
        query: {document: float(-rank) for rank, document in enumerate(run[query])}
        for query in queries
        if run.get(query)
    }
    # ir-measures reports 0 for queries that the run lacks; written down here, so that the mean
    # does not hang on every provider behind it doing so.
    values = {query: dict.fromkeys(names, 0.0) for query in queries}
    for metric in ir_measures.iter_calc(measures, relevance, scores):
        values[metric.query_id][str(metric.measure)] = float(metric.value)
    return values


def mean_measures(
    per_query: Mapping[str, Mapping[str, float]], names: Sequence[str] = MEASURES
) -> dict[str, float]:
    """The mean of each measure over the queries; 0 for no queries."""
    count = max(1, len(per_query))
    return {name: sum(values[name] for values in per_query.values()) / count for name in names}
