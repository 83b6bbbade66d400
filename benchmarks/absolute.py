"""Do scores compare across queries, and tell lists with an answer from lists without?

    python benchmarks/absolute.py ../shared/data/scifact ../shared/data/xquadr-de --queries 60

Per data set, over the first candidates of each query:

- pooled AUC: of all (query, document) pairs thrown together, how often a relevant one has a higher
  score than one that is not. A score that shifts from query to query loses here;
- abstention AUROC: lists with a relevant document against the same lists without these, told apart
  by the best score or by how far it is above the median.

Scores are those of `Reranker.rank`, with nothing of the first stage in them. Lists without their
relevant documents are ranked again where scores are relative to the list. Intervals: 95 %, by
bootstrap over the queries.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from icr_rag import Document, Reranker
from icr_rag.evaluation.datasets import load_beir
from icr_rag.evaluation.environment import device_of, hardware, versions
from icr_rag.evaluation.runs import read_run

#: Kept, so that a list's second ranking costs the query's tokens only.
KEPT = {"document_states": "independent", "states_memory": 256}
#: System -> its settings.
SYSTEMS: dict[str, dict[str, Any]] = {
    "query likelihood": {"scoring": "likelihood", **KEPT},
    "pointwise attention": {"scoring": "attention", "framework": "pointwise", **KEPT},
    "mixed": {"scoring": "mixed", **KEPT},
    "yes/no": {"scoring": "likelihood", "likelihood": "yes_no"},
}
#: Those whose raw scores depend on the other documents.
RELATIVE = ("pointwise attention", "mixed")
SAMPLES = 1000


@dataclass(frozen=True)
class Listed:
    """Scores of one query's candidates.

    Attributes:
        scores: one per candidate. relevant: likewise.
        without: scores of the list without its relevant candidates; empty where none is.
    """

    scores: np.ndarray
    relevant: np.ndarray
    without: np.ndarray


def read(
    reranker: Reranker, query: str, documents: Sequence[Document], relevant: np.ndarray, again: bool
) -> Listed:
    """One list, and the same without what is relevant."""
    scores = np.array(reranker.rank(query, documents).scores)
    rest = np.flatnonzero(~relevant)
    if relevant.all() or not relevant.any():
        return Listed(scores, relevant, np.empty(0))
    if again:
        ranking = reranker.rank(query, [documents[place] for place in rest])
        return Listed(scores, relevant, np.array(ranking.scores))
    return Listed(scores, relevant, scores[rest])


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """How often a positive is above a negative, ties count half; NaN where one of them lacks."""
    if not len(positive) or not len(negative):
        return math.nan
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left")
    up_to = np.searchsorted(ordered, positive, "right")
    return float((below + up_to).sum() / 2 / (len(positive) * len(negative)))


def pooled(lists: Sequence[Listed]) -> float:
    """Over all pairs of a query and a document."""
    scores = np.concatenate([one.scores for one in lists])
    relevant = np.concatenate([one.relevant for one in lists])
    return auc(scores[relevant], scores[~relevant])


def abstention(lists: Sequence[Listed], of: Callable[[np.ndarray], float]) -> float:
    """Lists with an answer against the same without."""
    both = [(of(one.scores), of(one.without)) for one in lists if len(one.without)]
    having, lacking = np.array(both).reshape(-1, 2).T
    return auc(having, lacking)


def top(scores: np.ndarray) -> float:
    """The best score."""
    return float(scores.max())


def lead(scores: np.ndarray) -> float:
    """How far the best is above the median."""
    return float(scores.max() - np.median(scores))


MEASURES: dict[str, Callable[[Sequence[Listed]], float]] = {
    "pooled AUC": pooled,
    "abstention by the top score": lambda lists: abstention(lists, top),
    "abstention by top minus median": lambda lists: abstention(lists, lead),
}


def with_interval(
    measure: Callable[[Sequence[Listed]], float], lists: Sequence[Listed]
) -> tuple[float, float, float]:
    """The measure, and its 95 % interval by bootstrap over the queries."""
    draw = random.Random(0)  # not for secrets
    drawn = [measure(draw.choices(lists, k=len(lists))) for _ in range(SAMPLES)]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return measure(lists), float(low), float(high)


def log_odds(probability: float) -> float:
    """What yes/no has as its raw score."""
    inside = min(max(probability, 1e-15), 1 - 1e-15)
    return math.log(inside / (1 - inside))


class System:
    """A way of scoring in both modes."""

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        self.name = name
        self.raw = Reranker(**SYSTEMS[name], fusion="none", **settings)
        self.explained = self.raw.with_config(score_mode="explained")
        self.lists: dict[str, list[Listed]] = {"raw": [], "explained": []}
        self.seconds = 0.0
        self.explained.warm_up()

    def add(self, query: str, documents: Sequence[Document], relevant: np.ndarray) -> None:
        """Score one query's candidates."""
        started = time.perf_counter()
        found = read(self.explained, query, documents, relevant, again=False)
        if self.name == "yes/no":
            # The same numbers on another scale: no second pass for these.
            scores, without = (
                np.array([log_odds(value) for value in values])
                for values in (found.scores, found.without)
            )
            raw = Listed(scores, relevant, without)
        else:
            raw = read(self.raw, query, documents, relevant, again=self.name in RELATIVE)
        self.lists["raw"].append(raw)
        self.lists["explained"].append(found)
        self.seconds += time.perf_counter() - started


def measure(folder: Path, arguments: argparse.Namespace) -> list[System]:
    """All systems on one data set."""
    data, run = load_beir(folder), read_run(folder / "run.bm25.top100.tsv")
    queries = [query for query in data.judged_queries if query in run]
    random.Random(0).shuffle(queries)
    settings = {"dtype": arguments.dtype, "max_document_tokens": arguments.max_document_tokens}
    # Together, because those that read all layers share what is kept.
    systems = [System(name, settings) for name in arguments.systems]
    for number, query in enumerate(queries[: arguments.queries], start=1):
        names = run[query][: arguments.depth]
        relevant = np.array([data.judgements[query].get(name, 0) > 0 for name in names])
        documents = [data.documents[name] for name in names]
        for system in systems:
            system.add(data.queries[query], documents, relevant)
        print(f"{data.name}: {number}", file=sys.stderr, flush=True)
    return systems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="BEIR, with run.bm25.top100.tsv")
    parser.add_argument("--queries", type=int, default=60, help="of each set, drawn with a seed")
    parser.add_argument("--depth", type=int, default=20, help="candidates of each query")
    parser.add_argument("--max-document-tokens", type=int)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--json", type=Path, help="where the numbers go, too")
    arguments = parser.parse_args()

    found: list[dict[str, Any]] = []
    print(f"| data | system | scores | {' | '.join(MEASURES)} |")
    print("|---|---|---|" + "---|" * len(MEASURES))
    for folder in arguments.folders:
        for system in measure(folder, arguments):
            for mode, own in system.lists.items():
                values = {key: with_interval(of, own) for key, of in MEASURES.items()}
                cells = [f"{v:.3f} ({low:.3f} to {high:.3f})" for v, low, high in values.values()]
                print(f"| {folder.name} | {system.name} | {mode} | {' | '.join(cells)} |")
                found.append(
                    {"data": folder.name, "system": system.name, "scores": mode,
                     "queries": len(own), "relevant": int(sum(one.relevant.sum() for one in own)),
                     "lists with an answer": sum(len(one.without) > 0 for one in own), **values,
                     "seconds": round(system.seconds, 1), "device": device_of(system.explained)}
                )  # fmt: skip
        sys.stdout.flush()
        told = {"arguments": vars(arguments), "hardware": hardware(), "versions": versions(),
                "results": found}  # fmt: skip
        text = json.dumps(told, indent=2, default=str)
        # After each data set, so that an interruption loses one at most.
        if arguments.json is not None:
            arguments.json.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
