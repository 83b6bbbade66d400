"""A grid of evaluations: what the file may say, what is run, what survives errors and breaks."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from beir import RUN, FakeReranker, write_beir

from icr_rag.errors import ConfigError, DataError
from icr_rag.evaluation.comparison import compare
from icr_rag.evaluation.datasets import load_beir
from icr_rag.evaluation.grid import clear_state, run_grid
from icr_rag.evaluation.grid_config import QuerySubset, make_grid
from icr_rag.evaluation.grid_data import choose_queries, cut_documents

RANKED = ["q1", "q2", "q4", "q6"]


class Events:
    def __init__(self):
        self.rows, self.queries, self.loaded = [], [], []

    def row(self, number, total, name):
        self.rows.append((number, total, name))

    def query(self, finished, total):
        self.queries.append((finished, total))

    @contextmanager
    def loading(self, name):
        self.loaded.append(name)
        yield


class Factory:
    """Makes fakes: a system that reads all layers reverses, one of setwise fails."""

    def __init__(self, interrupt_at=None):
        self.made = []
        self.interrupt_at = interrupt_at

    def __call__(self, config):
        fake = FakeReranker(config, reverse=config.layers == "all")
        fake.closed = False
        fake.close = lambda: setattr(fake, "closed", True)
        fake.fail_at = self.interrupt_at
        if config.framework == "setwise":

            def fail(*arguments, **options):
                raise ValueError("no luck")

            fake.rank = fail
        self.made.append(fake)
        return fake

    @property
    def calls(self):
        return sum(len(fake.calls) for fake in self.made)


@pytest.fixture
def folder(tmp_path):
    return write_beir(tmp_path / "data" / "tiny")


def grid(**changes):
    return make_grid({"data": ["tiny"], "depths": [3], "systems": {"keep": None}, **changes})


def run(given, folder, tmp_path, factory=None, events=None):
    factory = Factory() if factory is None else factory
    result = run_grid(
        given,
        tmp_path / "state",
        Events() if events is None else events,
        folder=folder.parent,
        make_reranker=factory,
    )
    return result, factory


def by_name(result):
    return {(row.slice.order, row.slice.depth, row.system): row for row in result.rows}


# --- data -----------------------------------------------------------------------------------


def test_parity_halves_the_queries():
    ids = [str(number) for number in range(40)] + [f"query-{number}" for number in range(200)]
    even = choose_queries(ids, QuerySubset(parity="even"))
    odd = choose_queries(ids, QuerySubset(parity="odd"))
    assert sorted(even + odd) == sorted(ids)
    assert [query for query in even if query.isdigit()] == [str(n) for n in range(0, 40, 2)]
    # Other ids fall on both sides, about equally.
    assert 60 < len([query for query in odd if not query.isdigit()]) < 140
    assert choose_queries(ids, QuerySubset(parity="odd", limit=2)) == ["1", "3"]
    assert choose_queries(ids, QuerySubset()) == ids


def test_documents_are_cut_at_words(folder):
    dataset = load_beir(folder)
    short = cut_documents(dataset, 3)
    assert short.documents["tin"].content == "Tin\nTin melts"
    assert short.documents["zinc"].content == "Zinc melts at"
    assert short.documents["fir"] is dataset.documents["fir"]
    assert cut_documents(dataset, 9).documents == dataset.documents
    assert dataset.documents["tin"].text == "Tin melts at 232 degrees."


def test_mistakes_in_the_data_raise_before_anything_is_ranked(folder, tmp_path):
    factory = Factory()
    (folder / "queries.jsonl").write_text('{"_id": "1", "text": "Tin?"}\n')
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n1\ttin\t1\n")
    halved = grid(data=[{"source": "tiny", "queries": {"parity": "even"}}])
    with pytest.raises(DataError, match=r"no query is left with \{'parity': 'even'\}"):
        run(halved, folder, tmp_path, factory)
    with pytest.raises(DataError, match="no candidates for any query"):
        run(grid(), folder, tmp_path, factory)
    with pytest.raises(ConfigError, match="measure 'nDCG@x'"):
        run(grid(measures=["nDCG@x"]), folder, tmp_path, factory)
    with pytest.raises(ConfigError, match="peer='nobody'; allowed are bm25"):
        run(grid(peers=["nobody"]), folder, tmp_path, factory)
    assert factory.made == []


# --- running --------------------------------------------------------------------------------


def test_every_system_on_every_order_and_depth(folder, tmp_path):
    events = Events()
    given = grid(
        orders=["given", 5],
        depths=[2, 3],
        measures=["P@1", "R@20"],
        systems={"keep": {}, "reverse": {"layers": "all"}},
        peers=["bm25"],
    )
    result, factory = run(given, folder, tmp_path, events=events)
    assert [(r.slice.order, r.slice.depth, r.system) for r in result.rows] == [
        (order, depth, system)
        for order in ("given", "shuffled (seed 5)")
        for depth in (2, 3)
        for system in ("keep", "reverse", "bm25")
    ]
    rows = by_name(result)
    assert rows["given", 2, "reverse"].evaluation.run["q4"] == ["lead", "zinc", "tin", "oak"]
    assert rows["given", 3, "reverse"].evaluation.run["q4"] == ["tin", "lead", "zinc", "oak"]
    assert set(rows["given", 3, "keep"].evaluation.measures) == {"P@1", "R@20"}
    # One fake per system: the weights serve all slices, and are let go.
    assert [fake.config.layers for fake in factory.made] == ["auto", "all"]
    assert all(fake.closed for fake in factory.made)
    # The first stage's order is its own even where the others' is shuffled.
    for depth in (2, 3):
        shuffled = rows["shuffled (seed 5)", depth, "bm25"]
        assert shuffled.evaluation.run == {query: RUN[query] for query in RANKED}
        assert shuffled.costs == {}
    keep = rows["shuffled (seed 5)", 3, "keep"].evaluation
    assert keep.run != rows["given", 3, "keep"].evaluation.run
    assert result.given[rows["shuffled (seed 5)", 3, "keep"].slice] == keep.measures
    assert events.rows[0][:2] == (0, 12)
    assert events.rows[-1] == (12, 12, "")
    assert events.queries[0] == (0, 5)


def test_costs_are_per_query(folder, tmp_path):
    result, _ = run(grid(), folder, tmp_path)
    costs = result.rows[0].costs
    assert (costs["tokens"], costs["calls"], costs["repairs"]) == (7, 0, 0)
    assert costs["seconds"] == result.rows[0].evaluation.seconds_per_query


def test_only_the_subset_counts(folder, tmp_path):
    entry = {"source": "tiny", "queries": {"limit": 2}, "name": "few"}
    result, factory = run(grid(data=[entry]), folder, tmp_path)
    assert list(result.rows[0].evaluation.per_query) == ["q1", "q2"]
    assert result.rows[0].slice.dataset == "few"
    assert factory.calls == 2


def test_nothing_is_ranked_twice(folder, tmp_path):
    first, factory = run(grid(), folder, tmp_path)
    assert factory.calls == len(RANKED)
    again, factory = run(grid(), folder, tmp_path)
    # Not even the weights are loaded.
    assert factory.made == []
    assert again.rows[0].evaluation.measures == first.rows[0].evaluation.measures
    more = grid(systems={"keep": None, "other": {"layers": "all"}})
    assert run(more, folder, tmp_path)[1].calls == len(RANKED)
    clear_state(tmp_path / "state")
    assert run(more, folder, tmp_path)[1].calls == 2 * len(RANKED)


def test_an_interrupted_grid_goes_on(folder, tmp_path):
    given = grid(systems={"a": {}, "b": {"layers": "all"}})
    with pytest.raises(KeyboardInterrupt):
        run(given, folder, tmp_path, broken := Factory(interrupt_at=2))
    assert [len(fake.calls) for fake in broken.made] == [2]
    assert broken.made[0].closed
    result, factory = run(given, folder, tmp_path)
    assert [len(fake.calls) for fake in factory.made] == [len(RANKED) - 2, len(RANKED)]
    assert [row.status for row in result.rows] == ["done", "done"]


def test_an_error_stays_in_its_row(folder, tmp_path):
    given = grid(systems={"bad": {"framework": "setwise"}, "good": {}}, baseline="bad")
    result, _ = run(given, folder, tmp_path)
    bad, good = result.rows
    assert (bad.status, bad.reason) == ("failed", "ValueError: no luck")
    assert "raise ValueError" in bad.traceback
    assert (good.status, good.evaluation is None) == ("done", False)
    assert result.failed == [bad]
    compare(result)
    assert good.difference is None
    assert "the baseline bad was not measured" in result.notes[-1]


def test_weights_that_do_not_load_are_tried_once(folder, tmp_path):
    tried = []

    def broken(config):
        tried.append(config)
        raise OSError("no such weights")

    result, _ = run(grid(orders=["given", 1, 2]), folder, tmp_path, broken)
    assert [row.reason for row in result.rows] == ["OSError: no such weights"] * 3
    assert len(tried) == 1


def test_weights_are_shared_and_let_go(folder, tmp_path):
    """A system's weights live until the next one on the same model has its own."""
    made = []

    class Watching(Factory):
        def __call__(self, config):
            made.append([fake.closed for fake in self.made])
            return super().__call__(config)

    names = {"a": {}, "b": {"layers": "all"}, "c": {"model": "other"}}
    _, factory = run(grid(systems=names), folder, tmp_path, Watching())
    assert made == [[], [False], [True, True]]
    assert all(fake.closed for fake in factory.made)


PAIRS = {"all": {"scoring": ["attention", "likelihood"], "framework": ["listwise", "pairwise"]}}


def test_settings_that_do_not_go_together_are_marked(folder, tmp_path):
    result, factory = run(grid(systems=PAIRS, skip_invalid=True), folder, tmp_path)
    assert [row.status for row in result.rows] == ["done", "invalid", "done", "done"]
    assert "does not go with" in result.rows[1].reason
    assert len(factory.made) == 3
    assert result.failed == []


# --- against the baseline -------------------------------------------------------------------


def test_systems_are_tested_against_the_baseline(folder, tmp_path):
    given = grid(
        systems={"keep": {}, "reverse": {"layers": "all"}, "same": {"max_query_tokens": 9}},
        baseline="keep",
        orders=["given", 1],
    )
    result, _ = run(given, folder, tmp_path)
    compare(result)
    rows = by_name(result)
    reverse = rows["given", 3, "reverse"]
    values = [
        reverse.evaluation.measures["nDCG@10"],
        rows["given", 3, "keep"].evaluation.measures["nDCG@10"],
    ]
    assert reverse.difference.mean == pytest.approx(values[0] - values[1])
    assert reverse.difference.low <= reverse.difference.mean <= reverse.difference.high
    assert reverse.difference.p <= reverse.difference.p_holm <= 1
    assert rows["given", 3, "same"].difference.p == 1
    assert rows["given", 3, "keep"].difference is None
    assert rows["shuffled (seed 1)", 3, "same"].difference.mean == 0
    # Where the candidates come from, and nothing else.
    assert result.notes == ["tiny: Candidates are the run run.tsv."]
