"""Which layers rank best? One pass per query over all layers scores every window of layers.

    python benchmarks/windows.py path/to/scifact --limit 100 --json windows.json
    python benchmarks/windows.py path/to/scifact --limit 100 --shuffle 1 --json shuffled.json

Each single layer, each window of four, and all layers (ICR) are scored exactly as
``Reranker(layers=...)`` scores them, from the same reading. Resumable: finished queries are kept
in a file beside the JSON file. Prints a table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from icr_rag import Reranker
from icr_rag.evaluation.datasets import Dataset, load_beir
from icr_rag.evaluation.harness import Setting, given_order, hardware, versions
from icr_rag.evaluation.metrics import evaluate_run, mean_measures
from icr_rag.evaluation.runs import read_run
from icr_rag.order import stable_order
from icr_rag.scoring.calibration import document_scores


def windows_of(count: int) -> dict[str, tuple[int, int]]:
    """Name -> first and last layer, for all that are compared."""
    single = {f"{i}-{i}": (i, i) for i in range(count)}
    four = {f"{i}-{i + 3}": (i, i + 3) for i in range(count - 3)}
    return {"all": (0, count - 1), **four, **single}


def orders_for_query(reranker: Reranker, query: str, documents: list) -> dict[str, list[int]]:
    """The order of the documents under every window, from one pass."""
    scorer = reranker.scorer
    prompts = scorer.prompts
    limit = reranker.config.max_document_tokens
    ids = [i[:limit] for i in prompts.encode_documents([d.content for d in documents])]
    prompt = scorer.build(prompts.encode_query(query), ids)
    query_reading, null_reading = scorer.read(prompt, sum_heads=True)
    length = len(prompt.prefix_ids)
    result = {}
    for name, (first, last) in windows_of(query_reading.shape[0]).items():
        summed = query_reading[first : last + 1].sum(dim=0)[:length]
        null = null_reading[first : last + 1].sum(dim=0)[:length]
        result[name] = stable_order(document_scores(summed, null, prompt.spans, True, "sum"))
    return result


def orders_or_resume(
    reranker: Reranker, dataset: Dataset, given: dict[str, list[str]], depth: int, path: Path
) -> dict[str, dict[str, list[int]]]:
    """`orders_for_query` of every query in ``given``: kept in ``path``, or computed now.

    Query -> window -> order of the documents, as numbers in the order given.
    """
    done: dict[str, dict[str, list[int]]] = {}
    if path.is_file():
        done = {row["query"]: row["orders"] for row in map(json.loads, path.open())}
    for number, (query, names) in enumerate(given.items(), start=1):
        if query not in done:
            documents = [dataset.documents[name] for name in names[:depth]]
            done[query] = orders_for_query(reranker, dataset.queries[query], documents)
            with path.open("a") as out:
                out.write(json.dumps({"query": query, "orders": done[query]}) + "\n")
            print(f"{path.stem}: {number} of {len(given)}", flush=True)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--shuffle", type=int)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--max-document-tokens", type=int, default=384)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    dataset = load_beir(arguments.dataset)
    candidates = read_run(next(iter(sorted(arguments.dataset.glob("run.*")))))
    setting = Setting(arguments.depth, arguments.shuffle, arguments.limit)
    reranker = Reranker(
        model=arguments.model,
        layers="all",
        dtype="float32",
        max_document_tokens=arguments.max_document_tokens,
    )
    queries = dataset.judged_queries[: arguments.limit]
    given = {query: given_order(candidates[query], query, setting) for query in queries}
    state = arguments.json.with_suffix(".state.jsonl")
    done = orders_or_resume(reranker, dataset, given, arguments.depth, state)

    table = {"given order": mean_measures(evaluate_run(given, dataset.judgements, queries))}
    for name in done[queries[0]]:
        run = {}
        for query in queries:
            head, rest = given[query][: arguments.depth], given[query][arguments.depth :]
            run[query] = [head[i] for i in done[query][name]] + rest
        table[name] = mean_measures(evaluate_run(run, dataset.judgements, queries))
    for name, measures in table.items():
        print(f"{name:12} {measures['nDCG@10']:.3f}")
    report = {
        "dataset": dataset.name,
        "queries": len(queries),
        "depth": arguments.depth,
        "shuffle": arguments.shuffle,
        "max_document_tokens": arguments.max_document_tokens,
        "model": arguments.model,
        "windows": table,
        "versions": versions(),
        "hardware": hardware(),
    }
    arguments.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
