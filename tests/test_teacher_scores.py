"""Scores of teachers: of models, kept and keyed; of files, whole or refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_profiling_queries import CORPUS

from icr_rag import Document, Reranker, RerankerConfig
from icr_rag.errors import DataError
from icr_rag.evaluation.datasets import Dataset
from icr_rag.profiling import teacher_scores
from icr_rag.profiling.collect import collect, reading_config
from icr_rag.profiling.resume import Task, read_order
from icr_rag.profiling.teacher_scores import (
    read_scores,
    score_or_resume,
    teacher_config,
    wanted_pairs,
    with_scores,
    write_pairs,
)

TEXTS = {**dict(list(CORPUS.items())[:5]), "blank": Document(" ")}
QUERIES = {f"q{number}": f"tide {number}" for number in range(3)}
DATA = Dataset("x", TEXTS, QUERIES, {name: {"d1": 1} for name in QUERIES})
RUN = {name: list(TEXTS)[::-1] for name in QUERIES}
TASK = Task("x", DATA, RUN, list(QUERIES), depth=4)


@pytest.fixture
def config(model_folder):
    return RerankerConfig(model=model_folder, framework="pointwise", dtype="float32")


@pytest.fixture
def asked(monkeypatch):
    """Queries that a model was asked for."""
    queries = []
    really = teacher_scores._score

    def score(reranker, task, query):
        queries.append(query)
        return really(reranker, task, query)

    monkeypatch.setattr(teacher_scores, "_score", score)
    return queries


@pytest.mark.parametrize("name", ["likelihood", "mixed", "yes_no"])
def test_scores_are_those_of_the_method(config, name, tmp_path):
    own = teacher_config(config.replace(deadline_ms=1.0, on_error="passthrough"), name)
    assert (own.deadline_ms, own.on_error) == (None, "raise")
    found = score_or_resume(own, [TASK], tmp_path / "t.jsonl")
    fields = {"likelihood": {"scoring": "likelihood"}, "mixed": {"scoring": "mixed"},
              "yes_no": {"scoring": "likelihood", "likelihood": "yes_no"}}[name]  # fmt: skip
    with Reranker(model=config.model, dtype="float32", fusion="none", **fields) as reranker:
        for query, text in QUERIES.items():
            names = read_order(TASK, query)
            direct = reranker.rank(text, [TEXTS[name] for name in names]).scores
            assert found["x", query] == pytest.approx(dict(zip(names, direct, strict=True)))


def test_another_model_scores_by_its_own_likelihood(config):
    own = teacher_config(config.replace(max_document_tokens=9), "org/large")
    assert (own.model, own.scoring, own.likelihood) == ("org/large", "likelihood", "query")
    assert own.max_document_tokens == 9


def test_one_pass_reads_heads_and_likelihood(config):
    own = reading_config(config)
    assert own.scoring == "mixed"
    with Reranker(own) as both:
        (sample,) = collect(both, DATA, RUN, ["q0"], depth=4, group="x")
    plain = own.switched(scoring="attention", framework="pointwise")
    with Reranker(plain) as alone:
        (other,) = collect(alone, DATA, RUN, ["q0"], depth=4, group="x")
    np.testing.assert_array_equal(sample.readings, other.readings)
    assert (sample.documents, other.likelihood) == (other.documents, None)
    # Not where it would read something else.
    assert reading_config(config.replace(calibration="none")).scoring == "attention"
    assert reading_config(RerankerConfig()).scoring == "attention"


def test_what_is_kept_is_not_asked_again(config, asked, tmp_path):
    own, path = teacher_config(config, "likelihood"), tmp_path / "t.jsonl"
    told = []
    first = score_or_resume(own, [TASK], path, progress=lambda _, *n: told.append(n))
    assert (asked, told) == (list(QUERIES), [(0, 3), (1, 3), (2, 3), (3, 3)])
    assert score_or_resume(own, [TASK], path, progress=lambda _, *n: told.append(n)) == first
    assert (len(asked), len(told)) == (3, 4)
    # A killed process leaves half a line.
    path.write_bytes(path.read_bytes()[:-9])
    assert score_or_resume(own, [TASK], path) == first
    assert asked[3:] == ["q2"]
    assert score_or_resume(own, [TASK], path) == first
    assert len(asked) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"depth": 3},
        {"candidates": {**RUN, "q0": list(TEXTS)}},
        {"dataset": replace(DATA, queries={**QUERIES, "q0": "moon"})},
        {"dataset": replace(DATA, documents={**TEXTS, "d3": Document("another text")})},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_depends_on_something_that_changed_is_asked_again(config, asked, tmp_path, change):
    own, path = teacher_config(config, "likelihood"), tmp_path / "t.jsonl"
    score_or_resume(own, [TASK], path)
    asked.clear()
    score_or_resume(own, [replace(TASK, **change)], path)
    assert "q0" in asked


def test_other_judgements_ask_nothing_and_other_teachers_everything(config, asked, tmp_path):
    own, path = teacher_config(config, "likelihood"), tmp_path / "t.jsonl"
    score_or_resume(own, [TASK], path)
    score_or_resume(own, [replace(TASK, dataset=replace(DATA, judgements={}))], path)
    assert len(asked) == 3
    score_or_resume(teacher_config(config, "yes_no"), [TASK], path)
    assert len(asked) == 6
    # One file holds both.
    score_or_resume(own, [TASK], path)
    assert len(asked) == 6


def test_a_file_of_something_else_stays(config, tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"id": 1}\n')
    with pytest.raises(DataError, match=r"t\.jsonl:1"):
        score_or_resume(teacher_config(config, "likelihood"), [TASK], path)
    assert path.read_text() == '{"id": 1}\n'


# --- files -----------------------------------------------------------------------------------


def lines(values):
    rows = [{"query_id": q, "doc_id": d, "score": s} for (q, d), s in values.items()]
    return "".join(json.dumps(row) + "\n" for row in rows)


def every(score=lambda query, name: 0.5):
    return {(q, d): score(q, d) for (_, q), names in wanted_pairs([TASK]).items() for d in names}


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99))
def test_a_file_gives_back_what_is_in_it(tmp_path_factory, seed):
    path = tmp_path_factory.mktemp("scores") / "s.jsonl"
    generator = np.random.default_rng(seed)
    values = every(lambda query, name: float(generator.normal()))
    path.write_text(lines({**values, ("else", "d1"): 9.0}))
    found = read_scores(path, [TASK])
    assert {(q, d): s for (_, q), own in found.items() for d, s in own.items()} == values
    run = path.with_suffix(".run")
    rows = [f"{q} Q0 {d} {n} {s!r} tag" for n, ((q, d), s) in enumerate(values.items(), 1)]
    run.write_text("\n".join(rows))
    assert read_scores(run, [TASK]) == found


def test_missing_pairs_are_counted_and_named(tmp_path):
    path = tmp_path / "s.jsonl"
    values = every()
    gone = list(values)[3:11]
    path.write_text(lines({pair: s for pair, s in values.items() if pair not in gone}))
    with pytest.raises(DataError, match=r"8 of 12 pairs.* and 3 more") as error:
        read_scores(path, [TASK])
    assert all(f"{q} {d}" in str(error.value) for q, d in gone[:5])
    assert "--write-pairs" in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", r"s\.jsonl:1: not JSON"),
        ("[1]", "'query_id', 'doc_id' and the number 'score'"),
        ('{"query_id": "q", "doc_id": "d"}', "the number 'score'"),
        ('{"query_id": "q", "doc_id": "d", "score": true}', "the number 'score'"),
        ('{"query_id": "q", "doc_id": "d", "score": "1"}', "the number 'score'"),
        ('{"query_id": 1, "doc_id": 2, "score": 1}\n' * 2, "2 stands twice for query 1"),
    ],
)
def test_malformed_lines_are_named(tmp_path, text, said):
    path = tmp_path / "s.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        read_scores(path, [TASK])


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 10**400], ids=str)
def test_scores_are_finite(tmp_path, wrong):
    path = tmp_path / "s.jsonl"
    path.write_text(lines({**every(), next(iter(every())): wrong}))
    with pytest.raises(DataError, match="finite"):
        read_scores(path, [TASK])


def test_ids_of_two_origins_are_not_mixed_up(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_text(lines(every()))
    both = [TASK, replace(TASK, name="y", queries=["q1"])]
    for ask in (read_scores, write_pairs):
        with pytest.raises(DataError, match=r"query q1 and document .* are in x and in y"):
            ask(path, both)
    assert path.read_text() == lines(every())
    others = replace(TASK, name="y", queries=["q1"], candidates={"q1": ["blank"]}, depth=1)
    first = replace(TASK, queries=["q0", "q1"], candidates={q: ["d1"] for q in QUERIES}, depth=1)
    assert write_pairs(tmp_path / "pairs.jsonl", [first, others]) == 3


def test_pairs_are_what_is_read(tmp_path):
    path = tmp_path / "pairs.jsonl"
    assert write_pairs(path, [TASK]) == 12
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert {(row["query_id"], row["doc_id"]) for row in rows} == set(every())
    for row in rows:
        assert row["query"] == QUERIES[row["query_id"]]
        assert row["text"] == TEXTS[row["doc_id"]].content


def test_scores_go_to_their_documents_whatever_was_left_out(config):
    with Reranker(reading_config(config)) as reranker:
        samples = collect(reranker, DATA, RUN, list(QUERIES), depth=6, group="x")
    scores = {("x", query): {name: float(n) for n, name in enumerate(TEXTS)} for query in QUERIES}
    for sample in with_scores(samples, "s", scores):
        # Blank documents are not read.
        assert len(sample.documents) == len(sample.grades) == 5
        assert "blank" not in sample.documents
        numbers = {name: n for n, name in enumerate(TEXTS)}
        assert sample.scores["s"].tolist() == [numbers[name] for name in sample.documents]
        assert sample.grades.tolist() == [int(name == "d1") for name in sample.documents]
