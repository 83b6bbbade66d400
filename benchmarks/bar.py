"""Do the shipped profiles rank better than ICR, its best window, and query likelihood?

    python benchmarks/bar.py ../shared/data/scifact --parity odd --limit 40 --out results/bar

One joint pass per query and order gives ICR over all layers and over every window, exactly as
``Reranker(layers=...)`` scores them; one pointwise pass gives query likelihood, the attention
profile and both together. The "best" windows and layers are picked on the very queries they are
reported on: nobody can have them beforehand, so that they are an upper bound of choosing layers.

Resumable: what was read stays in files under --out. A changed profile needs no new reading.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from windows import orders_or_resume

from icr_rag import Reranker, RerankerConfig
from icr_rag.evaluation.datasets import Dataset, load_beir
from icr_rag.evaluation.environment import hardware, versions
from icr_rag.evaluation.grid_config import QuerySubset
from icr_rag.evaluation.grid_data import choose_queries, only_run
from icr_rag.evaluation.harness import Setting, given_order
from icr_rag.evaluation.runs import Run, read_run
from icr_rag.evaluation.significance import paired_test
from icr_rag.frameworks.combine import combine, prior
from icr_rag.frameworks.result import WindowedScores
from icr_rag.model.loading import load_config
from icr_rag.order import stable_order, standardised
from icr_rag.profiling.collect import profiling_config
from icr_rag.profiling.curve import measure_ranking
from icr_rag.profiling.resume import Task, collect_or_resume
from icr_rag.profiling.samples import Sample
from icr_rag.profiling.weights import score
from icr_rag.scoring.selection import Selection, select_heads

Values = dict[str, dict[str, float]]  # system -> query -> nDCG@10


#: Which halves of the queries may be asked for, as `QuerySubset` has it.
PARITY: dict[str, Literal["even", "odd"] | None] = {"even": "even", "odd": "odd", "all": None}


def ndcg(sample: Sample, order: list[int]) -> float:
    """Of the sample's documents in an order."""
    scores = np.empty((len(order), 1))
    scores[order, 0] = -np.arange(len(order))
    return float(measure_ranking(scores, sample.grades, sample.ideal, "nDCG@10")[0])


def joint(
    config: RerankerConfig,
    data: Dataset,
    run: Run,
    queries: list[str],
    setting: Setting,
    path: Path,
) -> dict[str, dict[str, list[int]]]:
    """Query -> window -> order of the documents, as numbers in the order given."""
    given = {query: given_order(run[query], query, setting) for query in queries}
    with Reranker(config.replace(framework="listwise", layers="all")) as reranker:
        return orders_or_resume(reranker, data, given, setting.depth, path)


def pointwise(
    config: RerankerConfig, data: Dataset, run: Run, queries: list[str], depth: int, path: Path
) -> dict[str, Sample]:
    """Query -> readings of all heads and likelihood, documents in the first stage's order."""
    everything = profiling_config(config.replace(scoring="mixed", framework="pointwise"))
    task = Task(data.name, data, run, queries, depth)
    with Reranker(everything) as reranker:
        samples = collect_or_resume(
            reranker, [task], path, shuffle=None, progress=printed(path.stem)
        )
    return {sample.query_id: sample for sample in samples}


def printed(name: str) -> Callable[[int, int], None]:
    """Prints how many queries are finished."""
    return lambda finished, count: print(f"{name}: {finished} of {count}", flush=True)


def systems(sample: Sample, places: list[int], attention: Selection, mixed: Selection) -> Any:
    """System -> order, for documents given in the order ``places``."""
    own = score(sample, attention.weights or ())
    likelihood = np.asarray(sample.likelihood, dtype=np.float64)
    both = mixed.likelihood_weight * np.array(standardised(likelihood.tolist())) + np.array(
        standardised(score(sample, mixed.weights or ()).tolist())
    )
    for name, values, weight in (
        ("query likelihood", likelihood, 0.0),
        ("query likelihood + order", likelihood, mixed.first_stage_weight),
        ("attention", own, attention.first_stage_weight),
        ("attention, order unused", own, 0.0),
        ("mixed", both, mixed.first_stage_weight),
        ("mixed, order unused", both, 0.0),
    ):
        given = values[places].tolist()
        plain = WindowedScores(stable_order(given), given, [0] * len(given))
        ranked = combine(plain, prior(weight))
        yield name, list(ranked.order)


def check(config: RerankerConfig, data: Dataset, run: Run, sample: Sample, depth: int) -> None:
    """The product gives the orders that are computed here."""
    names = run[sample.query_id][:depth]
    documents = [data.documents[name] for name in names]
    selections = [choice(config, scoring) for scoring in ("attention", "mixed")]
    computed = dict(systems(sample, list(range(len(names))), *selections))
    for name in ("attention", "mixed"):
        with Reranker(config.replace(scoring=name, framework="pointwise")) as reranker:
            ranking = reranker.rank(data.queries[sample.query_id], documents)
        order = [hit.index for hit in ranking]
        same = sum(a == b for a, b in zip(order, computed[name], strict=True))
        print(f"check: {name}, {same} of {len(order)} places as Reranker.rank gives them")


def choice(config: RerankerConfig, scoring: str) -> Selection:
    """What the product reads."""
    return select_heads(
        config.replace(scoring=scoring, framework="pointwise"), load_config(config)[1]
    )


def measure(
    data: Dataset,
    run: Run,
    samples: dict[str, Sample],
    orders: dict[str, dict[str, list[int]]],
    setting: Setting,
    selections: list[Selection],
) -> Values:
    """nDCG@10 of every system for every query."""
    values: Values = {}
    for query, sample in samples.items():
        first = run[query][: setting.depth]
        places = [first.index(n) for n in given_order(run[query], query, setting)[: setting.depth]]
        found = {"as given": list(range(len(places)))}
        found |= {f"ICR {name}": order for name, order in orders[query].items()}
        found |= dict(systems(sample, places, *selections))
        for name, order in found.items():
            ranked = [places[i] for i in order]
            values.setdefault(name, {})[query] = ndcg(sample, ranked)
    return values


def table(values: Values) -> dict[str, Any]:
    """Means, and the tests that the bar names."""
    means = {name: float(np.mean(list(row.values()))) for name, row in values.items()}
    windows = [name for name in means if name.startswith("ICR ") and "-" in name]
    four = [name for name in windows if _width(name) == 4]
    best = max(four, key=means.__getitem__)
    layer = max((name for name in windows if _width(name) == 1), key=means.__getitem__)
    rows: dict[str, Any] = {"as given": round(means["as given"], 4)}
    rows["ICR all"] = round(means["ICR all"], 4)
    rows["best window of four, picked on these queries"] = [best[4:], round(means[best], 4)]
    rows["best layer, picked on these queries"] = [layer[4:], round(means[layer], 4)]
    for name in means:
        if not name.startswith("ICR ") and name != "as given":
            rows[name] = round(means[name], 4)
    tests = {}
    for a, b in (
        ("attention", "ICR all"),
        ("attention", best),
        ("attention, order unused", best),
        ("mixed", "query likelihood"),
        ("mixed", "query likelihood + order"),
        ("mixed, order unused", "query likelihood"),
        ("attention", "query likelihood"),
    ):
        test = paired_test(values[a], values[b])
        tests[f"{a} - {b}"] = {
            "difference": round(test.mean_difference, 4),
            "interval": [round(test.low, 4), round(test.high, 4)],
            "p": round(test.p_value, 4),
        }
    return {"nDCG@10": rows, "tests": tests}


def _width(name: str) -> int:
    first, _, last = name.removeprefix("ICR ").partition("-")
    return int(last) - int(first) + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="BEIR folder with a run.*")
    parser.add_argument("--out", type=Path, required=True, help="folder")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--profile", type=Path, help="of mixed scoring, instead of the shipped one")
    parser.add_argument("--parity", choices=["even", "odd", "all"], default="all")
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--max-document-tokens", type=int, default=192)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    data, run = load_beir(arguments.data), read_run(only_run(arguments.data))
    subset = QuerySubset(parity=PARITY[arguments.parity], limit=arguments.limit)
    queries = [q for q in choose_queries(data.judged_queries, subset) if run.get(q)]
    limit = arguments.max_document_tokens
    config = RerankerConfig(model=arguments.model, dtype="float32", max_document_tokens=limit)
    name, depth = arguments.data.resolve().name, arguments.depth

    path = arguments.out / f"{name}.pointwise.npz"
    samples = pointwise(config, data, run, queries, depth, path)
    selections = [choice(config, scoring) for scoring in ("attention", "mixed")]
    if arguments.profile is None:
        check(config, data, run, samples[queries[0]], depth)
    else:
        profiled = config.replace(profile=str(arguments.profile))
        selections = [choice(profiled, "mixed")] * 2
    report: dict[str, Any] = {
        "data": name,
        "queries": len(queries),
        "parity": arguments.parity,
        "depth": depth,
        "max_document_tokens": limit,
        "model": arguments.model,
        "versions": versions(),
        "hardware": hardware(),
    }
    for order, setting in (("shuffled", Setting(depth, 1)), ("first stage", Setting(depth))):
        stored = arguments.out / f"{name}.{order.replace(' ', '-')}.jsonl"
        orders = joint(config, data, run, queries, setting, stored)
        report[order] = table(measure(data, run, samples, orders, setting, selections))
        print(order, json.dumps(report[order], indent=1))
    (arguments.out / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
