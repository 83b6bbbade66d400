"""Data sets by name, their candidates, and ir_datasets."""

import json
import sys
from pathlib import Path

import pytest
from beir import CORPUS, QUERIES, RUN, write_beir
from test_bright import write_bright
from test_candidates_json import ICR

from icr_rag import Document
from icr_rag.errors import DataError, MissingDependencyError
from icr_rag.evaluation.datasets import load_beir
from icr_rag.evaluation.sources import load_for_ranking, load_source, without_excluded

TREC = "trec:corpus=docs.tsv,topics=topics.tsv,qrels=qrels.txt"


@pytest.fixture
def folder(tmp_path):
    """Relative names of every kind of source."""
    write_beir(tmp_path / "beir")
    write_bright(tmp_path / "bright", ".jsonl")
    (tmp_path / "icr.json").write_text(json.dumps(ICR))
    (tmp_path / "docs.tsv").write_text("d1\ttin melts\nd2\toak\nd3\ttin, tin\n")
    (tmp_path / "topics.tsv").write_text("7\twhere does tin melt\n")
    (tmp_path / "qrels.txt").write_text("7 0 d1 1\n")
    (tmp_path / "other, qrels.txt").write_text("q2 0 a 1\n")
    (tmp_path / "run.trec").write_text("7 Q0 d2 1 3.5 x\n7 Q0 d1 2 1.5 x\n")
    return tmp_path


# --- by name --------------------------------------------------------------------------------


def test_a_beir_folder_is_what_load_beir_reads(folder, monkeypatch):
    source = load_source("beir", keep={"tin"}, base=folder)
    assert source.dataset == load_beir(folder / "beir", keep={"tin"})
    assert (source.candidates, source.scores, source.first_stage) == (None, None, "")
    monkeypatch.chdir(folder)
    assert load_source("beir").dataset == load_beir(folder / "beir")
    assert load_source(str(folder / "beir"), base=Path("/nowhere")).dataset.name == "beir"


def test_the_split_of_a_beir_folder(folder):
    (folder / "beir" / "qrels").mkdir()
    (folder / "beir" / "qrels" / "test.tsv").write_text("q1\ttin\t1\n")
    with pytest.raises(DataError, match=r"no judgements at .*dev\.tsv"):
        load_source("beir", split="dev", base=folder)


def test_a_bright_folder_with_the_domain_as_split(folder):
    source = load_source("bright", split="biology", keep={"d1.txt"}, base=folder)
    assert source.dataset.name == "biology"
    assert list(source.dataset.documents) == ["d1.txt"]
    assert source.excluded["1"] == {"d4.txt", "d5.txt", "1"}
    whole = load_source("bright", split="biology/long", base=folder)
    assert list(whole.dataset.documents) == ["page"]
    with pytest.raises(DataError, match="is a copy of BRIGHT; give the domain as split: biology, "):
        load_source("bright", base=folder)
    with pytest.raises(DataError, match="'dev' is no domain of BRIGHT"):
        load_source("bright", split="dev", base=folder)


def test_a_bright_domain_from_the_hub(folder, monkeypatch):
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda *_, **__: str(folder / "bright")
    )
    source = load_source("bright:biology/gpt4_reason")
    assert source.dataset.queries["0"] == "thoughts 0"


def test_candidates_in_json_leave_out_what_is_excluded(folder):
    for name in ("icr.json", "candidates:file=icr.json"):
        source = load_source(name, base=folder)
        assert source.candidates == {"q1": ["a", "b"], "q2": ["a"]}
        assert source.first_stage == "the source's own candidates"
        assert len(source.notes) == 1
    judged = load_source("candidates:file=icr.json,qrels=other, qrels.txt", base=folder)
    assert judged.dataset.judgements == {"q2": {"a": 1}}
    assert judged.notes == ()


def test_trec_s_files(folder):
    assert load_source(TREC, base=folder).candidates is None
    source = load_source(f"{TREC},run=run.trec", keep={"d1"}, base=folder)
    assert source.candidates == {"7": ["d2", "d1"]}
    assert source.scores == {"7": {"d2": 3.5, "d1": 1.5}}
    assert source.dataset.documents == {"d1": Document("tin melts", id="d1")}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "nowhere",
            "'nowhere' is no data set: there is no such folder or .json file in .*, and it",
        ),
        ("beir:scifact", "does not begin with ir_datasets:, bright:, candidates:, trec:"),
        ("docs.tsv", "is no data set"),
        ("empty", r"cannot read .*queries\.jsonl"),
        ("both", r"holds both corpus\.jsonl \(BEIR\) and documents \(BRIGHT\)"),
        ("trec:docs.tsv", r"not of the form trec:corpus=FILE,topics=FILE,qrels=FILE\[,run=FILE\]"),
        ("trec:corpus=a,topics=b", "not of the form"),
        ("trec:corpus=a,topics=b,qrels=", "not of the form"),
        ("trec:corpus=a,corpus=b,topics=b,qrels=c", "not of the form"),
        ("candidates:", r"not of the form candidates:file=FILE\[,qrels=FILE\]"),
        ("candidates:file=x.json", r"cannot read .*x\.json"),
        ("bright:", "'' is no domain of BRIGHT"),
    ],
)
def test_what_is_no_source(folder, name, message):
    (folder / "empty").mkdir()
    (folder / "both" / "documents").mkdir(parents=True)
    (folder / "both" / "corpus.jsonl").touch()
    with pytest.raises(DataError, match=message):
        load_source(name, base=folder)


@pytest.mark.parametrize("name", ["bright:biology", "ir_datasets:x", "candidates:file=f", TREC])
def test_a_split_is_for_folders(name):
    with pytest.raises(DataError, match="split='dev' is for folders"):
        load_source(name, split="dev")


def test_without_excluded():
    run = {"q": ["a", "b", "c"], "r": ["b"]}
    assert without_excluded(run, {"q": {"b", "z"}}) == {"q": ["a", "c"], "r": ["b"]}
    assert run["q"] == ["a", "b", "c"]


# --- with candidates ------------------------------------------------------------------------


def test_the_run_in_a_folder(folder):
    source = load_for_ranking("beir", 1, base=folder)
    assert source.candidates == RUN
    assert source.first_stage == "the run run.tsv"
    assert source.scores["q1"]["lead"] == 9.5
    # Of each query only the first is ranked.
    assert set(source.dataset.documents) == {"lead", "oak", "zinc"}
    (folder / "beir" / "run.2.tsv").touch()
    with pytest.raises(DataError, match=r"several runs: run\.2\.tsv, run\.tsv"):
        load_for_ranking("beir", 1, base=folder)
    chosen = load_for_ranking("beir", 2, run=Path("beir/run.tsv"), base=folder)
    assert chosen.candidates == RUN


def test_a_run_that_is_named_goes_before_the_source_s_own(folder):
    (folder / "mine.trec").write_text("7 Q0 d3 1 3.5 x\n")
    name = f"{TREC},run=run.trec"
    assert load_for_ranking(name, 9, base=folder).candidates == {"7": ["d2", "d1"]}
    source = load_for_ranking(name, 9, run=Path("mine.trec"), base=folder)
    assert source.candidates == {"7": ["d3"]}
    assert list(source.dataset.documents) == ["d3"]


def test_bm25_where_there_is_no_run(folder):
    (folder / "beir" / "run.tsv").unlink()
    source = load_for_ranking("beir", 1, base=folder)
    assert source.first_stage == "BM25 (bm25s, k1=0.9, b=0.4, stemmed)"
    assert list(source.candidates) == [q for q in QUERIES if q not in ("q3", "q5")]
    assert source.candidates["q2"][0] == "oak"
    # More than are ranked, so that recall can be measured; texts only of those that are.
    assert len(source.candidates["q4"]) > 1
    assert list(source.scores["q4"]) == source.candidates["q4"]
    assert set(source.dataset.documents) == {ranked[0] for ranked in source.candidates.values()}
    assert set(source.dataset.documents) < set(CORPUS)


def test_excluded_documents_are_taken_out_before_counting(folder):
    run = folder / "mine.trec"
    order = ["d4.txt", "d5.txt", "d0.txt", "d3.txt"]
    run.write_text(
        "".join(f"{q} Q0 {d} {rank} {-rank} x\n" for q in "01" for rank, d in enumerate(order))
    )
    source = load_for_ranking("bright", 2, split="biology", run=run, base=folder)
    assert source.candidates == {"0": order, "1": ["d0.txt", "d3.txt"]}
    assert set(source.dataset.documents) == set(order)


def test_bm25_does_not_find_what_is_excluded(folder, monkeypatch):
    source = load_for_ranking("bright", 2, split="biology/gpt4_reason", base=folder)
    assert source.candidates == {"0": [], "1": []}
    rows = [{"id": f"d{n}.txt", "content": "thoughts"} for n in (5, 4, 3, 2, 1, 0)]
    path = folder / "bright" / "documents" / "biology.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr("icr_rag.evaluation.sources._BM25_DEPTH", 1)
    source = load_for_ranking("bright", 2, split="biology/gpt4_reason", base=folder)
    assert source.candidates == {"0": ["d5.txt", "d4.txt"], "1": ["d3.txt", "d2.txt"]}


# --- ir_datasets ----------------------------------------------------------------------------


@pytest.fixture
def library(folder, monkeypatch):
    """ir_datasets with a data set "local/small" built from local files, and parts of it."""
    ir_datasets = pytest.importorskip("ir_datasets")
    monkeypatch.setenv("IR_DATASETS_HOME", str(folder / "home"))
    download, formats = ir_datasets.util.LocalDownload, ir_datasets.formats
    parts = [
        formats.TsvDocs(download(folder / "docs.tsv")),
        formats.TsvQueries(download(folder / "topics.tsv")),
        formats.TrecQrels(download(folder / "qrels.txt"), {}),
        formats.TrecScoredDocs(download(folder / "run.trec")),
    ]
    (folder / "run.trec").write_text("7 Q0 d2 1 1.5 x\n7 Q0 d1 2 3.5 x\n7 Q0 d3 3 1.5 x\n")
    registry = ir_datasets.util.Registry()
    for name, used in {"small": parts, "unscored": parts[:3], "unjudged": parts[:2]}.items():
        registry.register(f"local/{name}", ir_datasets.Dataset(*used))
    monkeypatch.setattr(ir_datasets, "registry", registry)
    return ir_datasets


def test_a_data_set_of_ir_datasets(library, folder):
    source = load_source("ir_datasets:local/small", keep={"d3", "unknown"})
    assert source.dataset.name == "local/small"
    assert source.dataset.queries == {"7": "where does tin melt"}
    assert source.dataset.judgements == {"7": {"d1": 1}}
    assert source.dataset.documents == {"d3": Document("tin, tin", id="d3")}
    # By score, whatever the order of the file; equal scores in its order.
    assert source.candidates == {"7": ["d1", "d2", "d3"]}
    assert source.scores == {"7": {"d1": 3.5, "d2": 1.5, "d3": 1.5}}
    assert list(load_source("ir_datasets:local/small").dataset.documents) == ["d1", "d2", "d3"]


def test_only_candidates_are_looked_up(library, monkeypatch):
    asked = []
    store = library.load("local/small").docs_store()
    get_many = type(store).get_many
    monkeypatch.setattr(
        type(store),
        "get_many",
        lambda self, ids, field=None: asked.append(list(ids)) or get_many(self, ids, field),
    )
    source = load_for_ranking("ir_datasets:local/small", 1)
    assert list(source.dataset.documents) == ["d1"]
    assert asked == [["d1"]]


def test_bm25_where_ir_datasets_has_no_scored_documents(library):
    source = load_for_ranking("ir_datasets:local/unscored", 1)
    assert source.candidates == {"7": ["d1", "d3"]}
    assert list(source.dataset.documents) == ["d1"]


def test_titles_of_ir_datasets(library, monkeypatch):
    from typing import NamedTuple

    class Titled(NamedTuple):
        doc_id: str
        text: str
        title: str

        def default_text(self):
            raise AssertionError("title and text are known")

    rows = {"a": Titled("a", "x", "T"), "b": Titled("b", "y", "")}
    store = type(library.load("local/small").docs_store())
    monkeypatch.setattr(store, "get_many", lambda self, ids, field=None: rows)
    found = load_source("ir_datasets:local/small", keep=["a"]).dataset.documents
    assert found == {"a": Document("x", "T", "a"), "b": Document("y", None, "b")}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("local/none", "ir_datasets knows no data set 'local/none'"),
        ("local/unjudged", "'local/unjudged' of ir_datasets has no qrels; choose a subset"),
    ],
)
def test_names_that_ir_datasets_does_not_serve(library, name, message):
    with pytest.raises(DataError, match=message):
        load_source(f"ir_datasets:{name}")


def test_a_download_that_fails(library, folder):
    (folder / "qrels.txt").unlink()
    with pytest.raises(DataError, match=r"ir_datasets:local/small could not be read: .*connection"):
        load_source("ir_datasets:local/small")


def test_ir_datasets_must_be_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'icr-rag\[evaluation\]'"):
        load_source("ir_datasets:beir/scifact/test")
