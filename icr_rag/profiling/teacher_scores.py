"""Scores of teachers for the candidates of queries: from a model, or from a file of any re-ranker.

Scores of models are kept in a file beside the readings, a line for each query, so that an
interrupted collection goes on and another choice of heads asks no model again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from icr_rag import __version__
from icr_rag.bounded import parse_json
from icr_rag.config import RerankerConfig
from icr_rag.errors import DataError
from icr_rag.evaluation.environment import local_files
from icr_rag.evaluation.files import read_json_lines, read_lines
from icr_rag.evaluation.runs import read_run_scores
from icr_rag.files import write_whole
from icr_rag.profiles.shipped import shipped_profiles
from icr_rag.profiling.resume import Task, read_order
from icr_rag.profiling.samples import Sample
from icr_rag.profiling.teachers import LIKELIHOOD
from icr_rag.reranker import Reranker

#: (group, query id) -> document id -> score, higher is better.
Scores = dict[tuple[str, str], dict[str, float]]

#: How many missing pairs an error names.
_SHOWN = 5


def teacher_config(config: RerankerConfig, name: str) -> RerankerConfig:
    """How a teacher scores: every document alone, by all of the model.

    Args:
        config: of the model that is taught, whose limits and prompts' settings are the teacher's.
        name: "likelihood", "mixed" or "yes_no", of the same model; else another model, which
            scores by query likelihood.

    Raises:
        ConfigError: if the model cannot do so.
    """
    own = {
        "likelihood": {"scoring": "likelihood"},
        "mixed": {"scoring": "mixed"},
        "yes_no": {"scoring": "likelihood", "likelihood": "yes_no"},
    }
    fields = own.get(name, {"scoring": "likelihood", "model": name, "revision": None})
    return config.switched(
        **{"likelihood": "query", **fields},
        framework="pointwise",
        document_states="joint",
        layers="auto",
        heads="auto",
        profile=None,
        score_mode="raw",
        fusion="none",
        cascade=None,
        passages="none",
        min_answerable=None,
        # What is late or fails must not teach.
        deadline_ms=None,
        on_error="raise",
    )


def wanted_pairs(tasks: Sequence[Task]) -> dict[tuple[str, str], list[str]]:
    """(group, query id) -> ids of the candidates that are read, of all tasks."""
    return {
        (task.name, query): read_order(task, query)
        for task in tasks
        for query in task.queries
        if task.candidates.get(query)
    }


def score_or_resume(
    config: RerankerConfig,
    tasks: Sequence[Task],
    path: Path,
    *,
    progress: Callable[[Reranker, int, int], None] | None = None,
) -> Scores:
    """A model's scores for the candidates of every query: kept in ``path``, or computed now.

    Args:
        config: as `teacher_config` gives it.
        tasks: what to score.
        path: a .jsonl file, which need not exist; what is computed is added to it.
        progress: called with the reranker and (finished, all) queries before the first is scored
            and after each; never if there is nothing to compute, and then no model is loaded.

    Raises:
        DataError: if the file cannot be read or written.
    """
    kept = _kept(path)
    keys = {
        (task.name, query): _key(config, task, query)
        for task in tasks
        for query in task.queries
        if task.candidates.get(query)
    }
    todo = [(task, query) for task in tasks for query in task.queries
            if (task.name, query) in keys and keys[task.name, query] not in kept]  # fmt: skip
    if todo:
        with Reranker(config) as reranker:
            if progress is not None:
                progress(reranker, len(keys) - len(todo), len(keys))
            for number, (task, query) in enumerate(todo, start=1):
                key = keys[task.name, query]
                kept[key] = _score(reranker, task, query)
                _append(path, {"key": key, "scores": kept[key]})
                if progress is not None:
                    progress(reranker, len(keys) - len(todo) + number, len(keys))
    return {place: kept[key] for place, key in keys.items()}


def read_scores(path: Path, tasks: Sequence[Task]) -> Scores:
    """A file's scores for the candidates of every query.

    Args:
        path: a TREC run or its TSV, or .jsonl with "query_id", "doc_id" and "score" in each line.
            Pairs that nobody asks for are passed over.
        tasks: what must be in it.

    Raises:
        DataError: for a file that cannot be read, a malformed line, a pair that stands twice, a
            score that is no finite number, pairs that are missing, or ids of two tasks' pairs.
    """
    _check_ids(tasks)
    found = _read_jsonl(path) if path.suffix == ".jsonl" else read_run_scores(path)
    wanted = wanted_pairs(tasks)
    missing = [
        (query, document)
        for (_, query), names in wanted.items()
        for document in names
        if document not in found.get(query, {})
    ]
    if missing:
        shown = ", ".join(f"{query} {document}" for query, document in missing[:_SHOWN])
        more = f" and {len(missing) - _SHOWN:,} more" if len(missing) > _SHOWN else ""
        raise DataError(
            f"{path} lacks the scores of {len(missing):,} of {sum(map(len, wanted.values())):,} "
            f"pairs of a query and a document: {shown}{more}; --write-pairs writes all that must "
            "be in it"
        )
    scores: Scores = {}
    for (group, query), names in wanted.items():
        scores[group, query] = {name: found[query][name] for name in names}
        wrong = [name for name, value in scores[group, query].items() if not math.isfinite(value)]
        if wrong:
            raise DataError(
                f"{path}: the score of query {query} and document {wrong[0]} is "
                f"{found[query][wrong[0]]}; it must be a finite number"
            )
    return scores


def write_pairs(path: Path, tasks: Sequence[Task]) -> int:
    """Write what a re-ranker has to score, as .jsonl with "query_id", "doc_id", "query", "text".

    Returns:
        How many pairs.

    Raises:
        DataError: if the file cannot be written, or pairs of two tasks have the same ids.
    """
    _check_ids(tasks)
    data = {task.name: task.dataset for task in tasks}
    lines = [
        json.dumps(
            {"query_id": query, "doc_id": name, "query": data[group].queries[query],
             "text": data[group].documents[name].content},
            ensure_ascii=False,
        ) + "\n"
        for (group, query), names in wanted_pairs(tasks).items()
        for name in names
    ]  # fmt: skip
    write_whole(path, lines)
    return len(lines)


def with_scores(samples: Sequence[Sample], name: str, scores: Scores) -> list[Sample]:
    """The samples with a teacher's scores, in the order of their documents.

    Args:
        samples: which name their documents.
        name: the teacher's; `icr_rag.profiling.teachers.LIKELIHOOD` goes to ``likelihood``.
        scores: of all their documents.
    """
    result = []
    for sample in samples:
        own = scores[sample.group, sample.query_id]
        values = np.array([own[document] for document in sample.documents], dtype=np.float64)
        if name == LIKELIHOOD:
            result.append(replace(sample, likelihood=values.astype(np.float32)))
        else:
            result.append(replace(sample, scores={**sample.scores, name: values}))
    return result


def _score(reranker: Reranker, task: Task, query: str) -> dict[str, float]:
    names = read_order(task, query)
    documents = [task.dataset.documents[name] for name in names]
    ranking = reranker.rank(task.dataset.queries[query], documents)
    return dict(zip(names, map(float, ranking.scores), strict=True))


def _key(config: RerankerConfig, task: Task, query: str) -> str:
    """Everything that the scores depend on, as a hash."""
    names = read_order(task, query)
    texts = [task.dataset.documents[name].content for name in names]
    parts: list[object] = [__version__, config.to_dict(), local_files(config.model)]
    parts += [task.dataset.queries[query], names, texts]
    if config.method.reads_attention:
        # Whose heads are read by default.
        told = {"data", "measured", "held_out", "curve", "created", "versions"}
        parts.append([item.model_dump(mode="json", exclude=told) for item in shipped_profiles()])
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _kept(path: Path) -> dict[str, dict[str, float]]:
    """Key -> document id -> score; the line that a killed process left unfinished is left out."""
    kept: dict[str, dict[str, float]] = {}
    if path.is_file():
        for number, line in read_lines(path):
            try:
                value = parse_json(line)
            except ValueError:
                continue
            if not isinstance(value, dict) or not {"key", "scores"} <= set(value):
                raise DataError(f"{path}:{number}: holds no scores of a teacher; move it away")
            kept[value["key"]] = value["scores"]
    return kept


def _append(path: Path, row: Mapping[str, object]) -> None:
    try:
        with path.open("ab+") as out:
            # Behind a line that was left unfinished.
            if out.tell() and out.seek(-1, 2) is not None and out.read() != b"\n":
                out.write(b"\n")
            out.write(json.dumps(row).encode() + b"\n")
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error


def _read_jsonl(path: Path) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for place, value in read_json_lines(path):
        row = value if isinstance(value, dict) else {}
        query, document, score = (row.get(name) for name in ("query_id", "doc_id", "score"))
        ids = [str(name) for name in (query, document) if _is_id(name)]
        if len(ids) < 2 or isinstance(score, bool) or not isinstance(score, (int, float)):
            raise DataError(
                f"{place}: expected an object with 'query_id', 'doc_id' and the number 'score'; "
                f"got {json.dumps(value, ensure_ascii=False)[:80]}"
            )
        if ids[1] in found.setdefault(ids[0], {}):
            raise DataError(f"{place}: document {ids[1]} stands twice for query {ids[0]}")
        try:
            found[ids[0]][ids[1]] = float(score)
        except OverflowError:
            found[ids[0]][ids[1]] = math.inf
    return found


def _check_ids(tasks: Sequence[Task]) -> None:
    """Raise `DataError` where the same ids are those of pairs of two tasks: in a file of scores
    nothing else tells them apart."""
    groups: dict[tuple[str, str], str] = {}
    for (group, query), names in wanted_pairs(tasks).items():
        for document in names:
            other = groups.setdefault((query, document), group)
            if other != group:
                raise DataError(
                    f"query {query} and document {document} are in {other} and in {group}, and a "
                    "file of scores tells pairs apart by these ids; give data whose ids differ, or "
                    "profile on one of the two"
                )


def _is_id(value: object) -> bool:
    # bool is an int to Python but no id.
    return isinstance(value, (str, int)) and not isinstance(value, bool)
