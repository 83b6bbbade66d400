"""Learn the profiles of the embedded model that ship in icr_rag/profiles.

    python benchmarks/make_profile.py ../shared/data/scifact --out results/embedded
    python benchmarks/make_profile.py ../shared/data/scifact --out results/shared --tail shared
    python benchmarks/make_profile.py ../shared/data/scifact --out results/blind --tail blind

The first for pointwise reading, attention alone and mixed; the others for one tail that all
documents share, encoded independently of each other, and for one that does not see them; what ships
of these two was learned with ``--count 60`` and ``--count 40``. Profiles are written to where they
ship, or to ``--profiles FOLDER``.

Four kinds of queries, pooled so that the weights hold beyond one collection:

- labelled: claims of scifact with even ids (those with odd ids are kept for the test), BM25 top 20;
- title and sentence: label-free, from scifact's abstracts;
- docstrings: label-free, from the docstrings of Python's standard library, NumPy and torch;
- passage: label-free and long, two to four sentences of either.

Every head of every layer is read for each of them, an hour or less on two cores; interrupted, the
same command goes on. Then weights are fitted in seconds, once on all kinds and once with each kind
left out and measured on it. Figures that other programs measured stay in a file whose weights come
out the same, and go with weights that change.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import inspect
import json
import warnings
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from icr_rag import Document, Reranker, RerankerConfig
from icr_rag.evaluation.datasets import load_beir
from icr_rag.evaluation.environment import versions
from icr_rag.evaluation.grid_config import QuerySubset
from icr_rag.evaluation.grid_data import choose_queries, only_run
from icr_rag.evaluation.harness import Setting, given_order
from icr_rag.evaluation.runs import read_run
from icr_rag.frameworks.evidence import FIRST_STAGE_WEIGHT
from icr_rag.profiles import HeadWeight, Profile, Shape, shipped
from icr_rag.profiling.collect import profiling_config
from icr_rag.profiling.crossval import Selector, likelihood_weight
from icr_rag.profiling.curve import measure_ranking
from icr_rag.profiling.queries import label_free
from icr_rag.profiling.resume import Task, collect_or_resume
from icr_rag.profiling.samples import Sample, standardise
from icr_rag.profiling.weights import learn_weights, score

#: Chosen with each kind of queries left out in turn; nothing above layer 21 leaves a quarter of
#: the layers unrun.
L2, SIZE, MAX_LAYER = 20.0, 64, 21
#: What is compared with each kind left out.
READ = (("log_mass",), ("lift",), ("max",), ("log_mass", "lift"), ("log_mass", "lift", "max"))
PROMPTS = {
    "per document": {"framework": "pointwise"},
    "shared": {"framework": "listwise", "document_states": "independent"},
    "blind": {"framework": "listwise", "document_states": "blind"},
}

SHIPPED = Path(shipped.__file__).parent
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
SHAPE = Shape(model_type="llama", num_hidden_layers=30, hidden_size=576, num_attention_heads=9)
METHOD = (
    f"SmolLM2-135M: {SIZE} head weights learned on half of scifact and on label-free queries, "
    "docs/study.md"
)
#: Name of the labelled queries, and what all are.
LABELLED = "labelled"
TEXTS = {
    LABELLED: "scifact, claims with even ids, BM25's top 20 shuffled",
    "title and sentence": "label-free, of scifact's abstracts",
    "docstrings": "label-free, of Python's standard library, NumPy and torch",
    "passage": "label-free, of both",
}
MEASURE = "nDCG@10, each kind of queries ranked by weights that were learned on the others"

#: Queries of each label-free kind, and labelled ones, whose likelihoods are computed.
LIKELIHOODS = (25, 40)

MODULES = (
    "argparse asyncio collections concurrent.futures contextlib csv datetime decimal difflib email "
    "fractions functools heapq html http inspect ipaddress itertools json logging multiprocessing "
    "numpy numpy.fft numpy.linalg numpy.ma numpy.random os pathlib pickle random re shutil socket "
    "sqlite3 statistics string subprocess tempfile textwrap threading time torch "
    "torch.distributions torch.nn torch.nn.functional torch.optim torch.utils.data typing unittest "
    "urllib.parse urllib.request uuid zipfile"
)


def docstrings() -> dict[str, Document]:
    """Summary lines as titles, with at least 50 words behind them."""
    found: dict[str, Document] = {}
    titles = set()
    for name in MODULES.split():
        module = importlib.import_module(name)
        for member in sorted(vars(module)):
            if member.startswith("_"):
                continue
            text = inspect.getdoc(getattr(module, member, None)) or ""
            first, _, rest = text.partition("\n\n")
            if text.startswith(member) or "(" in first.split(" ")[0]:
                # A signature stands before the summary.
                first, _, rest = rest.partition("\n\n")
            title, body = " ".join(first.split()), " ".join(rest.split())
            if 5 <= len(title.split()) <= 40 and len(body.split()) > 50 and title not in titles:
                titles.add(title)
                found[f"{name}.{member}"] = Document(body, title)
    return found


def tasks(folder: Path) -> list[Task]:
    """All kinds of queries."""
    run = read_run(only_run(folder))
    scifact = load_beir(folder)
    labelled = choose_queries(scifact.judged_queries, QuerySubset(parity="even", limit=100))
    strings = docstrings()
    both = {**strings, **dict(islice(scifact.documents.items(), 2500))}
    free = {
        "title and sentence": (scifact.documents, ("title", "sentence"), 80),
        "docstrings": (strings, ("title", "title", "sentence"), 100),
        "passage": (both, ("passage",), 70),
    }
    made = [Task(LABELLED, scifact, run, labelled, depth=20)]
    for seed, (name, (documents, kinds, count)) in enumerate(free.items()):
        data, found = label_free(
            documents, kinds=kinds, count=count, depth=10, seed=seed, name=name
        )
        made.append(Task(name, data, found, list(data.queries), depth=10, label_free=True))
    return made


def read(folder: Path, path: Path, tail: str, count: int | None) -> list[Sample]:
    """Readings of all queries; those that are in the file already are taken from there."""
    config = RerankerConfig(
        model="smollm2-135m",
        dtype="float32",
        max_document_tokens=192,
        **PROMPTS[tail],
    )
    chosen = [replace(task, queries=task.queries[:count]) for task in tasks(folder)]
    with Reranker(profiling_config(config)) as reranker:
        return collect_or_resume(reranker, chosen, path, progress=print_progress)


def print_progress(finished: int, count: int) -> None:
    if finished % 20 == 0 or finished == count:
        print(f"{finished} of {count}", flush=True)


def with_likelihood(folder: Path, samples: list[Sample], path: Path) -> list[Sample]:
    """All samples; some of each kind with query likelihoods, for choosing its weight."""
    known: dict[str, list[float]] = json.loads(path.read_text()) if path.is_file() else {}
    data = {task.name: task for task in tasks(folder)}
    config = RerankerConfig(dtype="float32", scoring="likelihood", max_document_tokens=192)
    result = []
    count = dict.fromkeys(data, 0)
    with Reranker(config) as reranker:
        for sample in samples:
            query, kind = sample.query_id, sample.group
            if count[kind] == LIKELIHOODS[kind == LABELLED]:
                result.append(sample)
                continue
            count[kind] += 1
            if query not in known:
                task = data[kind]
                given = given_order(list(task.candidates[query]), query, Setting(task.depth, 1))
                documents = [task.dataset.documents[name] for name in given[: task.depth]]
                known[query] = list(reranker.rank(task.dataset.queries[query], documents).scores)
                path.write_text(json.dumps(known))
                print(f"likelihood: {kind}, {count[kind]}", flush=True)
            likelihood = np.array(known[query], dtype=np.float32)
            result.append(replace(sample, likelihood=likelihood))
    return result


def ndcg(samples: list[Sample], scores: list[np.ndarray]) -> float:
    """Mean nDCG@10."""
    pairs = zip(samples, scores, strict=True)
    values = [measure_ranking(s[:, None], x.grades, x.ideal, "nDCG@10")[0] for x, s in pairs]
    return float(np.mean(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("scifact", type=Path, help="BEIR folder with a run.*")
    parser.add_argument("--out", type=Path, required=True, help="folder")
    parser.add_argument("--tail", choices=list(PROMPTS), default="per document")
    parser.add_argument(
        "--profiles", type=Path, default=SHIPPED, help="folder of the profiles that are written"
    )
    parser.add_argument("--count", type=int, metavar="N", help="most queries of each kind")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    arguments.out.mkdir(parents=True, exist_ok=True)
    samples = read(
        arguments.scifact, arguments.out / "readings.npz", arguments.tail, arguments.count
    )
    report: dict[str, object] = {}
    for names in READ:
        for last in (15, MAX_LAYER, 29):
            select = partial(learn_weights, readings=names, l2=L2, size=SIZE, max_layer=last)
            row = left_out(samples, select)
            report[f"{' + '.join(names)}, layers to {last}"] = {**row, "mean": mean(row)}
    select = partial(learn_weights, l2=L2, size=SIZE, max_layer=MAX_LAYER)
    chosen = select(samples)
    row = left_out(samples, select)
    # Written in as many digits as were ever read.
    heads = tuple(h.model_copy(update={"weight": round(h.weight, 3)}) for h in chosen)
    made = [profile_of(heads, samples, arguments.tail, {**row, "mean": mean(row)})]
    if arguments.tail == "per document":
        weight, table = choose_likelihood(
            arguments.scifact, samples, arguments.out / "likelihood.json"
        )
        report |= {"likelihood_weight": weight, "left out, by likelihood's weight": table}
        made.append(profile_of(heads, samples, arguments.tail, table[f"{weight:g}"], weight))
    for profile in made:
        ship(profile, arguments.profiles)
    (arguments.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


def profile_of(
    heads: tuple[HeadWeight, ...],
    samples: list[Sample],
    tail: str,
    row: dict[str, float],
    likelihood: float | None = None,
) -> Profile:
    """The profile of these heads, mixed with likelihood where its weight is given.

    ``row`` has nDCG@10 of each kind of queries that was left out.
    """
    counts = {name: sum(sample.group == name for sample in samples) for name in TEXTS}
    command = "benchmarks/make_profile.py" + ("" if tail == "per document" else f" --tail {tail}")
    return Profile(
        **PROMPTS[tail],
        scoring="attention" if likelihood is None else "mixed",
        heads=heads,
        likelihood_weight=likelihood or 0.0,
        first_stage_weight=FIRST_STAGE_WEIGHT,
        model=MODEL,
        shape=SHAPE,
        data={
            "queries": counts,
            "label-free": [name for name in TEXTS if name != LABELLED],
            "depth": {LABELLED: 20, "label-free": 10},
            "texts": TEXTS,
        },
        method=METHOD,
        measured={"left out in turn": {"measure": MEASURE, **row, "from": command}},
        created=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        versions=versions(),
    )


def ship(profile: Profile, folder: Path) -> None:
    """Write a profile under the name that its purpose has."""
    states = [] if profile.document_states == "joint" else [profile.document_states]
    name = ".".join(["smollm2-135m", profile.scoring, profile.framework, *states, "json"])
    path = folder / name
    if path.is_file():
        old = Profile.load(path)
        weights = ("heads", "likelihood_weight", "first_stage_weight")
        if all(getattr(old, field) == getattr(profile, field) for field in weights):
            measured = {**old.measured, **profile.measured}
            profile = profile.model_copy(update={"measured": measured})
    profile.save(path)
    print(f"{path} is written", flush=True)


def mean(row: dict[str, float]) -> float:
    return round(float(np.mean(list(row.values()))), 4)


def left_out(samples: list[Sample], select: Selector) -> dict[str, float]:
    """nDCG@10 of each kind of queries, with heads that saw none of it."""
    row: dict[str, float] = {}
    for kind in sorted({sample.group for sample in samples}):
        heads = select([sample for sample in samples if sample.group != kind])
        test = [sample for sample in samples if sample.group == kind]
        row[kind] = round(ndcg(test, [score(x, heads) for x in test]), 4)
    return row


def choose_likelihood(
    folder: Path, samples: list[Sample], path: Path
) -> tuple[float, dict[str, dict[str, float]]]:
    """The weight of query likelihood beside attention, cross-fitted, and nDCG@10 over weights.

    Weight -> kind of queries -> nDCG@10 with heads that saw none of this kind.
    """
    judged = with_likelihood(folder, samples, path)
    select = partial(learn_weights, l2=L2, size=SIZE, max_layer=MAX_LAYER)
    table: dict[str, dict[str, float]] = {}
    for kind in sorted({sample.group for sample in samples}):
        # With heads that saw none of this kind: how much weight does it want?
        rest = [sample for sample in samples if sample.group != kind]
        heads = select(rest)
        test = [x for x in judged if x.group == kind and x.likelihood is not None]
        for weight in (0.0, 1.0, 2.0, 4.0, 8.0):
            mixed = [
                weight * standardise(np.asarray(x.likelihood)) + standardise(score(x, heads))
                for x in test
            ]
            table.setdefault(f"{weight:g}", {})[kind] = round(ndcg(test, mixed), 4)
    return likelihood_weight(judged, select), table


if __name__ == "__main__":
    main()
