"""How well document states rank: every way of reading them, against ICR's joint prompt.

    python benchmarks/states_quality.py ../shared/data/scifact --parity odd --out results/q
    python benchmarks/states_quality.py ../shared/data/scifact --parity odd --out results/q \\
        --depth 100 --limit 10 --max-document-tokens 64

Every head is read once per query from states of full precision, once from the same in 8 bits, and
once with nothing kept; ICR over all layers runs its joint prompt in both orders. Everything else is
computed from that, with the shipped profiles. Documents that are encoded apart from each other
cannot know the order they come in, so that one reading serves every order.

    python benchmarks/states_quality.py --table results/q/*.json

Resumable: what was read stays in files under --out. The last form prints such results side by side.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from bar import PARITY, ndcg, printed

from icr_rag import Reranker, RerankerConfig
from icr_rag.evaluation.datasets import Dataset, load_beir
from icr_rag.evaluation.environment import hardware, versions
from icr_rag.evaluation.grid_config import QuerySubset
from icr_rag.evaluation.grid_data import choose_queries, only_run
from icr_rag.evaluation.harness import Setting, given_order
from icr_rag.evaluation.runs import Run, read_run
from icr_rag.evaluation.significance import paired_test
from icr_rag.frameworks.combine import combine, prior
from icr_rag.frameworks.evidence import FIRST_STAGE_WEIGHT
from icr_rag.frameworks.result import WindowedScores
from icr_rag.model.loading import load_config
from icr_rag.model.reading import READINGS
from icr_rag.order import stable_order
from icr_rag.profiling.collect import collect, profiling_config
from icr_rag.profiling.resume import Task, collect_or_resume
from icr_rag.profiling.samples import Sample, load_samples, save_samples, standardise
from icr_rag.profiling.weights import score
from icr_rag.scoring.selection import Selection, select_heads
from icr_rag.states.store import StoredStates

PER_DOCUMENT = {"scoring": "mixed", "framework": "pointwise"}
SHARED = {"scoring": "attention", "framework": "listwise"}
KEPT = {"document_states": "independent", "states_memory": 16_384}
BLIND = {**KEPT, "document_states": "blind"}
ICR = "ICR, joint prompt"
ORDERS = ("shuffled", "first stage")


def read(
    config: RerankerConfig, data: Dataset, run: Run, queries: list[str], depth: int, stem: Path
) -> dict[str, dict[str, Sample]]:
    """Way -> query -> readings, documents in the first stage's order."""
    found: dict[str, dict[str, Sample]] = {}
    for group in (
        {"per document": {**PER_DOCUMENT, **KEPT}},
        {"shared": {**SHARED, **KEPT}, "blind": {**SHARED, **BLIND}},
    ):
        configs = {}
        for name, settings in group.items():
            configs[name] = profiling_config(config.replace(**settings))
            configs[f"{name}, int8"] = configs[name].replace(states_dtype="int8")
        paths = {name: Path(f"{stem}.{name.replace(', ', '.')}.npz") for name in configs}
        samples = {name: load_samples(p) if p.is_file() else [] for name, p in paths.items()}
        done = set.intersection(*({sample.query_id for sample in s} for s in samples.values()))
        rerankers = {name: Reranker(one) for name, one in configs.items()}
        for number, query in enumerate(queries):
            if query in done:
                continue
            stores = []
            for name, reranker in rerankers.items():
                stores.append(reranker.scorer.states.store)
                # Encoded once: the others keep less of it, or rounded.
                for key in list(stores[0]._held) if len(stores) > 1 else ():
                    states = stores[0].get(key)
                    values = () if name.startswith("blind") else states.values
                    stores[-1].put(key, StoredStates(states.keys, values))
                samples[name] += collect(reranker, data, run, [query], depth=depth, shuffle=None)
            for store in stores:
                store.clear()
            for name, path in paths.items():
                save_samples(path, samples[name])
            print(f"{stem.name}, {', '.join(group)}: {number + 1} of {len(queries)}", flush=True)
        for name, reranker in rerankers.items():
            reranker.close()
            found[name] = {sample.query_id: sample for sample in samples[name]}
    return found


def read_fresh(
    config: RerankerConfig, data: Dataset, run: Run, queries: list[str], depth: int, stem: Path
) -> dict[str, Sample]:
    """Per document with nothing kept."""
    path = Path(f"{stem}.fresh.npz")
    task = Task(data.name, data, run, queries, depth)
    with Reranker(profiling_config(config.replace(**PER_DOCUMENT))) as reranker:
        samples = collect_or_resume(
            reranker, [task], path, shuffle=None, progress=printed(path.stem)
        )
    return {sample.query_id: sample for sample in samples}


def joint(
    config: RerankerConfig, data: Dataset, run: Run, queries: list[str], depth: int, path: Path
) -> dict[str, dict[str, list[int]]]:
    """Order of the candidates -> query -> ICR's order, as places in the first stage's."""
    rows = list(map(json.loads, path.open())) if path.is_file() else []
    done = {(row["given"], row["query"]): row["order"] for row in rows}
    with Reranker(config.replace(framework="listwise", layers="all", heads="all")) as reranker:
        for query in queries:
            for given in ORDERS:
                if (given, query) in done:
                    continue
                places = order_given(run, query, given, depth)
                documents = [data.documents[run[query][place]] for place in places]
                ranking = reranker.rank(data.queries[query], documents)
                order = [places[hit.index] for hit in ranking]
                done[given, query] = order
                with path.open("a") as out:
                    out.write(json.dumps({"given": given, "query": query, "order": order}) + "\n")
                print(f"{path.name}: {query}, {given}", flush=True)
    return {given: {query: done[given, query] for query in queries} for given in ORDERS}


def order_given(run: Run, query: str, given: str, depth: int) -> list[int]:
    """Places in the first stage's order, in the order in which the candidates are given."""
    first = run[query][:depth]
    setting = Setting(depth, 1 if given == "shuffled" else None)
    return [first.index(name) for name in given_order(run[query], query, setting)[:depth]]


def scores(
    name: str, sample: Sample, selections: dict[str, Selection]
) -> dict[str, tuple[np.ndarray, float]]:
    """Way of reading -> scores in the first stage's order, and the weight of the given order."""
    if not name.startswith("per document"):
        tail = name.partition(",")[0]
        calibrated = sample.readings[..., READINGS.index("calibrated")].sum(axis=(1, 2))
        chosen = selections[tail]
        weight = FIRST_STAGE_WEIGHT
        made = {f"{tail} tail, ICR over all layers": (calibrated.astype(np.float64), weight)}
        if chosen.weights is not None:
            made[f"{tail} tail, profile"] = score(sample, chosen.weights), weight
        return made
    attention, mixed = selections["attention"], selections["mixed"]
    likelihood = np.asarray(sample.likelihood, dtype=np.float64)
    both = mixed.likelihood_weight * standardise(likelihood[:, None])[:, 0]
    both = both + standardise(score(sample, mixed.weights or ())[:, None])[:, 0]
    own = score(sample, attention.weights or ())
    return {
        "per document, attention": (own, attention.first_stage_weight),
        "per document, likelihood": (likelihood, mixed.first_stage_weight),
        "per document, mixed": (both, mixed.first_stage_weight),
    }


def values_of(
    found: dict[str, dict[str, Sample]],
    run: Run,
    icr: dict[str, list[int]],
    given: str,
    depth: int,
    selections: dict[str, Selection],
) -> dict[str, dict[str, float]]:
    """System -> query -> nDCG@10."""
    values: dict[str, dict[str, float]] = {}
    for query, order in icr.items():
        any_sample = found["per document"][query]
        places = order_given(run, query, given, depth)
        ranked = {"as given": places, ICR: order}
        for name, samples in found.items():
            if query not in samples:
                continue
            suffix = f", {name.partition(', ')[2]}" if ", " in name else ""
            for system, (own, weight) in scores(name, samples[query], selections).items():
                mine = own[places].tolist()
                for kind, used in (("", 0.0), (" + order", weight)):
                    windowed = WindowedScores(stable_order(mine), mine, [0] * len(mine))
                    best = combine(windowed, prior(used)).order
                    ranked[f"{system}{suffix}{kind}"] = [places[i] for i in best]
        for system, best in ranked.items():
            values.setdefault(system, {})[query] = ndcg(any_sample, best)
    return values


def table(values: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Means, and differences to ICR and to reading with nothing kept, with their p."""
    rows: dict[str, Any] = {}
    for name, row in values.items():
        rows[name] = {"nDCG@10": round(float(np.mean(list(row.values()))), 4)}
        if name in ("as given", ICR):
            continue
        for other, title in ((ICR, "ICR"), ("per document, attention, fresh + order", "fresh")):
            if other in values and other != name and len(values[other]) == len(row):
                test = paired_test(row, values[other])
                rows[name][f"minus {title}"] = [
                    round(test.mean_difference, 4), round(test.low, 4), round(test.high, 4),
                    round(test.p_value, 4),
                ]  # fmt: skip
    return rows


def side_by_side(paths: list[Path]) -> str:
    """Markdown: shuffled and in the first stage's order, * where it differs from ICR (p < .05)."""
    reports = [json.loads(path.read_text()) for path in paths]
    heads = [f"{r['data']}, top {r['depth']}, {r['queries']} queries" for r in reports]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for name in reports[0]["shuffled"]:
        if "int8" in name or "fresh" in name:
            continue
        cells = []
        for report in reports:
            pair = []
            for given in ORDERS:
                row = report[given].get(name, {})
                star = "*" if row.get("minus ICR", [1.0])[-1] < 0.05 else ""
                pair.append(f"{row['nDCG@10']:.3f}{star}".removeprefix("0") if row else "-")
            cells.append(" / ".join(pair))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *map(largest_differences, reports)])


def largest_differences(report: dict[str, Any]) -> str:
    """What 8 bits and keeping states change at most."""
    found = []
    for mark in ("int8", "fresh"):
        most = 0.0
        for given in ORDERS:
            for name, row in report[given].items():
                plain = name.replace(f", {mark}", "")
                if mark in name and plain in report[given]:
                    gap = row["nDCG@10"] - report[given][plain]["nDCG@10"]
                    most = max(most, abs(gap))
        found.append(f"{mark} differs by at most {most:.3f}")
    return f"{report['data']}, top {report['depth']}: {', '.join(found)}"


def choose(config: RerankerConfig) -> dict[str, Selection]:
    """What the product reads with its own profiles."""
    text = load_config(config)[1]
    return {
        "attention": select_heads(config.replace(framework="pointwise"), text),
        "mixed": select_heads(config.replace(**PER_DOCUMENT), text),
        "shared": select_heads(config.replace(**SHARED, **KEPT), text),
        "blind": select_heads(config.replace(**SHARED, **BLIND), text),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, nargs="?", help="BEIR folder with a run.*")
    parser.add_argument("--out", type=Path, help="folder")
    parser.add_argument("--table", type=Path, nargs="+", help="results to print side by side")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--parity", choices=["even", "odd", "all"], default="all")
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--max-document-tokens", type=int, default=192)
    parser.add_argument("--fresh", type=int, default=None, help="queries also read unkept")
    arguments = parser.parse_args()
    if arguments.table:
        print(side_by_side(arguments.table))
        return
    if arguments.data is None or arguments.out is None:
        parser.error("a data folder and --out are needed, or --table")
    arguments.out.mkdir(parents=True, exist_ok=True)
    data, run = load_beir(arguments.data), read_run(only_run(arguments.data))
    subset = QuerySubset(parity=PARITY[arguments.parity], limit=arguments.limit)
    queries = [q for q in choose_queries(data.judged_queries, subset) if run.get(q)]
    limit, depth = arguments.max_document_tokens, arguments.depth
    config = RerankerConfig(model=arguments.model, dtype="float32", max_document_tokens=limit)
    stem = arguments.out / f"{arguments.data.resolve().name}-{depth}"
    found = read(config, data, run, queries, depth, stem)
    if arguments.fresh != 0:
        found["per document, fresh"] = read_fresh(
            config, data, run, queries[: arguments.fresh], depth, stem
        )
    report: dict[str, Any] = {
        "data": arguments.data.resolve().name,
        "queries": len(queries),
        "depth": depth,
        "max_document_tokens": limit,
        "model": arguments.model,
        "versions": versions(),
        "hardware": hardware(),
    }
    orders = joint(config, data, run, queries, depth, Path(f"{stem}.icr.jsonl"))
    for given in ORDERS:
        values = values_of(found, run, orders[given], given, depth, choose(config))
        report[given] = table(values)
    Path(f"{stem}.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
