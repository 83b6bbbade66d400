"""Evaluation data by name: what `icr-rag evaluate` and grids accept as a data set.

==================================================  ===========================================
name                                                what it is
==================================================  ===========================================
``data/scifact``                                    BEIR folder, with corpus.jsonl
``data/BRIGHT`` and the domain as split             local copy of BRIGHT, with folder documents
``data/candidates.json`` (.jsonl)                   as ``candidates:``, judgements in the file
``ir_datasets:beir/scifact/test``                   name in ir_datasets
``bright:biology`` (``/long``, ``/gpt4_reason``)    BRIGHT from the hub
``candidates:file=FILE,qrels=FILE``                 rank_llm's or ICR's JSON, with judgements
``trec:corpus=FILE,topics=FILE,qrels=FILE``         TREC's files; ``,run=FILE``: with candidates
==================================================  ===========================================

The prefix tells, or what is found on disk; what fits none of these is an error.

In some data (ArguAna, Quora) queries are documents of the corpus, and find themselves first. As in
BEIR's evaluation, a document that has its query's id is no candidate, whatever the run says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from icr_rag.errors import DataError
from icr_rag.evaluation.bright import DOMAINS, open_bright_folder, open_bright_hub, parse_part
from icr_rag.evaluation.candidates_json import open_candidates
from icr_rag.evaluation.datasets import Dataset, check_folder, read_corpus, read_labels
from icr_rag.evaluation.first_stage import DESCRIPTION as BM25
from icr_rag.evaluation.first_stage import ScoredRun, bm25_candidates
from icr_rag.evaluation.ir_datasets_source import open_ir_datasets
from icr_rag.evaluation.runs import Run, read_run, read_run_scores
from icr_rag.evaluation.trec import open_trec
from icr_rag.evaluation.unread_dataset import UnreadDataset
from icr_rag.types import Document

#: The split of sources whose name says everything.
_DEFAULT_SPLIT = "test"

_OWN = "the source's own candidates"

#: What BM25 finds at least, as published first stages have it; re-ranking may go less deep.
_BM25_DEPTH = 100


@dataclass(frozen=True)
class Source:
    """A data set, and the candidates it came with.

    Attributes:
        dataset: queries, documents and judgements.
        candidates: query id -> document ids, best first, without excluded ones; None if the source
            brings none.
        scores: query id -> document id -> the first stage's score; None if there are none.
        excluded: query id -> documents that may not be found for it. They are not in
            ``candidates``; take them out of other runs with `without_excluded` before cutting
            these to a depth.
        first_stage: where the candidates come from, for a report; "" if there are none.
        notes: what a reader of the numbers should know, a sentence each.
    """

    dataset: Dataset
    candidates: Run | None = None
    scores: ScoredRun | None = None
    excluded: Mapping[str, frozenset[str]] = field(default_factory=dict)
    first_stage: str = ""
    notes: tuple[str, ...] = ()


def load_source(
    name: str,
    *,
    split: str = _DEFAULT_SPLIT,
    keep: Collection[str] | None = None,
    base: Path | None = None,
    ignore_identical_ids: bool = True,
) -> Source:
    """Load a data set by name; the candidates are those that it brings.

    Args:
        name: see the module's text.
        split: which judgements of a BEIR folder; which domain of a local BRIGHT ("biology",
            "biology/long"); of all else, "test" and nothing other.
        keep: ids of the documents to hold; None: all.
        base: where relative paths begin; None: the working directory.
        ignore_identical_ids: exclude, for each judged query, the document that has its id.

    Raises:
        DataError: for a name that is none of these; naming what is missing or malformed.
        MissingDependencyError: naming the extra that the source needs.
    """
    opened = _open(name, split, base)
    if ignore_identical_ids:
        opened = _without_themselves(opened)
    first_stage = "" if opened.candidates is None else _OWN
    documents = opened.read_documents(keep)
    return _source(opened, documents, opened.candidates, opened.scores, first_stage)


def load_for_ranking(
    name: str,
    depth: int,
    *,
    split: str = _DEFAULT_SPLIT,
    run: Path | None = None,
    base: Path | None = None,
    ignore_identical_ids: bool = True,
) -> Source:
    """Load a data set with candidates, and only the documents that may be ranked.

    Candidates are those of ``run``; else the source's own; else the one file ``run.*`` in a BEIR
    folder; else the best that BM25 finds in the whole corpus, at least 100.

    Args:
        name, split, base, ignore_identical_ids: as in `load_source`. A note tells how many queries
            it concerns.
        depth: how many candidates of each query will be ranked. Excluded documents are taken out
            before they are counted.
        run: a run's file, as `read_run` takes it; relative to ``base``.

    Returns:
        ``candidates`` is not None; they are not cut.

    Raises:
        DataError: as `load_source` does; if a folder holds several runs.
        MissingDependencyError: naming the extra that is needed.
    """
    opened = _open(name, split, base)
    if ignore_identical_ids:
        opened = _without_themselves(opened)
    if run is not None:
        path: Path | None = _resolve(str(run), base)
    else:
        path = None if opened.candidates is not None else _own_run(name, base)
    documents: dict[str, Document] | None = None
    scores: ScoredRun | None
    if path is not None:
        candidates, scores = read_run(path), read_run_scores(path)
        first_stage = f"the run {path.name}"
    elif opened.candidates is not None:
        candidates, scores, first_stage = opened.candidates, opened.scores, _OWN
    else:
        documents = opened.read_documents(None)
        dataset = Dataset(opened.name, documents, opened.queries, opened.judgements)
        scores = bm25_candidates(dataset, max(depth, _BM25_DEPTH), excluded=opened.excluded)
        candidates, first_stage = {query: list(found) for query, found in scores.items()}, BM25
    if ignore_identical_ids:
        # BM25's do not hold them any more, and had the whole corpus to find them in.
        alike = [
            query
            for query in opened.judgements
            if query in (candidates.get(query, []) if documents is None else documents)
        ]
        opened = replace(opened, notes=(*opened.notes, *_own_note(alike)))
    # Before they are counted.
    candidates = without_excluded(candidates, opened.excluded)
    keep = {name for ranked in candidates.values() for name in ranked[:depth]}
    if documents is None:
        documents = opened.read_documents(keep)
    else:
        documents = {name: documents[name] for name in documents if name in keep}
    return _source(opened, documents, candidates, scores, first_stage)


def _without_themselves(opened: UnreadDataset) -> UnreadDataset:
    """The same, with each judged query's own id among what may not be found for it."""
    excluded = {
        query: frozenset({query, *opened.excluded.get(query, ())}) for query in opened.judgements
    }
    return replace(opened, excluded={**opened.excluded, **excluded})


def _own_note(alike: list[str]) -> tuple[str, ...]:
    if not alike:
        return ()
    return (
        f"For {len(alike)} queries the document that has the query's id is no candidate "
        "(ignore_identical_ids), as in BEIR's evaluation.",
    )


def without_excluded(run: Mapping[str, list[str]], excluded: Mapping[str, Collection[str]]) -> Run:
    """The run without what is excluded for each query, in the same order."""
    return {
        query: [name for name in documents if name not in excluded.get(query, ())]
        for query, documents in run.items()
    }


def _source(
    opened: UnreadDataset,
    documents: dict[str, Document],
    candidates: Run | None,
    scores: ScoredRun | None,
    first_stage: str,
) -> Source:
    if candidates is not None:
        candidates = without_excluded(candidates, opened.excluded)
    return Source(
        Dataset(opened.name, documents, opened.queries, opened.judgements),
        candidates,
        scores,
        opened.excluded,
        first_stage,
        opened.notes,
    )


def _open(name: str, split: str, base: Path | None) -> UnreadDataset:
    kind, colon, rest = name.partition(":")
    if colon and kind in _PREFIXES:
        if split != _DEFAULT_SPLIT:
            raise DataError(
                f"{name!r} says itself which judgements it has; split={split!r} is for folders"
            )
        return _PREFIXES[kind](rest, base)
    path = _resolve(name, base)
    if path.is_file() and path.suffix in (".json", ".jsonl"):
        return open_candidates(path)
    if path.is_dir():
        return _open_folder(path, split)
    raise DataError(
        f"{name!r} is no data set: there is no such folder or .json file{_within(base)}, and it "
        f"does not begin with {', '.join(f'{prefix}:' for prefix in _PREFIXES)}"
    )


def _open_folder(folder: Path, split: str) -> UnreadDataset:
    beir, bright = (folder / "corpus.jsonl").is_file(), (folder / "documents").is_dir()
    if beir and bright:
        raise DataError(
            f"{folder} holds both corpus.jsonl (BEIR) and documents (BRIGHT); give each its folder"
        )
    # Without either, BEIR's error says which files are expected.
    if not bright:
        check_folder(folder)
        queries, judgements = read_labels(folder, split)
        return UnreadDataset(
            folder.resolve().name, queries, judgements, lambda keep: read_corpus(folder, keep)
        )
    if split == _DEFAULT_SPLIT:
        raise DataError(
            f"{folder} is a copy of BRIGHT; give the domain as split: {', '.join(DOMAINS)}"
        )
    return open_bright_folder(folder, parse_part(split))


def _open_candidates(rest: str, base: Path | None) -> UnreadDataset:
    paths = _paths("candidates", rest, ("file",), ("qrels",), base)
    return open_candidates(paths["file"], paths.get("qrels"))


def _open_trec(rest: str, base: Path | None) -> UnreadDataset:
    paths = _paths("trec", rest, ("corpus", "topics", "qrels"), ("run",), base)
    return open_trec(paths["corpus"], paths["topics"], paths["qrels"], paths.get("run"))


#: What follows the colon, and where relative paths begin -> the data set.
_PREFIXES: dict[str, Callable[[str, Path | None], UnreadDataset]] = {
    "ir_datasets": lambda rest, base: open_ir_datasets(rest),
    "bright": lambda rest, base: open_bright_hub(parse_part(rest)),
    "candidates": _open_candidates,
    "trec": _open_trec,
}


def _paths(
    prefix: str, text: str, needed: tuple[str, ...], optional: tuple[str, ...], base: Path | None
) -> dict[str, Path]:
    """The files of ``key=FILE,key=FILE``; a comma that no key follows belongs to the name."""
    keys = "|".join(needed + optional)
    paths: dict[str, Path] = {}
    for part in re.split(rf",(?=(?:{keys})=)", text):
        key, _, value = part.partition("=")
        if key not in needed + optional or not value or key in paths:
            break
        paths[key] = _resolve(value, base)
    else:
        if all(key in paths for key in needed):
            return paths
    form = ",".join(f"{key}=FILE" for key in needed)
    more = "".join(f"[,{key}=FILE]" for key in optional)
    raise DataError(f"'{prefix}:{text}' is not of the form {prefix}:{form}{more}")


def _own_run(name: str, base: Path | None) -> Path | None:
    """The one file ``run.*`` in a folder; None if there is none, or ``name`` is no folder."""
    kind, colon, _ = name.partition(":")
    if colon and kind in _PREFIXES:
        return None
    folder = _resolve(name, base)
    found = sorted(path for path in folder.glob("run.*") if path.is_file())
    if len(found) > 1:
        choices = ", ".join(path.name for path in found)
        raise DataError(f"{folder} holds several runs: {choices}; choose one with --candidates")
    return found[0] if found else None


def _resolve(name: str, base: Path | None) -> Path:
    return Path(name) if base is None else base / name


def _within(base: Path | None) -> str:
    return "" if base is None else f" in {base}"
