"""Learn the profile of the embedded model that icr_rag/presets.py ships.

    python benchmarks/make_profile.py ../shared/data/scifact --out results/embedded
    python benchmarks/make_profile.py ../shared/data/scifact --out results/shared --tail shared
    python benchmarks/make_profile.py ../shared/data/scifact --out results/blind --tail blind

The first for pointwise reading, attention alone and mixed; the others for one tail that all
documents share, encoded independently of each other, and for one that does not see them.

Four kinds of queries, pooled so that the weights hold beyond one collection:

- labelled: claims of scifact with even ids (those with odd ids are kept for the test), BM25 top 20;
- title and sentence: label-free, from scifact's abstracts;
- docstrings: label-free, from the docstrings of Python's standard library, NumPy and torch;
- passage: label-free and long, two to four sentences of either.

Every head of every layer is read for each of them, an hour or less on two cores; interrupted, the
same command goes on. Then weights are fitted in seconds, once on all kinds and once with each kind
left out and measured on it, and printed in the form that presets.py has.
"""

from __future__ import annotations

import argparse
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
from icr_rag.evaluation.datasets import Dataset, load_beir
from icr_rag.evaluation.grid_config import QuerySubset
from icr_rag.evaluation.grid_data import choose_queries, only_run
from icr_rag.evaluation.harness import Setting, given_order
from icr_rag.evaluation.runs import Run, read_run
from icr_rag.profiling.collect import collect, profiling_config
from icr_rag.profiling.crossval import Selector, likelihood_weight
from icr_rag.profiling.curve import measure_ranking
from icr_rag.profiling.queries import label_free
from icr_rag.profiling.samples import Sample, load_samples, save_samples, standardise
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


def tasks(folder: Path) -> dict[str, tuple[Dataset, Run, list[str], int]]:
    """Name -> data, candidates, queries, depth."""
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
    made: dict[str, tuple[Dataset, Run, list[str], int]] = {
        "labelled": (scifact, run, labelled, 20)
    }
    for seed, (name, (documents, kinds, count)) in enumerate(free.items()):
        data, found = label_free(
            documents, kinds=kinds, count=count, depth=10, seed=seed, name=name
        )
        made[name] = (data, found, list(data.queries), 10)
    return made


def read(folder: Path, path: Path, tail: str, count: int | None) -> list[Sample]:
    """Readings of all queries; those that are in the file already are taken from there."""
    samples = load_samples(path) if path.is_file() else []
    done = {(sample.group, sample.query_id) for sample in samples}
    config = RerankerConfig(
        model="smollm2-135m",
        dtype="float32",
        max_document_tokens=192,
        **PROMPTS[tail],
    )
    with Reranker(profiling_config(config)) as reranker:
        for name, (data, run, queries, depth) in tasks(folder).items():
            queries = queries[:count]
            for number, query in enumerate(queries):
                if (name, query) not in done:
                    samples += collect(reranker, data, run, [query], depth=depth, group=name)
                    if number % 20 == 19 or number == len(queries) - 1:
                        save_samples(path, samples)
                        print(f"{name}: {number + 1} of {len(queries)}", flush=True)
    return samples


def with_likelihood(folder: Path, samples: list[Sample], path: Path) -> list[Sample]:
    """All samples; some of each kind with query likelihoods, for choosing its weight."""
    known: dict[str, list[float]] = json.loads(path.read_text()) if path.is_file() else {}
    data = tasks(folder)
    config = RerankerConfig(dtype="float32", scoring="likelihood", max_document_tokens=192)
    result = []
    count = dict.fromkeys(data, 0)
    with Reranker(config) as reranker:
        for sample in samples:
            query, kind = sample.query_id, sample.group
            if count[kind] == LIKELIHOODS[kind == "labelled"]:
                result.append(sample)
                continue
            count[kind] += 1
            if query not in known:
                dataset, run, _, depth = data[kind]
                names = given_order(run[query], query, Setting(depth, 1))[:depth]
                documents = [dataset.documents[name] for name in names]
                known[query] = list(reranker.rank(dataset.queries[query], documents).scores)
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
            report[f"{' + '.join(names)}, layers to {last}"] = left_out(samples, select)
    select = partial(learn_weights, l2=L2, size=SIZE, max_layer=MAX_LAYER)
    chosen = select(samples)
    report["weights"] = " ".join(f"{h.layer}-{h.head}:{h.weight:+.3f}" for h in chosen)
    if arguments.tail == "per document":
        report |= choose_likelihood(arguments.scifact, samples, arguments.out / "likelihood.json")
    (arguments.out / "profile.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


def left_out(samples: list[Sample], select: Selector) -> dict[str, float]:
    """nDCG@10 of each kind of queries, with heads that saw none of it, and their mean."""
    row: dict[str, float] = {}
    for kind in sorted({sample.group for sample in samples}):
        heads = select([sample for sample in samples if sample.group != kind])
        test = [sample for sample in samples if sample.group == kind]
        row[kind] = round(ndcg(test, [score(x, heads) for x in test]), 4)
    row["mean"] = round(float(np.mean(list(row.values()))), 4)
    return row


def choose_likelihood(folder: Path, samples: list[Sample], path: Path) -> dict[str, object]:
    """The weight of query likelihood beside attention: cross-fitted, and for each kind."""
    judged = with_likelihood(folder, samples, path)
    select = partial(learn_weights, l2=L2, size=SIZE, max_layer=MAX_LAYER)
    report: dict[str, object] = {"likelihood_weight": likelihood_weight(judged, select)}
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
            report[f"left out: {kind}, likelihood x {weight:g}"] = round(ndcg(test, mixed), 4)
    return report


if __name__ == "__main__":
    main()
