"""A query that is a document of the corpus does not find itself, wherever candidates come from."""

from __future__ import annotations

import json
from contextlib import nullcontext

import pytest
from beir import FakeReranker
from hypothesis import given
from hypothesis import strategies as st

from icr_rag import Document, cli
from icr_rag.errors import ConfigError
from icr_rag.evaluation.datasets import Dataset
from icr_rag.evaluation.grid import run_grid
from icr_rag.evaluation.grid_config import make_grid
from icr_rag.evaluation.harness import Setting, evaluate, given_order
from icr_rag.evaluation.sources import load_for_ranking, load_source
from icr_rag.profiling.sources import Wanted, load_queries

#: As in ArguAna: arguments are queries, and documents too. "a" is judged to be its own answer.
TEXTS = {
    "a": "Tin should be banned because tin melts.",
    "b": "Tin should be allowed, because it melts late.",
    "c": "Oaks should be banned.",
    "d": "Oaks carry acorns, and should be allowed.",
}
JUDGEMENTS = {"a": {"b": 1}, "c": {"d": 1, "c": 1}, "e": {"d": 1}}
QUERIES = {**{name: TEXTS[name] for name in "ac"}, "e": "Which trees carry acorns?"}
RUN = {"a": ["a", "b", "c"], "c": ["d", "c", "a"], "e": ["c", "d"]}
WITHOUT = {"a": ["b", "c"], "c": ["d", "a"], "e": ["c", "d"]}
NOTE = "For 2 queries the document that has the query's id is no candidate"


def dataset():
    documents = {name: Document(text, id=name) for name, text in TEXTS.items()}
    return Dataset("arguments", documents, QUERIES, JUDGEMENTS)


def lines(rows):
    return "".join(f"{row}\n" for row in rows)


@pytest.fixture
def folder(tmp_path):
    """The data as a BEIR folder with and without a run, and as TREC's files."""
    for name in ("beir", "plain"):
        place = tmp_path / name
        place.mkdir()
        for kind, texts in (("corpus", TEXTS), ("queries", QUERIES)):
            rows = (json.dumps({"_id": key, "text": text}) for key, text in texts.items())
            (place / f"{kind}.jsonl").write_text(lines(rows))
        rows = (f"{q}\t{d}\t{g}" for q, graded in JUDGEMENTS.items() for d, g in graded.items())
        (place / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + lines(rows))
    run = [
        f"{query} Q0 {name} {rank} {9 - rank} x"
        for query, names in RUN.items()
        for rank, name in enumerate(names, start=1)
    ]
    (tmp_path / "beir" / "run.trec").write_text(lines(run))
    (tmp_path / "run.trec").write_text(lines(run))
    (tmp_path / "docs.tsv").write_text(lines(f"{k}\t{v}" for k, v in TEXTS.items()))
    (tmp_path / "topics.tsv").write_text(lines(f"{k}\t{v}" for k, v in QUERIES.items()))
    rows = (f"{q} 0 {d} {g}" for q, graded in JUDGEMENTS.items() for d, g in graded.items())
    (tmp_path / "qrels.txt").write_text(lines(rows))
    return tmp_path


TREC = "trec:corpus=docs.tsv,topics=topics.tsv,qrels=qrels.txt,run=run.trec"


# --- measuring --------------------------------------------------------------------------------


def test_it_is_neither_ranked_nor_measured():
    reranker = FakeReranker()
    result = evaluate(reranker, dataset(), RUN, Setting())
    assert reranker.calls == [(QUERIES[query], WITHOUT[query]) for query in RUN]
    assert result.run == WITHOUT
    assert result.candidates["P@1"] == pytest.approx(2 / 3)
    assert result.to_dict()["ignore_identical_ids"] is True


def test_it_is_where_it_is_to_be_kept():
    reranker = FakeReranker()
    result = evaluate(reranker, dataset(), RUN, Setting(ignore_identical_ids=False))
    assert result.run == RUN
    assert result.candidates["P@1"] == pytest.approx(1 / 3)
    assert result.to_dict()["ignore_identical_ids"] is False


def test_finished_queries_of_the_other_rule_are_not_taken(tmp_path):
    state = tmp_path / "state.jsonl"
    for setting in (Setting(), Setting(ignore_identical_ids=False), Setting()):
        reranker = FakeReranker()
        evaluate(reranker, dataset(), RUN, setting, state)
        assert len(reranker.calls) == 3


@given(
    st.lists(st.sampled_from("abcdefgh"), unique=True),
    st.sampled_from("abcdefgh"),
    st.integers(1, 9),
    st.none() | st.integers(0, 9),
)
def test_depth_counts_the_others(names, query, depth, seed):
    without = [name for name in names if name != query]
    found = given_order(names, query, Setting(depth, seed))
    assert found == given_order(without, query, Setting(depth, seed))
    assert sorted(found[:depth]) == sorted(without[:depth])
    assert found[depth:] == without[depth:]
    kept = given_order(names, query, Setting(depth, seed, ignore_identical_ids=False))
    assert sorted(kept[:depth]) == sorted(names[:depth])


# --- loading ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["beir", TREC])
def test_runs_lose_it_before_they_are_cut(folder, name):
    source = load_for_ranking(name, 1, base=folder)
    assert source.candidates == WITHOUT
    # The first of each, and no more.
    assert set(source.dataset.documents) == {"b", "c", "d"}
    assert [note for note in source.notes if note.startswith(NOTE)]
    evaluate(FakeReranker(), source.dataset, source.candidates, Setting(1))
    kept = load_for_ranking(name, 1, base=folder, ignore_identical_ids=False)
    assert kept.candidates == RUN
    assert set(kept.dataset.documents) == {"a", "c", "d"}
    assert not [note for note in kept.notes if "identical" in note]


def test_a_run_that_is_named_loses_it_too(folder):
    source = load_for_ranking("plain", 2, run=folder / "run.trec", base=folder)
    assert source.candidates == WITHOUT
    assert source.notes[-1].startswith(NOTE)
    assert source.dataset.judgements["c"] == JUDGEMENTS["c"]


def test_bm25_does_not_find_it(folder):
    source = load_for_ranking("plain", 2, base=folder)
    assert source.candidates["a"][0] == "b"
    assert all(query not in names for query, names in source.candidates.items())
    assert source.notes[-1].startswith(NOTE)
    kept = load_for_ranking("plain", 2, base=folder, ignore_identical_ids=False)
    assert kept.candidates["a"][0] == "a"
    assert kept.notes == ()


def test_data_without_such_queries_have_no_note(folder):
    (folder / "plain" / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\ne\td\t1\n")
    for run in (None, folder / "run.trec"):
        assert load_for_ranking("plain", 2, run=run, base=folder).notes == ()


def test_what_is_loaded_says_what_is_excluded(folder):
    source = load_source(TREC, base=folder)
    assert source.candidates == WITHOUT
    assert source.excluded == {query: frozenset({query}) for query in RUN}
    kept = load_source(TREC, base=folder, ignore_identical_ids=False)
    assert (kept.candidates, kept.excluded) == (RUN, {})


# --- commands ---------------------------------------------------------------------------------


def test_the_command_has_a_switch_and_tells(folder, model_folder, capsys):
    settings = ["--model", model_folder, "--dtype", "float32", "--layers", "1-2", "--json", "-"]
    arguments = ["evaluate", str(folder / "beir"), *settings, "--cache-dir", str(folder / "cache")]
    assert cli.main(arguments) == 0
    shown = capsys.readouterr()
    report = json.loads(shown.out)
    assert report["ignore_identical_ids"] is True
    assert report["notes"][-1].startswith(NOTE)
    assert NOTE in shown.err
    assert report["candidates"]["P@1"] == pytest.approx(2 / 3)
    assert cli.main([*arguments, "--keep-identical-ids"]) == 0
    shown = capsys.readouterr()
    report = json.loads(shown.out)
    assert (report["ignore_identical_ids"], report["notes"]) == (False, [])
    assert report["candidates"]["P@1"] == pytest.approx(1 / 3)


class Silent:
    def row(self, *_):
        pass

    query = row

    def loading(self, _):
        return nullcontext()


def test_a_grid_says_it_for_each_of_its_data(folder):
    data = [
        {"source": "beir", "name": "without"},
        {"source": "beir", "name": "with", "ignore_identical_ids": False},
    ]
    grid = make_grid({"data": data, "peers": ["bm25"], "measures": ["P@1"]})
    result = run_grid(grid, folder / "state", Silent(), folder=folder)
    values = {place.dataset: given["P@1"] for place, given in result.given.items()}
    assert values == pytest.approx({"without": 2 / 3, "with": 1 / 3})
    measured = {row.slice.dataset: row.evaluation.measures["P@1"] for row in result.rows}
    assert measured == values
    assert (
        [note for note in result.notes if NOTE in note]
        == [note for note in result.notes if note.startswith("without: For 2")]
        != []
    )
    with pytest.raises(ConfigError, match="ignore_identical_ids"):
        make_grid({"data": [{"source": "x", "ignore_identical_ids": "maybe"}], "peers": ["bm25"]})


def test_profiles_are_not_made_from_it(folder):
    wanted = Wanted("labelled", (), 9, None, 1)
    (task,) = load_queries([folder / "beir"], wanted)
    assert task.candidates == WITHOUT
    assert set(task.dataset.documents) >= {names[0] for names in WITHOUT.values()}
