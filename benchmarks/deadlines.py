"""Calls with random deadlines: how many are whole, how late are the others, is all of it said?

    python benchmarks/deadlines.py ../shared/data/scifact

Lists of 20 abstracts, cut to 128 tokens, on the embedded model, by the real clock. Deadlines are
log-uniform from 1 ms to 2 s. Where states are kept, those of half of the lists are encoded before.
A third of the calls come from three threads at once and wait for each other.

A call may be late by as much as the longest batch of its method took: one pass of the model, the
prompts of answers that are written, or tokenising a list. The exit status is 1 if one is later than
that, or if an answer that lacks something, or is late, does not say so.
"""

from __future__ import annotations

import argparse
import logging
import math
import random
import sys
import time
from collections import defaultdict
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icr_rag import Document, Ranking, Reranker
from icr_rag.deadline import Pace
from icr_rag.evaluation.datasets import load_beir
from icr_rag.evaluation.environment import hardware, versions
from icr_rag.evaluation.runs import read_run

LIKELIHOOD = {"scoring": "likelihood"}
KEPT = {"document_states": "independent"}
METHODS: dict[str, dict[str, Any]] = {
    "attention, pointwise": {"framework": "pointwise"},
    "attention, pointwise, kept": {"framework": "pointwise", **KEPT},
    "attention, listwise": {"framework": "listwise"},
    "attention, listwise, kept": {"framework": "listwise", **KEPT},
    "attention, blind, read again": {
        "framework": "listwise", "document_states": "blind", "cascade": 5,
    },
    "attention, setwise": {"framework": "setwise"},
    "likelihood": LIKELIHOOD,
    "likelihood, kept": {**LIKELIHOOD, **KEPT},
    "likelihood, pairwise": {**LIKELIHOOD, "framework": "pairwise"},
    "mixed": {"scoring": "mixed"},
    "generation, listwise": {"scoring": "generation", "framework": "listwise"},
}  # fmt: skip
DEPTH = 20
THREADS = 3
#: What cannot be stopped once it has begun.
BATCHES = ("prompts", "token", "prompt", "encoded")


@dataclass
class Calls:
    """What came of a method's calls; milliseconds."""

    whole: int = 0
    part: int = 0
    nothing: int = 0
    unsaid: int = 0
    late: list[float] = field(default_factory=list)
    #: The longest of what cannot be stopped.
    batch: float = 0.0

    def add(self, ranking: Ranking, deadline: float, took: float) -> None:
        """Count one call."""
        unscored = len(ranking.usage.unscored)
        self.whole += ranking.degraded is None
        self.nothing += unscored == DEPTH
        self.part += ranking.degraded is not None and unscored < DEPTH
        late = took - deadline
        self.late.append(late)
        # Handing the answer over takes a moment behind the look at the clock.
        self.unsaid += ranking.degraded is None and (unscored > 0 or late > 1.0)

    @property
    def count(self) -> int:
        """How many."""
        return self.whole + self.part + self.nothing

    @property
    def worst(self) -> float:
        """Of the latest; 0 if none was late."""
        return max(0.0, *self.late)


class Watched(Pace):
    """A pace that tells how long the longest batch took."""

    def __init__(self, calls: Calls) -> None:
        super().__init__()
        self.calls = calls

    def note(self, kind: Hashable, amount: int, seconds: float) -> None:
        """See `Pace.note`."""
        super().note(kind, amount, seconds)
        if kind in BATCHES or isinstance(kind, tuple):
            self.calls.batch = max(self.calls.batch, 1000 * seconds)


def ranker(fields: dict[str, Any], calls: Calls, dtype: str) -> Reranker:
    """A reranker that is warm, and whose batches are watched."""
    made = Reranker(dtype=dtype, max_document_tokens=128, **fields).warm_up()
    for scorer in made._scorers.made or ():
        if scorer is not None:
            scorer.pace = Watched(calls)
    return made.warm_up()


def run(rankers: dict[str, Reranker], lists: list[tuple[str, list[Document]]],
        found: dict[str, Calls], number: int, draw: random.Random) -> None:  # fmt: skip
    """All calls, in an order of their own."""

    def call(name: str, query: str, documents: list[Document], deadline: float) -> None:
        started = time.perf_counter()
        ranking = rankers[name].rank(query, documents, deadline_ms=deadline)
        took = 1000 * (time.perf_counter() - started)
        assert sorted(hit.index for hit in ranking) == list(range(len(documents)))
        found[name].add(ranking, deadline, took)

    plan = [
        (name, *draw.choice(lists), math.exp(draw.uniform(0.0, math.log(2000.0))))
        for name in (draw.choice(list(rankers)) for _ in range(number))
    ]
    alone = 2 * number // 3
    for item in plan[:alone]:
        call(*item)
    with ThreadPoolExecutor(THREADS) as threads:
        for done in [threads.submit(call, *item) for item in plan[alone:]]:
            done.result()


def main() -> int:
    """The table; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="a BEIR folder with run.bm25.top100.tsv")
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--lists", type=int, default=6)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.getLogger("icr_rag").setLevel(logging.ERROR)
    data = load_beir(arguments.folder)
    candidates = read_run(arguments.folder / "run.bm25.top100.tsv")
    draw = random.Random(arguments.seed)  # not for secrets
    chosen = draw.sample(sorted(set(candidates) & set(data.queries)), arguments.lists)
    lists = [
        (data.queries[query], [data.documents[name] for name in candidates[query][:DEPTH]])
        for query in chosen
    ]
    found: dict[str, Calls] = defaultdict(Calls)
    rankers = {}
    for name, fields in METHODS.items():
        rankers[name] = ranker(fields, found[name], arguments.dtype)
        # As after some time of use: it is known what a batch takes.
        rankers[name].rank(*lists[0], deadline_ms=3000.0)
        if "document_states" in fields:
            for _, documents in lists[: len(lists) // 2]:
                rankers[name].encode(documents)
        print(f"{name}: ready", file=sys.stderr)
    started = time.perf_counter()
    run(rankers, lists, found, arguments.calls, draw)

    print("| method | calls | whole | in part | given order | latest, ms | longest batch, ms | "
          "latest, in batches | unsaid |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    wrong = 0
    for name, calls in found.items():
        shares = [f"{one / max(1, calls.count):.0%}"
                  for one in (calls.whole, calls.part, calls.nothing)]  # fmt: skip
        batches = calls.worst / calls.batch
        print(f"| {name} | {calls.count} | {' | '.join(shares)} | {calls.worst:.1f} | "
              f"{calls.batch:.0f} | {batches:.2f} | {calls.unsaid} |")  # fmt: skip
        wrong += calls.unsaid + (batches > 1)
    late = sorted(one for calls in found.values() for one in calls.late)
    in_time = sum(one <= 0 for one in late)
    median = _median([one for one in late if one > 0])
    took = time.perf_counter() - started
    print(f"\n{len(late)} calls in {took:.0f} s; {in_time} in time; median of the others: ", end="")
    print(f"{median:.2f} ms late")
    print(f"{hardware()}; {versions()}")
    return 1 if wrong else 0


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0


if __name__ == "__main__":
    sys.exit(main())
