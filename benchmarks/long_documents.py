"""Where in a long document the answer stands: passages against cutting and reading all.

    python benchmarks/long_documents.py ../shared/data/scifact --queries 40 --depth 20

Each candidate's abstract is put at the start, in the middle or at the end of a long document, whose
rest are abstracts that have nothing to do with the query (neither among its candidates nor judged
for it), drawn with a seed. Per method and way of reading:

- nDCG@10 of BM25's first candidates, the ideal taken among them, for the queries that have a
  relevant and another one there; 95 % intervals by bootstrap over the queries;
- seconds per query, medians: cold, with all documents new, and warm, with their states kept;
- MiB of states kept for one query's documents, and how many passages these are.

Nothing of the first stage is in the scores. With ``--json`` an interrupted run goes on where it
was.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from icr_rag import Document, Reranker
from icr_rag.evaluation.datasets import Dataset, load_beir
from icr_rag.evaluation.environment import device_of, hardware, versions
from icr_rag.evaluation.runs import read_run
from icr_rag.scoring.base import KeepsStates

METHODS: dict[str, dict[str, Any]] = {
    "query likelihood": {"scoring": "likelihood"},
    "pointwise attention": {"scoring": "attention", "framework": "pointwise"},
}
POSITIONS = ("start", "middle", "end")
SAMPLES = 1000
#: What differences are taken to, and what reads the same passages just after it.
BASE, SHARING = "passages, max", ("passages, top2",)


def ways(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """How documents are read -> its settings. The second of both kinds of passages finds the
    states of the first, and so is never cold."""
    split = {"passage_tokens": arguments.passage_tokens,
             "passage_overlap": arguments.passage_overlap}  # fmt: skip
    return {
        "passages, max": {"passages": "max", **split},
        "passages, top2": {"passages": "top2", **split},
        **{f"cut to {most}": {"max_document_tokens": most} for most in arguments.cuts},
        "whole": {},
    }


def long_document(own: str, rest: Sequence[str], position: str) -> str:
    """An abstract among others."""
    before = {"start": 0, "middle": len(rest) // 2, "end": len(rest)}[position]
    return "\n\n".join([*rest[:before], own, *rest[before:]])


def fillers(data: Dataset, taken: set[str], own: str, tokens: int, reranker: Reranker) -> list[str]:
    """Abstracts that make a document of about so many tokens, always the same for one abstract."""
    names = sorted(set(data.documents) - taken)
    draw = random.Random(own)  # not for secrets
    found: list[str] = []
    size = len(reranker.tokenizer(own)["input_ids"])
    while size < tokens:
        found.append(data.documents[draw.choice(names)].content)
        size += len(reranker.tokenizer(found[-1])["input_ids"])
    return found


def ndcg(order: Sequence[int], grades: Sequence[int]) -> float:
    """nDCG@10, the ideal among these."""

    def gain(ranked: Sequence[int]) -> float:
        return sum(grade / math.log2(rank + 2) for rank, grade in enumerate(ranked[:10]))

    return gain([grades[place] for place in order]) / gain(sorted(grades, reverse=True))


def interval(values: Sequence[float]) -> str:
    """Mean and 95 % interval."""
    draw = random.Random(0)  # not for secrets
    drawn = [statistics.fmean(draw.choices(values, k=len(values))) for _ in range(SAMPLES)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{statistics.fmean(values):.3f} ({low:.3f} to {high:.3f})"


def differences(systems: Sequence[System]) -> list[str]:
    """Per method, passages against the other ways: of each query's mean over the positions, and
    over those that stand behind a cut."""

    def means(system: System, positions: Sequence[str]) -> list[float]:
        rows = (system.values[position] for position in positions)
        return [statistics.fmean(own) for own in zip(*rows, strict=True)]

    lines = []
    for base in (system for system in systems if system.way == BASE):
        for other in systems:
            if other.method == base.method and other is not base:
                gaps = [
                    interval(np.subtract(means(base, own), means(other, own)).tolist())
                    for own in (POSITIONS, POSITIONS[1:])
                ]
                lines.append(f"{base.method}, {BASE} minus {other.way}: {gaps[0]}; "
                             f"middle and end {gaps[1]}")  # fmt: skip
    return lines


class System:
    """One method that reads in one way."""

    def __init__(self, method: str, way: str, settings: dict[str, Any]) -> None:
        self.method, self.way = method, way
        self.reranker = Reranker(
            **METHODS[method], **settings, fusion="none", document_states="independent"
        )
        self.reranker.warm_up()
        self.values: dict[str, list[float]] = {position: [] for position in POSITIONS}
        self.cold: list[float] = []
        self.warm: list[float] = []
        self.mib: list[float] = []
        self.passages: list[int] = []

    def add(self, position: str, query: str, documents: list[Document], grades: list[int]) -> None:
        """Rank one query's documents, cold and warm."""
        scorer = self.reranker.scorer
        assert isinstance(scorer, KeepsStates)
        assert scorer.states is not None
        store = scorer.states.store
        before, evicted = store.held_bytes, scorer.states.evictions
        started = time.perf_counter()
        ranking = self.reranker.rank(query, documents)
        again = time.perf_counter()
        self.reranker.rank(query, documents)
        self.warm.append(time.perf_counter() - again)
        self.values[position].append(ndcg([hit.index for hit in ranking], grades))
        self.passages.append(ranking.usage.passages or len(documents))
        # Documents with the same rest share passages, so that only the first of them are all new.
        if position == POSITIONS[0] and self.way not in SHARING:
            self.cold.append(again - started)
            if scorer.states.evictions == evicted:
                self.mib.append((store.held_bytes - before) / 2**20)


def resume(systems: Sequence[System], path: Path | None) -> int:
    """Take over what a file has of these systems; returns how many queries that is."""
    if path is None or not path.is_file():
        return 0
    rows = json.loads(path.read_text(encoding="utf-8"))["results"]
    kept = {(row["method"], row["read"]): row for row in rows}
    if set(kept) != {(system.method, system.way) for system in systems}:
        raise SystemExit(f"{path} has other systems; name another file")
    for system in systems:
        row = kept[system.method, system.way]
        system.values, system.cold, system.warm = row["nDCG@10"], row["cold"], row["warm"]
        system.mib, system.passages = row["MiB"], row["passages"]
    return len(systems[0].values[POSITIONS[-1]])


def save(systems: Sequence[System], arguments: argparse.Namespace) -> str:
    """All numbers so far as JSON, in a file if one is asked for."""
    found = [
        {"method": system.method, "read": system.way, "nDCG@10": system.values,
         "cold": system.cold, "warm": system.warm, "MiB": system.mib,
         "passages": system.passages, "device": device_of(system.reranker)}
        for system in systems
    ]  # fmt: skip
    told = {"arguments": vars(arguments), "hardware": hardware(), "versions": versions(),
            "results": found}  # fmt: skip
    text = json.dumps(told, indent=2, default=str)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return text


def measure(folder: Path, arguments: argparse.Namespace) -> list[System]:
    """All systems, interleaved, so that a busy machine disturbs all alike."""
    data, run = load_beir(folder), read_run(folder / "run.bm25.top100.tsv")
    common = {"dtype": arguments.dtype, "states_memory": arguments.states_memory}
    systems = [
        System(method, way, {**settings, **common})
        for method in arguments.methods
        for way, settings in ways(arguments).items()
    ]
    queries = [query for query in data.judged_queries if query in run]
    random.Random(0).shuffle(queries)
    started, done = time.perf_counter(), 0
    known = resume(systems, arguments.json)
    for query in queries:
        names = run[query][: arguments.depth]
        grades = [max(0, data.judgements[query].get(name, 0)) for name in names]
        if not any(grades) or all(grades):
            continue
        if done == arguments.queries:
            break
        done += 1
        if done <= known:
            continue
        taken = {*run[query], *data.judgements[query]}
        owns = [data.documents[name].content for name in names]
        rests = [
            fillers(data, taken, own, arguments.document_tokens, systems[0].reranker)
            for own in owns
        ]
        for position in POSITIONS:
            documents = [
                Document(long_document(own, rest, position))
                for own, rest in zip(owns, rests, strict=True)
            ]
            for system in systems:
                system.add(position, data.queries[query], documents, grades)
        # After each query, so that an interruption loses one at most.
        save(systems, arguments)
        print(f"{done}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return systems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="BEIR, with run.bm25.top100.tsv")
    parser.add_argument("--queries", type=int, default=40, help="drawn with a seed")
    parser.add_argument("--depth", type=int, default=20, help="candidates of each query")
    parser.add_argument("--document-tokens", type=int, default=3000)
    parser.add_argument("--passage-tokens", type=int, default=256)
    parser.add_argument("--passage-overlap", type=int, default=0)
    parser.add_argument("--cuts", type=int, nargs="*", default=[256, 512])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--states-memory", type=int, default=8192, help="MiB")
    parser.add_argument("--json", type=Path, help="where the numbers go, too")
    arguments = parser.parse_args()

    # That documents are cut is what is measured.
    logging.getLogger("icr_rag").setLevel(logging.ERROR)
    systems = measure(arguments.folder, arguments)
    print("| method | read | " + " | ".join(f"answer at the {p}" for p in POSITIONS)
          + " | passages | cold, s | warm, s | states, MiB |")  # fmt: skip
    print("|---|---|" + "---|" * (len(POSITIONS) + 4))
    for system in systems:
        cells = [interval(system.values[position]) for position in POSITIONS]
        cells += [f"{statistics.fmean(system.passages):.0f}"]
        cells += [
            f"{statistics.median(own):.2f}" if own else "as above"
            for own in (system.cold, system.warm)
        ]
        cells += [f"{statistics.fmean(system.mib):.0f}" if system.mib else "as above"]
        print(f"| {system.method} | {system.way} | {' | '.join(cells)} |")
    print("\n".join(differences(systems)))
    print(save(systems, arguments))


if __name__ == "__main__":
    main()
