"""Data sets and runs: read, checked line by line, written whole."""

from __future__ import annotations

import sys

import pytest
from beir import QUERIES, RUN, write_beir

from icr_rag import Document
from icr_rag.errors import DataError
from icr_rag.evaluation.datasets import load_beir
from icr_rag.evaluation.runs import read_run, write_trec_run

RANKED = ["q1", "q2", "q4", "q6"]


@pytest.fixture
def folder(tmp_path):
    return write_beir(tmp_path / "tiny")


@pytest.fixture
def dataset(folder):
    return load_beir(folder)


# --- data sets ------------------------------------------------------------------------------


def test_reads_a_beir_folder(folder, dataset):
    assert dataset.name == "tiny"
    assert dataset.documents["tin"] == Document("Tin melts at 232 degrees.", "Tin", "tin")
    assert dataset.documents["zinc"].title is None
    assert dataset.documents["fir"].title is None
    assert dataset.queries == QUERIES
    assert dataset.judgements["q4"] == {"tin": 2, "lead": 1}
    assert dataset.judged_queries == ["q1", "q2", "q4", "q6", "q7"]


def test_keeps_only_the_documents_asked_for(folder):
    assert set(load_beir(folder, keep={"tin", "oak", "other"}).documents) == {"tin", "oak"}


def test_judgements_of_a_split(folder):
    (folder / "qrels").mkdir()
    (folder / "qrels.tsv").rename(folder / "qrels" / "dev.tsv")
    assert load_beir(folder, "dev").judgements["q2"] == {"oak": 1}
    with pytest.raises(DataError, match=r"no judgements at .*test\.tsv; there are the splits dev"):
        load_beir(folder)


def test_splits_go_before_the_single_file(folder):
    (folder / "qrels").mkdir()
    assert load_beir(folder, "dev").judgements["q2"] == {"oak": 1}
    (folder / "qrels" / "dev.tsv").write_text("q1\tlead\t1\n")
    assert load_beir(folder, "dev").judgements == {"q1": {"lead": 1}}
    with pytest.raises(DataError, match="there are the splits dev"):
        load_beir(folder, "dve")


def test_judgements_without_a_header_and_numeric_ids_and_a_byte_order_mark(folder):
    (folder / "queries.jsonl").write_bytes(
        b'\xef\xbb\xbf{"_id": 1, "text": "a\xe2\x80\xa8b"}\r\n\n'
    )
    (folder / "qrels.tsv").write_text("1\ttin\t1\n")
    dataset = load_beir(folder)
    assert dataset.queries == {"1": "a\N{LINE SEPARATOR}b"}
    assert dataset.judgements == {"1": {"tin": 1}}


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("corpus.jsonl", b'{"_id": "x", "text": ', r"corpus\.jsonl:6: not JSON"),
        ("corpus.jsonl", b"[1]", r"corpus\.jsonl:6: expected an object with '_id' and 'text'"),
        ("corpus.jsonl", b'{"_id": "x"}', r"corpus\.jsonl:6: expected an object"),
        ("corpus.jsonl", b'{"_id": null, "text": ""}', r"corpus\.jsonl:6: '_id' is None"),
        ("corpus.jsonl", b'{"_id": true, "text": ""}', r"corpus\.jsonl:6: '_id' is True"),
        ("corpus.jsonl", b'{"_id": "x", "text": 3}', r"corpus\.jsonl:6: 'text' is a int"),
        (
            "corpus.jsonl",
            b'{"_id": "x", "text": "", "title": 3}',
            r"corpus\.jsonl:6: 'title' is a int",
        ),
        ("corpus.jsonl", b'{"_id": "tin", "text": "?"}', r"corpus\.jsonl:6: 'tin' stands there tw"),
        ("corpus.jsonl", b'{"_id": "\xff"}', r"corpus\.jsonl:6: not UTF-8 \(byte 0xff\)"),
        ("queries.jsonl", b'{"_id": "x", "text": " "}', r"queries\.jsonl:8: .* blank"),
        ("qrels.tsv", b"q1\ttin", r"qrels\.tsv:9: expected query-id, corpus-id and a whole num"),
        ("qrels.tsv", b"q1\ttin\tyes", r"qrels\.tsv:9: expected"),
        ("qrels.tsv", b"q1\ttin\t2", r"qrels\.tsv:9: 'tin' stands there twice"),
        ("qrels.tsv", b"q99\ttin\t1", r"queries\.jsonl lacks 1 queries .* 'q99'"),
    ],
)
def test_a_malformed_line_is_named(folder, file, line, message):
    with (folder / file).open("ab") as out:
        out.write(line + b"\n")
    with pytest.raises(DataError, match=message):
        load_beir(folder)


def test_the_same_line_twice_does_no_harm(folder, dataset):
    with (folder / "qrels.tsv").open("a") as out:
        out.write("q1\ttin\t1\n")
    assert load_beir(folder) == dataset


@pytest.mark.parametrize("file", ["corpus.jsonl", "queries.jsonl", "qrels.tsv"])
def test_a_missing_file_is_named(folder, file):
    (folder / file).unlink()
    with pytest.raises(DataError, match=file):
        load_beir(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere is not a folder"):
        load_beir(tmp_path / "nowhere")


def test_a_data_set_without_a_relevant_document_is_refused(folder):
    (folder / "qrels.tsv").write_text("q1\ttin\t0\n")
    with pytest.raises(DataError, match="no query has a document judged relevant"):
        load_beir(folder)


# --- runs -----------------------------------------------------------------------------------


def test_reads_a_tsv_run(folder):
    assert read_run(folder / "run.tsv") == RUN


def test_ids_in_a_tsv_run_may_hold_spaces(tmp_path):
    path = tmp_path / "run.tsv"
    path.write_text("query-id\tcorpus-id\trank\tscore\nq\ta b\t1\t2\nq\tc\t2\t1\n")
    assert read_run(path) == {"q": ["a b", "c"]}


@pytest.mark.parametrize("separator", [" ", "\t"])
def test_reads_a_trec_run_by_rank_not_by_score_or_line(tmp_path, separator):
    rows = ["q Q0 d 3 9 t", "q Q0 a 1 1e-3 t", "p Q0 z 0 5 t", "q Q0 b 2 -7 t", "q Q0 c 3 9 t"]
    path = tmp_path / "run.txt"
    path.write_text("\n".join(row.replace(" ", separator) for row in rows))
    assert read_run(path) == {"q": ["a", "b", "d", "c"], "p": ["z"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q Q0 a 1 2\n", r":1: expected 'qid Q0 docid rank score tag'.*got 'q Q0 a 1 2'"),
        ("q Q0 a one 2 t\n", ":1: expected"),
        ("q Q0 a 1 high t\n", ":1: expected"),
        ("query-id\tcorpus-id\trank\tscore\nq\ta\t1\n", ":2: expected"),
        ("q Q0 a 1 2 t\nq Q0 a 2 1 t\n", ":2: document a stands twice for query q"),
        ("", "holds no candidates"),
        ("query-id\tcorpus-id\trank\tscore\n", "holds no candidates"),
    ],
)
def test_a_malformed_run_is_named(tmp_path, text, message):
    path = tmp_path / "run.x"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_run(path)


def test_a_trec_run_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "out.run"
    write_trec_run(path, RUN, "tag")
    assert read_run(path) == RUN
    scores = [float(line.split()[4]) for line in path.read_text().splitlines()[:3]]
    assert scores == [3, 2, 1]


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be replaced there")
def test_a_reader_never_sees_half_of_a_run(tmp_path):
    path = tmp_path / "out.run"
    path.write_text("old")
    with path.open() as reader:
        write_trec_run(path, RUN, "tag")
        # The file was replaced as a whole, not written over.
        assert reader.read() == "old"
    assert read_run(path) == RUN


def test_a_run_that_cannot_be_written_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "out.run"
    path.write_text("old")
    with pytest.raises(DataError, match="'a b': it has white space"):
        write_trec_run(path, {"q": ["fine", "a b"]}, "tag")
    assert [p.name for p in tmp_path.iterdir()] == ["out.run"]
    assert path.read_text() == "old"
    with pytest.raises(DataError, match="cannot write"):
        write_trec_run(tmp_path / "nowhere" / "out.run", RUN, "tag")
