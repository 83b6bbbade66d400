"""Data sets, runs, measures, and an evaluation that survives interruptions."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys

import pytest
from beir import CORPUS, QUERIES, RUN, FakeReranker, write_beir
from hypothesis import given
from hypothesis import strategies as st
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker, RerankerConfig
from icr_rag.errors import DataError
from icr_rag.evaluation import harness
from icr_rag.evaluation.datasets import load_beir
from icr_rag.evaluation.harness import Setting, evaluate, given_order
from icr_rag.evaluation.metrics import MEASURES, evaluate_run, mean_measures
from icr_rag.evaluation.runs import read_run, read_run_scores

RANKED = ["q1", "q2", "q4", "q6"]


@pytest.fixture
def folder(tmp_path):
    return write_beir(tmp_path / "tiny")


@pytest.fixture
def dataset(folder):
    return load_beir(folder)


# --- measures -------------------------------------------------------------------------------


def slow_ndcg(ranked, grades, depth):
    """nDCG with linear gain, as the definition reads."""

    def dcg(gains):
        return sum(max(g, 0) / math.log2(place + 1) for place, g in enumerate(gains[:depth], 1))

    return dcg([grades.get(d, 0) for d in ranked]) / dcg(sorted(grades.values(), reverse=True))


@st.composite
def judged_runs(draw):
    names = [f"d{i}" for i in range(30)]
    grades = draw(st.dictionaries(st.sampled_from(names), st.integers(0, 4), min_size=1))
    if not any(grades.values()):
        grades[draw(st.sampled_from(sorted(grades)))] = 1
    return draw(st.lists(st.sampled_from(names), unique=True, min_size=1)), grades


@given(judged_runs())
def test_measures_equal_their_definitions(case):
    ranked, grades = case
    values = evaluate_run({"q": ranked}, {"q": grades}, ["q"])["q"]
    assert list(values) == list(MEASURES)
    relevant = {document for document, grade in grades.items() if grade > 0}
    hits = [document in relevant for document in ranked]
    for depth in (5, 10):
        assert values[f"nDCG@{depth}"] == pytest.approx(slow_ndcg(ranked, grades, depth))
    for depth in (5, 10, 20):
        assert values[f"R@{depth}"] == pytest.approx(sum(hits[:depth]) / len(relevant))
    assert values["P@1"] == hits[0]
    first = hits.index(True) + 1 if True in hits else 11
    assert values["RR@10"] == pytest.approx(1 / first if first <= 10 else 0)


def test_gain_is_linear():
    values = evaluate_run({"q": ["b", "a"]}, {"q": {"a": 3, "b": 1}}, ["q"])["q"]
    discount = 1 / math.log2(3)
    assert values["nDCG@10"] == pytest.approx((1 + 3 * discount) / (3 + discount))


def test_names_are_those_of_ir_measures():
    import ir_measures

    assert MEASURES[0] == "nDCG@10"
    assert [str(ir_measures.parse_measure(name)) for name in MEASURES] == list(MEASURES)


def test_queries_that_the_run_lacks_count_as_zero():
    judgements = {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1}}
    per_query = evaluate_run({"a": ["x"], "c": []}, judgements, ["a", "b", "c"])
    assert list(per_query) == ["a", "b", "c"]
    assert mean_measures(per_query) == pytest.approx(dict.fromkeys(MEASURES, 1 / 3))
    assert mean_measures(evaluate_run({}, judgements, ["a"]))["nDCG@10"] == 0


@pytest.mark.parametrize("names", [["a", "b", "c"], ["c", "b", "a"]])
def test_order_is_the_runs_and_not_that_of_the_ids(names):
    values = evaluate_run({"q": names}, {"q": {names[0]: 1}}, ["q"])["q"]
    assert values["P@1"] == 1


# --- the harness ----------------------------------------------------------------------------


def test_a_reranker_that_changes_nothing_measures_as_the_candidates(dataset):
    result = evaluate(FakeReranker(), dataset, RUN, Setting())
    assert result.measures == result.candidates
    assert result.run == {query: RUN[query] for query in RANKED}
    # q1: place 2; q2: place 1; q4: tin (2) third, lead (1) second; q6 and q7: nothing.
    third, second = 1 / math.log2(4), 1 / math.log2(3)
    expected = [second, 1, (2 * third + second) / (2 + second), 0, 0]
    assert [v["nDCG@10"] for v in result.per_query.values()] == pytest.approx(expected)
    assert result.measures["nDCG@10"] == pytest.approx(sum(expected) / 5)


def test_only_the_first_depth_are_reranked(dataset):
    reranker = FakeReranker(reverse=True)
    result = evaluate(reranker, dataset, RUN, Setting(depth=2))
    assert reranker.calls[2] == (QUERIES["q4"], ["zinc", "lead"])
    assert result.run["q4"] == ["lead", "zinc", "tin", "oak"]
    assert result.measures["P@1"] == pytest.approx(2 / 5)
    assert result.candidates["P@1"] == pytest.approx(1 / 5)


def test_a_small_top_n_loses_no_document(dataset):
    reranker = FakeReranker(RerankerConfig(top_n=1), reverse=True)
    assert evaluate(reranker, dataset, RUN, Setting()).run["q1"] == ["oak", "tin", "lead"]


def test_limit_means_over_the_first_queries_only(dataset):
    reranker = FakeReranker()
    result = evaluate(reranker, dataset, RUN, Setting(limit=2))
    assert list(result.per_query) == ["q1", "q2"]
    assert len(reranker.calls) == 2
    expected = (1 / math.log2(3) + 1) / 2
    assert result.measures["nDCG@10"] == pytest.approx(expected)
    assert result.candidates["nDCG@10"] == pytest.approx(expected)


@given(st.lists(st.text(min_size=1), unique=True), st.integers(1, 9), st.integers(), st.text())
def test_shuffling_permutes_the_first_depth_only(candidates, depth, seed, query):
    setting = Setting(depth=depth, shuffle=seed)
    before = list(candidates)
    order = given_order(candidates, query, setting)
    assert candidates == before
    assert sorted(order[:depth]) == sorted(candidates[:depth])
    assert order[depth:] == candidates[depth:]
    assert order == given_order(candidates, query, setting)
    assert given_order(candidates, query, Setting(depth=depth)) == candidates


def test_shuffles_differ_between_seeds_and_queries():
    names = [str(i) for i in range(20)]
    orders = {
        tuple(given_order(names, query, Setting(shuffle=seed)))
        for query in ("a", "b", "c")
        for seed in (0, 1, 2)
    }
    assert len(orders) == 9


def test_shuffling_is_the_same_in_another_process():
    code = (
        "from icr_rag.evaluation.harness import Setting, given_order;"
        "print(given_order([str(i) for i in range(30)], 'q', Setting(shuffle=4)))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert outputs == {str(given_order([str(i) for i in range(30)], "q", Setting(shuffle=4)))}


def test_the_baseline_of_a_shuffled_run_is_the_shuffled_order(dataset):
    setting = Setting(depth=3, shuffle=5)
    result = evaluate(FakeReranker(), dataset, RUN, setting)
    shuffled = {query: given_order(RUN.get(query, []), query, setting) for query in RANKED}
    assert shuffled["q4"] != RUN["q4"]
    assert result.run == shuffled
    assert result.candidates == result.measures


def test_candidates_of_another_data_set_are_refused_before_anything_is_ranked(dataset):
    reranker = FakeReranker()
    with pytest.raises(DataError, match=r"candidate 'gold' of query 'q6' is not in the corpus"):
        evaluate(reranker, dataset, {**RUN, "q6": ["gold"]}, Setting())
    with pytest.raises(DataError, match="no candidates for any query of tiny"):
        evaluate(reranker, dataset, {"other": ["tin"]}, Setting())
    assert reranker.calls == []
    # Below the depth, a document's text is not needed.
    evaluate(reranker, dataset, {**RUN, "q6": ["oak", "gold"]}, Setting(depth=1))


def test_the_result_is_json_with_the_measures_first(dataset):
    result = evaluate(FakeReranker(), dataset, RUN, Setting(shuffle=3, limit=4)).to_dict()
    assert json.loads(json.dumps(result)) == result
    assert tuple(result)[: len(MEASURES)] == MEASURES
    assert result["queries"] == 4
    assert result["config"] == RerankerConfig().to_dict()
    assert result["layers"] == [1, 2]
    assert result["tokens"] == 28
    assert result["truncated_documents"] == 4
    assert set(result["seconds"]) == {"median", "total"}
    assert set(result["per_query"]) == set(RANKED)
    assert result["versions"]["ir-measures"] is not None
    assert result["hardware"]["cpus"] >= 1


def test_progress_and_preparation_are_told(dataset):
    calls = []
    reranker = FakeReranker()
    evaluate(
        reranker,
        dataset,
        RUN,
        Setting(limit=2),
        progress=lambda *numbers: calls.append(numbers),
        prepare=lambda: calls.append("prepare"),
    )
    assert calls == ["prepare", (0, 2), (1, 2), (2, 2)]


# --- going on after an interruption ---------------------------------------------------------


@pytest.fixture
def state(tmp_path):
    return tmp_path / "new" / "state.jsonl"


def run_again(dataset, state, setting=None, config=None, run=RUN):
    """Evaluate with a fresh reranker; the result, and the queries that it had to rank."""
    reranker = FakeReranker(config, reverse=True)
    result = evaluate(reranker, dataset, run, setting or Setting(), state)
    return result, [query for query, _ in reranker.calls]


def interrupt(dataset, state, after):
    reranker = FakeReranker(reverse=True)
    reranker.fail_at = after
    with pytest.raises(KeyboardInterrupt):
        evaluate(reranker, dataset, RUN, Setting(), state)


def test_an_interrupted_evaluation_goes_on(dataset, state):
    whole = evaluate(FakeReranker(reverse=True), dataset, RUN, Setting())
    interrupt(dataset, state, after=3)
    result, ranked = run_again(dataset, state)
    assert ranked == [QUERIES["q6"]]
    assert result.per_query == whole.per_query
    assert result.run == whole.run
    prepared = []
    evaluate(FakeReranker(), dataset, RUN, Setting(), state, prepare=lambda: prepared.append(1))
    assert run_again(dataset, state)[1] == []
    assert prepared == []


def test_a_half_written_line_is_ranked_again(dataset, state):
    whole, _ = run_again(dataset, state)
    content = state.read_bytes()
    last = content.rindex(b"\n", 0, -1) + 1
    for cut in range(last, len(content) - 1):
        state.write_bytes(content[:cut])
        result, ranked = run_again(dataset, state)
        assert ranked == [QUERIES["q6"]]
        assert result.run == whole.run
        # The next process reads the line that was written after the half one.
        assert run_again(dataset, state)[1] == []


@pytest.mark.parametrize(
    "line", ["null", "3", '{"query": "q1"}', '{"query": "q1", "order": [0], "other": 1}', "\x00"]
)
def test_a_line_that_is_no_result_is_ranked_again(dataset, state, line):
    run_again(dataset, state)
    rows = state.read_text().splitlines()
    state.write_text("\n".join([rows[0], line, *rows[2:]]) + "\n")
    assert run_again(dataset, state)[1] == [QUERIES["q1"]]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{}\n", b"no json\n", b'{"fingerprint": '])
def test_a_file_that_is_no_state_is_begun_anew(dataset, state, content):
    state.parent.mkdir()
    state.write_bytes(content)
    assert len(run_again(dataset, state)[1]) == len(RANKED)
    assert run_again(dataset, state)[1] == []


def test_another_profile_under_the_same_name_is_ranked_anew(dataset, state, tmp_path, monkeypatch):
    path = tmp_path / "profile.json"
    path.write_text("{}")
    config = RerankerConfig(profile=str(path))
    run_again(dataset, state, config=config)
    assert run_again(dataset, state, config=config)[1] == []
    path.write_text('{"a": 1}')
    assert len(run_again(dataset, state, config=config)[1]) == len(RANKED)
    monkeypatch.setattr(harness, "shipped_profiles", tuple)
    assert len(run_again(dataset, state, config=config)[1]) == len(RANKED)


@pytest.mark.parametrize(
    "change",
    [
        {"setting": Setting(depth=2)},
        {"setting": Setting(shuffle=1)},
        {"config": RerankerConfig(layers=(1, 2))},
        {"config": RerankerConfig(instruction="question_answering")},
        {"run": {**RUN, "q1": ["tin", "lead", "oak"]}},
    ],
)
def test_other_settings_use_no_finished_query(dataset, state, change):
    run_again(dataset, state)
    assert len(run_again(dataset, state, **change)[1]) == len(RANKED)


def test_changed_texts_use_no_finished_query(folder, dataset, state):
    run_again(dataset, state)
    for file, old, new in (("corpus", "Oaks", "Elms"), ("queries", "Which tree", "What tree")):
        path = folder / f"{file}.jsonl"
        path.write_text(path.read_text().replace(old, new))
        assert len(run_again(load_beir(folder), state)[1]) == len(RANKED)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_other_weights_under_the_same_name_use_no_finished_query(dataset, state, tmp_path, kind):
    model = tmp_path / "model"
    weights = model / "model.safetensors" if kind == "folder" else model
    weights.parent.mkdir(exist_ok=True)
    weights.write_text("old")
    config = RerankerConfig(model=str(model))
    run_again(dataset, state, config=config)
    if kind == "folder":
        (model / "results.json").write_text("{}")
    assert run_again(dataset, state, config=config)[1] == []
    weights.write_text("trained")
    assert len(run_again(dataset, state, config=config)[1]) == len(RANKED)


def test_a_larger_limit_goes_on(dataset, state):
    assert len(run_again(dataset, state, Setting(limit=2))[1]) == 2
    assert run_again(dataset, state, Setting(limit=3))[1] == [QUERIES["q4"]]
    result, ranked = run_again(dataset, state, Setting(limit=1))
    assert ranked == []
    assert list(result.per_query) == ["q1"]
    # What a smaller limit does not look at is kept.
    assert run_again(dataset, state)[1] == [QUERIES["q6"]]


def test_a_state_file_that_cannot_be_used_is_an_error(dataset, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot use the state file"):
        run_again(dataset, tmp_path / "file" / "state.jsonl")
    with pytest.raises(DataError, match="cannot use the state file"):
        run_again(dataset, tmp_path)


def test_importing_the_evaluation_does_not_import_torch():
    code = "import sys, icr_rag.evaluation.harness; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_global_random_state_is_left_alone(dataset):
    state = random.getstate()
    evaluate(FakeReranker(), dataset, RUN, Setting(shuffle=1))
    assert random.getstate() == state


def test_the_corpus_is_not_changed(dataset):
    evaluate(FakeReranker(), dataset, RUN, Setting(shuffle=1))
    assert {name: document.text for name, document in dataset.documents.items()} == {
        name: text for name, (_, text) in CORPUS.items()
    }


def test_fusion_takes_the_runs_scores_also_when_shuffled(folder, tmp_path):
    run = tmp_path / "run.tsv"
    names = ["tin", "lead", "oak"]
    rows = [f"q1\t{name}\t{rank + 1}\t{9 - rank}" for rank, name in enumerate(names)]
    run.write_text("query-id\tcorpus-id\trank\tscore\n" + "\n".join(rows) + "\n")
    scores = read_run_scores(run)
    assert scores == {"q1": {"tin": 9.0, "lead": 8.0, "oak": 7.0}}
    model = Reranker.from_model(
        tiny_model("llama"), byte_tokenizer(), fusion="weighted", fusion_weight=0.0
    )
    setting = Setting(depth=3, shuffle=7)
    dataset = load_beir(folder)
    assert given_order(names, "q1", setting) != names
    result = evaluate(model, dataset, read_run(run), setting, retrieval_scores=scores)
    assert result.run["q1"] == names
