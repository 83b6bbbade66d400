"""Requests of several users together or one by one: documents per second on the embedded model.

    python benchmarks/together.py
    python benchmarks/together.py --json together.json --scoring likelihood

Each request has a query and documents of its own, of about 100 tokens. `Reranker.rank` is given
one after the other, then `Reranker.rank_many` all; in turns, so that a busy machine disturbs both
alike, the median of a few. Cold: nothing is kept (``document_states="joint"``). Warm: states of
all documents are in memory. In bfloat16, on one thread; seconds are of its processor time, which
other processes lengthen less than the clock's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from latency import machine, make_documents

import icr_rag
from icr_rag import Reranker

SETTINGS = {"model": "smollm2-135m", "dtype": "bfloat16", "device": "cpu"}
STATES = {
    "cold": {"document_states": "joint"},
    "warm": {"document_states": "independent", "states_memory": 8192},
}
SCORING = ("likelihood", "mixed")
REQUESTS, DOCUMENTS = (1, 4, 16), (1, 8, 20)
#: Of different lengths, as people's are.
QUERIES = (
    "How does the tide change when the moon is full?",
    "harbour depth",
    "Which rope holds an anchor in a storm, and how long must it be for a small boat?",
    "why do gulls follow boats",
    "What is a pier?",
    "salt in sand, after the wave has gone back into the sea",
    "crab shell",
)


def seconds(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def measure(
    reranker: Reranker, texts: list[str], cells: list[tuple[int, int]], repeats: int
) -> Iterator[dict[str, Any]]:
    """Per number of requests, and of documents of each: documents per second."""
    for requests, documents in cells:
        total = requests * documents
        queries = [QUERIES[n % len(QUERIES)] for n in range(requests)]
        lists = [texts[n * documents : (n + 1) * documents] for n in range(requests)]

        def alone(queries: list[str] = queries, lists: list[list[str]] = lists) -> None:
            for query, own in zip(queries, lists, strict=True):
                reranker.rank(query, own)

        def together(queries: list[str] = queries, lists: list[list[str]] = lists) -> None:
            reranker.rank_many(queries, lists)

        took: dict[str, list[float]] = {"alone": [], "together": []}
        for _ in range(repeats):
            took["alone"].append(seconds(alone))
            took["together"].append(seconds(together))
        median = {name: total / statistics.median(own) for name, own in took.items()}
        gain = statistics.median(
            a / b for a, b in zip(took["alone"], took["together"], strict=True)
        )
        yield {"requests": requests, "documents": documents, "gain": gain, **median}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scoring", nargs="+", choices=SCORING, default=SCORING)
    parser.add_argument("--requests", type=int, nargs="+", default=REQUESTS)
    parser.add_argument("--documents", type=int, nargs="+", default=DOCUMENTS, help="of each")
    parser.add_argument(
        "--most-cold", type=int, default=40,
        help="most documents of a cold measurement: what fills passes anyway takes long",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, help="write the numbers here, too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {"machine": machine(), "icr_rag": icr_rag.__version__, "rows": []}
    print(" ".join(f"{name} {value}" for name, value in report["machine"].items()), end="\n\n")
    print("| scoring | states | requests | documents each | one by one | together | gain |")
    print("|---|---|---|---|---|---|---|")
    cells = list(itertools.product(arguments.requests, arguments.documents))
    count = max(requests * documents for requests, documents in cells)
    for scoring in arguments.scoring:
        for states, fields in STATES.items():
            with Reranker(scoring=scoring, **fields, **SETTINGS).warm_up() as reranker:
                texts = make_documents(reranker.tokenizer, count, 100)
                own = cells
                if states == "cold":
                    own = [(r, d) for r, d in cells if r * d <= arguments.most_cold]
                else:
                    reranker.encode(texts)
                for row in measure(reranker, texts, own, arguments.repeats):
                    report["rows"].append({"scoring": scoring, "states": states, **row})
                    print(
                        f"| {scoring} | {states} | {row['requests']} | {row['documents']} | "
                        f"{row['alone']:.1f} | {row['together']:.1f} | {row['gain']:.2f} |",
                        flush=True,
                    )
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
