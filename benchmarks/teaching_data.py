"""What heads are taught and measured on: queries of unlike domains, and what heads read there.

`domains` has the queries, in families of which one can be left out: claims about science, questions
that share no words with their theorem, German questions, and what `benchmarks/teaching_texts.py`
takes from documentation. Labels of scifact's odd ids, theoremqa and xquadr-de are for measuring
only; their even ids' queries teach, theoremqa's and xquadr-de's without labels (`PARTS`).

    python benchmarks/teaching_data.py DATA TEXTS --out readings --reading mixed

reads every head of every layer for all of them and keeps it; interrupted, the same command goes on.
``--reading peers`` writes what others say of all pairs: the cosine of all-MiniLM-L6-v2
(MiniLM.jsonl), a stand-in for the scores of a dense first stage or of any service, and
1 / (rank + 10) in BM25's order (BM25.jsonl).
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from absolute import minilm

from icr_rag import Reranker, RerankerConfig
from icr_rag.evaluation.datasets import load_beir
from icr_rag.evaluation.grid_config import QuerySubset
from icr_rag.evaluation.grid_data import choose_queries, only_run
from icr_rag.evaluation.runs import read_run
from icr_rag.profiling.collect import profiling_config
from icr_rag.profiling.queries import label_free
from icr_rag.profiling.resume import Task, collect_or_resume, read_order
from icr_rag.profiling.samples import Sample, load_samples

#: Ways of reading, and their settings. "mixed" has the likelihoods, of the same pass.
READINGS: dict[str, dict[str, Any]] = {
    "mixed": {"scoring": "mixed", "framework": "pointwise"},
    "shared": {"scoring": "attention", "framework": "listwise", "document_states": "independent"},
    "blind": {"scoring": "attention", "framework": "listwise", "document_states": "blind"},
    "joint": {"scoring": "attention", "framework": "listwise"},
}
#: Titles and sentences of scifact's documents, which ask for the rest.
ABSTRACTS = "scifact's abstracts"
#: Written beside them.
PEERS = "peers"
#: Of the rank in BM25's order, as the library counts it.
OFFSET = 10


@dataclass(frozen=True)
class Part:
    """Queries of one family: some that teach, some that are measured; some are both, where the
    family's heads are measured by those that the others taught.

    Attributes:
        path: below DATA, or below TEXTS; or `ABSTRACTS`.
        parity: "even" or "odd" ids; None: all.
        labels: whether its labels may teach.
    """

    family: str
    path: str
    parity: str | None
    teaches: bool
    labels: bool
    measured: bool


PARTS = (
    Part("scifact", "scifact", "even", True, True, False),
    Part("scifact", ABSTRACTS, None, True, True, False),
    Part("scifact", "scifact", "odd", False, False, True),
    Part("theoremqa", "theoremqa", "even", True, False, False),
    Part("theoremqa", "theoremqa", "odd", False, False, True),
    Part("xquadr-de", "xquadr-de", "even", True, False, False),
    Part("xquadr-de", "xquadr-de", "odd", False, False, True),
    Part("faq", "faq", None, True, True, True),
    Part("manuals", "manuals", None, True, True, True),
    Part("reference", "reference", None, True, True, True),
    Part("code", "code", None, True, True, True),
)


def name_of(part: Part) -> str:
    return part.path if part.parity is None else f"{part.family}, {part.parity}"


def domains(data: Path, texts: Path, count: int, depth: int) -> list[Task]:
    """All parts as tasks.

    Args:
        count: most queries of each; twice as many of those that teach by labels.
        depth: most candidates.
    """
    tasks = []
    for part in PARTS:
        most = 2 * count if part.teaches and part.labels else count
        if part.path == ABSTRACTS:
            tasks.append(abstracts(data, most))
            continue
        folder = (texts if part.parity is None else data) / part.path
        run = read_run(only_run(folder))
        keep = {name for names in run.values() for name in names[:depth]}
        dataset = load_beir(folder, keep=keep)
        subset = QuerySubset(parity=part.parity, limit=most)
        queries = choose_queries(dataset.judged_queries, subset)
        chosen = tuple(query for query in queries if run.get(query))
        tasks.append(Task(name_of(part), dataset, run, chosen, depth))
    return tasks


def graded(task: Task, query: str, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Grades of these documents, and all positive ones of the query, the highest first."""
    judged = task.dataset.judgements[query]
    grades = np.array([max(0, judged.get(name, 0)) for name in names])
    return grades, np.array(sorted((grade for grade in judged.values() if grade > 0), reverse=True))


def abstracts(data: Path, count: int) -> Task:
    """Label-free queries."""
    documents = load_beir(data / "scifact").documents
    found, run = label_free(
        documents, kinds=("title", "sentence"), count=count, depth=10, name=ABSTRACTS
    )
    return Task(ABSTRACTS, found, run, tuple(found.queries), 10, label_free=True)


def of_reading(config: RerankerConfig, reading: str) -> RerankerConfig:
    return profiling_config(config.switched(**READINGS[reading]))


def stored(folder: Path, reading: str) -> list[Sample]:
    """What `read` kept, all parts; empty: nothing."""
    return [s for path in sorted((folder / reading).glob("*.npz")) for s in load_samples(path)]


def read(config: RerankerConfig, reading: str, tasks: Sequence[Task], out: Path) -> None:
    """Keep in ``out`` what is not there; a file for each part, so that reading one part leaves the
    others as they are."""
    (out / reading).mkdir(exist_ok=True)
    started = time.perf_counter()

    with Reranker(of_reading(config, reading)) as reranker:
        for task in tasks:

            def show(finished: int, count: int, name: str = task.name) -> None:
                if finished % 10 == 0 or finished == count:
                    seconds = time.perf_counter() - started
                    print(f"{reading}, {name}: {finished} of {count}, {seconds:.0f} s", flush=True)

            collect_or_resume(reranker, [task], out / reading / f"{task.name}.npz", progress=show)


def write_peers(tasks: Sequence[Task], out: Path) -> None:
    """A line of "query_id", "doc_id" and "score" for each pair, in a file each."""
    rows: dict[str, list[dict[str, str | float]]] = {"MiniLM": [], "BM25": []}
    for task in tasks:
        score = minilm(task.dataset.documents)
        for query in task.queries:
            names = read_order(task, query)
            cosines = score(query, task.dataset.queries[query], names).tolist()
            order = list(task.candidates[query])
            places = [1 / (order.index(name) + 1 + OFFSET) for name in names]
            for label, found in (("MiniLM", cosines), ("BM25", places)):
                rows[label] += [
                    {"query_id": query, "doc_id": name, "score": round(value, 6)}
                    for name, value in zip(names, found, strict=True)
                ]
    for label, lines in rows.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (out / f"{label}.jsonl").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of scifact, theoremqa, xquadr-de")
    parser.add_argument("texts", type=Path, help="what benchmarks/teaching_texts.py wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--reading", nargs="+", choices=[*READINGS, PEERS],
                        default=[*READINGS, PEERS])  # fmt: skip
    parser.add_argument(
        "--queries",
        type=int,
        default=40,
        help="most of each part; twice as many where labels teach",
    )
    parser.add_argument("--parts", nargs="+", help="names, to read some only")
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--max-document-tokens", type=int, default=192)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    arguments.out.mkdir(parents=True, exist_ok=True)
    config = RerankerConfig(
        model=arguments.model,
        dtype=arguments.dtype,
        max_document_tokens=arguments.max_document_tokens,
    )
    tasks = domains(arguments.data, arguments.texts, arguments.queries, arguments.depth)
    if arguments.parts:
        tasks = [task for task in tasks if task.name in arguments.parts]
    if PEERS in arguments.reading:
        write_peers(tasks, arguments.out)
        arguments.reading.remove(PEERS)
    # A few of each part first, so that an interruption leaves something of all.
    for count in (5, 20, arguments.queries):
        part = [
            replace(task, queries=task.queries[: count * len(task.queries) // arguments.queries])
            for task in tasks
        ]
        for reading in arguments.reading:
            read(config, reading, part, arguments.out)


if __name__ == "__main__":
    main()
