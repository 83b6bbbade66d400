"""Readings are collected once: what an interrupted run left is used, and nothing that changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_profiling_queries import CORPUS
from tiny import byte_tokenizer, tiny_model

from icr_rag import Document, Reranker
from icr_rag.errors import DataError
from icr_rag.evaluation.datasets import Dataset
from icr_rag.profiling import collect as collecting
from icr_rag.profiling import resume
from icr_rag.profiling.collect import profiling_config
from icr_rag.profiling.resume import Task, collect_or_resume
from icr_rag.profiling.samples import load_samples, save_samples

TEXTS = dict(list(CORPUS.items())[:5])
QUERIES = {f"q{number}": f"tide {number}" for number in range(5)}
DATA = Dataset("x", TEXTS, QUERIES, {name: {"d1": 1} for name in QUERIES})
RUN = {name: list(TEXTS) for name in QUERIES}
TASK = Task("x", DATA, RUN, list(QUERIES), depth=3)


def make_reranker(**settings):
    base = Reranker.from_model(
        tiny_model("llama"), byte_tokenizer(), framework="pointwise", **settings
    )
    made = profiling_config(base.config)
    changed = {name: value for name, value in made if value != getattr(base.config, name)}
    return base.with_config(**changed)


@pytest.fixture
def read(monkeypatch):
    """Names of the queries that were read, as (group, query)."""
    names = []
    really = resume.collect

    def collect(reranker, dataset, candidates, queries, **others):
        names.extend((others["group"], query) for query in queries)
        return really(reranker, dataset, candidates, queries, **others)

    monkeypatch.setattr(resume, "collect", collect)
    return names


@pytest.fixture
def path(tmp_path):
    return tmp_path / "readings.npz"


def same(one, other):
    assert [(s.group, s.query_id, s.key) for s in one] == [
        (s.group, s.query_id, s.key) for s in other
    ]
    for a, b in zip(one, other, strict=True):
        for field in ("readings", "grades", "ideal"):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


def test_what_is_kept_is_not_read_again(read, path):
    told = []
    reranker = make_reranker()
    first = collect_or_resume(reranker, [TASK], path, progress=lambda *n: told.append(n))
    assert [sample.query_id for sample in first] == list(QUERIES)
    assert read == [("x", query) for query in QUERIES]
    assert told == [(number, 5) for number in range(6)]
    again = collect_or_resume(reranker, [TASK], path, progress=lambda *n: told.append(n))
    assert len(read) == 5
    # Nobody draws a bar, or loads a model, for nothing.
    assert len(told) == 6
    same(first, again)
    same(first, load_samples(path))


def test_samples_are_those_that_are_collected_at_once(path):
    reranker = make_reranker()
    for shuffle in (1, None):
        kept = collect_or_resume(reranker, [TASK], path, shuffle=shuffle)
        direct = collecting.collect(
            reranker, DATA, RUN, list(QUERIES), depth=3, shuffle=shuffle, group="x"
        )
        same([replace(sample, key="") for sample in kept], direct)


@pytest.mark.parametrize("every", [1, 2, 20])
@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_run_goes_on(read, path, monkeypatch, every, failure):
    monkeypatch.setattr(resume, "_EVERY", every)
    whole = collect_or_resume(make_reranker(), [TASK], path.with_name("whole.npz"))
    read.clear()
    really = collecting._read

    def fail(reranker, query_id, *others):
        if query_id == "q3":
            raise failure
        return really(reranker, query_id, *others)

    with monkeypatch.context() as patched:
        patched.setattr(collecting, "_read", fail)
        with pytest.raises(failure):
            collect_or_resume(make_reranker(), [TASK], path)
    assert [sample.query_id for sample in load_samples(path)] == ["q0", "q1", "q2"]
    read.clear()
    told = []
    same(
        collect_or_resume(make_reranker(), [TASK], path, progress=lambda *n: told.append(n)), whole
    )
    assert read == [("x", "q3"), ("x", "q4")]
    assert told == [(3, 5), (4, 5), (5, 5)]


def test_more_queries_and_fewer(read, path):
    few = replace(TASK, queries=["q3", "q1"])
    collect_or_resume(make_reranker(), [few], path)
    every = collect_or_resume(make_reranker(), [TASK], path)
    assert [query for _, query in read] == ["q3", "q1", "q0", "q2", "q4"]
    # In the order that was asked for, whatever the file has.
    assert [sample.query_id for sample in every] == list(QUERIES)
    found = collect_or_resume(make_reranker(), [few], path)
    assert [sample.query_id for sample in found] == ["q3", "q1"]
    assert len(read) == len(load_samples(path)) == 5


def test_groups_have_queries_of_their_own(read, path):
    tasks = [TASK, replace(TASK, name="y", depth=2)]
    found = collect_or_resume(make_reranker(), tasks, path)
    assert [(s.group, len(s.grades)) for s in found] == [("x", 3)] * 5 + [("y", 2)] * 5
    same(collect_or_resume(make_reranker(), tasks, path), found)
    assert len(read) == 10


@pytest.mark.parametrize(
    "change",
    [
        {"name": "z"},
        {"depth": 2},
        {"candidates": {**RUN, "q0": list(TEXTS)[::-1]}},
        {"dataset": replace(DATA, queries={**QUERIES, "q0": "moon"})},
        {"dataset": replace(DATA, judgements={**DATA.judgements, "q0": {"d2": 1}})},
        {"dataset": replace(DATA, documents={**TEXTS, "d1": Document("another text")})},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_depends_on_something_that_changed_is_read_again(read, path, change):
    collect_or_resume(make_reranker(), [TASK], path)
    read.clear()
    collect_or_resume(make_reranker(), [replace(TASK, **change)], path)
    assert "q0" in {query for _, query in read}


def test_only_the_query_that_changed_is_read_again(read, path):
    collect_or_resume(make_reranker(), [TASK], path)
    read.clear()
    judged = replace(DATA, judgements={**DATA.judgements, "q2": {"d2": 1}})
    found = collect_or_resume(make_reranker(), [replace(TASK, dataset=judged)], path)
    assert read == [("x", "q2")]
    assert [sample.query_id for sample in found] == list(QUERIES)


def test_other_settings_or_another_order_are_read_again(read, path):
    collect_or_resume(make_reranker(), [TASK], path)
    collect_or_resume(make_reranker(max_document_tokens=9), [TASK], path)
    assert len(read) == 10
    collect_or_resume(make_reranker(max_document_tokens=9), [TASK], path, shuffle=None)
    assert len(read) == 15


def test_queries_without_candidates_are_left_out(read, path):
    task = replace(TASK, candidates={"q1": RUN["q1"], "q2": []})
    assert [s.query_id for s in collect_or_resume(make_reranker(), [task], path)] == ["q1"]
    assert collect_or_resume(make_reranker(), [replace(task, queries=["q0"])], path) == []
    assert read == [("x", "q1")]


def test_samples_that_do_not_say_what_they_were_read_from_are_not_used(read, path):
    found = collect_or_resume(make_reranker(), [TASK], path)
    save_samples(path, [replace(sample, key="") for sample in found])
    same(collect_or_resume(make_reranker(), [TASK], path), found)
    assert len(read) == 10


def test_files_of_before_have_samples_without_keys(path):
    found = collect_or_resume(make_reranker(), [TASK], path)
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    arrays["ids"] = arrays["ids"][:, :2]
    np.savez(path, **arrays)
    same(load_samples(path), [replace(sample, key="") for sample in found])


def test_files_of_before_have_samples_that_do_not_name_their_documents(read, path):
    blank = replace(DATA, documents={**TEXTS, "d0": Document(" ")})
    tasks = [TASK, replace(TASK, name="y", dataset=blank, depth=5)]
    found = collect_or_resume(make_reranker(), tasks, path)
    assert "d0" not in found[-1].documents
    save_samples(path, [replace(sample, documents=()) for sample in found])
    read.clear()
    again = collect_or_resume(make_reranker(), tasks, path)
    assert [sample.documents for sample in again] == [sample.documents for sample in found]
    # Which of the documents were blank is not known without reading.
    assert {group for group, _ in read} == {"y"}


def test_a_file_that_holds_no_samples_is_not_overwritten(read, path):
    path.write_bytes(b"something else")
    with pytest.raises(DataError, match="no readings"):
        collect_or_resume(make_reranker(), [TASK], path)
    assert (read, path.read_bytes()) == ([], b"something else")
