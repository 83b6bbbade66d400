"""Fit the calibrations and abstention weights of the embedded model that ship in icr_rag/profiles.

    python benchmarks/make_calibration.py ../shared/data/scifact --out results/calibration

Explained scores of two kinds of queries, each with 20 candidates:

- labelled: claims of scifact with even ids (the odd ones are kept for the test), BM25's top 20;
- label-free: pieces of scifact's abstracts, with BM25's hard negatives.

The heads that ship were learned on even ids, too. Scores are kept in the folder, a line per query
and method; interrupted, the same command goes on. Then everything is fitted in seconds, and written
into the profiles that ship, or into those of ``--profiles FOLDER``; ``--without label-free`` or
``labelled`` leaves a kind of queries out, to compare.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from icr_rag import Reranker, RerankerConfig
from icr_rag.errors import ICRError
from icr_rag.evaluation.datasets import load_beir
from icr_rag.evaluation.environment import hardware
from icr_rag.evaluation.grid_config import QuerySubset
from icr_rag.evaluation.grid_data import choose_queries, only_run
from icr_rag.evaluation.runs import read_run
from icr_rag.profiles import Profile, shipped
from icr_rag.profiling.calibrate import KINDS, ScoredList, fit
from icr_rag.profiling.queries import label_free
from icr_rag.profiling.resume import Task
from icr_rag.profiling.score_lists import (
    calibrated,
    heads_to_calibrate,
    score_lists,
    scoring_config,
)

#: Kept states cost a document once for all that read it, and leave scores as they are.
KEPT = {"document_states": "independent", "states_memory": 512}
METHODS: dict[str, dict[str, Any]] = {
    "likelihood.query": {"scoring": "likelihood", **KEPT},
    "mixed.pointwise": {"scoring": "mixed", **KEPT},
    "attention.pointwise": {"scoring": "attention", "framework": "pointwise", **KEPT},
    "likelihood.yes_no": {"scoring": "likelihood", "likelihood": "yes_no"},
}
SHIPPED = Path(shipped.__file__).parent
HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
DEPTH = 20
LABELLED, FREE = "labelled", "label-free"
TEXTS = {
    LABELLED: "scifact, claims with even ids, BM25's top 20",
    FREE: "titles, sentences and passages of scifact's abstracts, hard negatives by BM25",
}


def tasks(folder: Path, labelled: int, free: int) -> list[Task]:
    """Both kinds of queries."""
    data, run = load_beir(folder), read_run(only_run(folder))
    chosen = choose_queries(data.judged_queries, QuerySubset(parity="even", limit=labelled))
    documents = dict(islice(data.documents.items(), 2500))
    own, candidates = label_free(documents, count=free, depth=DEPTH, seed=1, name=FREE)
    return [
        Task(LABELLED, data, run, chosen, DEPTH),
        Task(FREE, own, candidates, tuple(own.queries), DEPTH, label_free=True),
    ]


def scored(
    found: list[Task], names: list[str], path: Path, dtype: str, tokens: int
) -> dict[str, list[ScoredList]]:
    """Method -> lists; those in the file are taken from there."""
    kept = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    known = {(row["method"], row["query"]): row for row in kept}
    rerankers = {
        name: Reranker(
            scoring_config(RerankerConfig(dtype=dtype, max_document_tokens=tokens, **METHODS[name]))
        )
        for name in names
    }
    lists: dict[str, list[ScoredList]] = {name: [] for name in names}
    for task in found:
        for query in task.queries:
            for name in names:
                if (name, query) not in known:
                    (one,) = score_lists(rerankers[name], [replace(task, queries=[query])])
                    row = {
                        "method": name,
                        "query": query,
                        "group": task.name,
                        "scores": one.scores.tolist(),
                        "relevant": one.relevant.tolist(),
                    }
                    known[name, query] = row
                    with path.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(f"{task.name} {query}: {name}", file=sys.stderr, flush=True)
                row = known[name, query]
                lists[name].append(
                    ScoredList(query, task.name, np.array(row["scores"]), np.array(row["relevant"]))
                )
    return lists


def ship(name: str, profile: Profile, folder: Path) -> None:
    """Write what was fitted into the profile of this name, or a new one."""
    path = folder / f"smollm2-135m.{name}.json"
    if profile.heads and path.is_file():
        fitted = {"calibration": profile.calibration, "abstention": profile.abstention}
        profile = Profile.load(path).model_copy(update=fitted)
    else:
        figures = profile.calibration.measured if profile.calibration else {}
        about = {
            "model": HUB_NAME,
            "data": profile.calibration.data if profile.calibration else {},
            "method": "SmolLM2-135M: a calibration alone, docs/absolute-scores.md",
            "measured": {"cross-validated": {**figures, "from": "benchmarks/make_calibration.py"}},
        }
        profile = profile.model_copy(update=about)
    profile.save(path)
    print(f"{path} is written", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scifact", type=Path, help="BEIR folder with a run.*")
    parser.add_argument("--out", type=Path, required=True, help="folder")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--labelled", type=int, default=40, help="queries")
    parser.add_argument("--label-free", type=int, default=16, help="queries")
    parser.add_argument("--without", choices=TEXTS, help="a kind of queries that is left out")
    parser.add_argument("--kind", choices=KINDS, default="logistic")
    parser.add_argument("--max-document-tokens", type=int, default=192)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--profiles", type=Path, default=SHIPPED, help="where they are written")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = tasks(arguments.scifact, arguments.labelled, arguments.label_free)
    tokens = arguments.max_document_tokens
    lists = scored(
        found, arguments.methods, arguments.out / "scores.jsonl", arguments.dtype, tokens
    )
    report: dict[str, Any] = {"hardware": hardware()}
    for name, own in lists.items():
        used = [one for one in own if one.group != arguments.without]
        data = {
            "texts": {kind: text for kind, text in TEXTS.items() if kind != arguments.without},
            "queries of each": {kind: sum(one.group == kind for one in used) for kind in TEXTS},
            "depth": DEPTH,
            "max_document_tokens": tokens,
            "from": "benchmarks/make_calibration.py",
        }
        config = scoring_config(
            RerankerConfig(dtype=arguments.dtype, max_document_tokens=tokens, **METHODS[name])
        )
        with Reranker(config) as reranker:
            try:
                fitted = fit(used, arguments.kind, reranker.scorer.basis(), data)
            except ICRError as error:
                report[name] = str(error)
                print(f"{name} gets no calibration: {error}", flush=True)
                continue
            heads = heads_to_calibrate(config, reranker.engine.text_config)
            ship(name, calibrated(reranker, fitted, heads), arguments.profiles)
        report[name] = {
            "relevance": fitted.calibration.measured,
            "answerable": fitted.abstention.measured if fitted.abstention else None,
        }
    (arguments.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
