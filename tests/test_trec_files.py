"""TREC's judgements, topics and collections."""

import pytest

from icr_rag import Document
from icr_rag.errors import DataError
from icr_rag.evaluation.trec import open_trec, read_collection, read_qrels, read_topics


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "docs.tsv").write_text("d1\ttin melts\nd2\toak\tand acorns\nd3\t\n")
    (tmp_path / "topics.tsv").write_text("7\twhere does tin melt\n8\tacorns\n")
    (tmp_path / "qrels.txt").write_text("7 0 d1 2\n7 0 d2 0\n8 Q0 d2 1\n8 0 d9 -2\n")
    (tmp_path / "run.trec").write_text("7 Q0 d2 1 3.5 x\n7 Q0 d1 2 1.5 x\n")
    return tmp_path


def test_a_data_set_from_single_files(folder):
    opened = open_trec(
        folder / "docs.tsv", folder / "topics.tsv", folder / "qrels.txt", folder / "run.trec"
    )
    assert opened.name == "qrels"
    assert opened.queries == {"7": "where does tin melt", "8": "acorns"}
    assert opened.judgements == {"7": {"d1": 2, "d2": 0}, "8": {"d2": 1, "d9": -2}}
    assert opened.candidates == {"7": ["d2", "d1"]}
    assert opened.scores == {"7": {"d2": 3.5, "d1": 1.5}}
    assert list(opened.read_documents(None)) == ["d1", "d2", "d3"]
    # Only the first tab separates.
    assert opened.read_documents({"d2", "d9"}) == {"d2": Document("oak\tand acorns", id="d2")}


def test_without_a_run_there_are_no_candidates(folder):
    opened = open_trec(folder / "docs.tsv", folder / "topics.tsv", folder / "qrels.txt", name="x")
    assert (opened.name, opened.candidates, opened.scores) == ("x", None, None)


def test_a_judged_query_without_a_topic_is_refused(folder):
    (folder / "topics.tsv").write_text("7\twhere does tin melt\n")
    with pytest.raises(DataError, match=r"topics\.tsv lacks 1 queries .* '8' first"):
        open_trec(folder / "docs.tsv", folder / "topics.tsv", folder / "qrels.txt")


@pytest.mark.parametrize("header", ["", "query-id\tcorpus-id\tscore\n"])
def test_judgements_in_beir_form_are_told_by_their_first_line(tmp_path, header):
    path = tmp_path / "qrels.tsv"
    path.write_text(header + "q 1\ta b\t1\nq 1\tc\t0\n")
    assert read_qrels(path) == {"q 1": {"a b": 1, "c": 0}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no judgements"),
        ("7 0 d1\n", r":1: expected 'qid 0 docid grade' with a whole number, got '7 0 d1'"),
        ("7 0 d1 1\n7 0 d2 high\n", ":2: expected"),
        ("7 0 d1 1\n\n7 0 d1 2\n", ":3: 'd1' stands there twice"),
    ],
)
def test_malformed_judgements_are_named(tmp_path, text, message):
    path = tmp_path / "qrels.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_qrels(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("7 no tab\n", ":1: expected query-id, a tab and the text, got '7 no tab'"),
        ("\ttext\n", ":1: expected"),
        ("7\t \n", ":1: the text of query 7 is blank"),
        ("7\ta\n7\tb\n", ":2: '7' stands there twice"),
    ],
)
def test_malformed_topics_are_named(tmp_path, text, message):
    path = tmp_path / "topics.tsv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_topics(path)


@pytest.mark.parametrize(
    ("line", "document"),
    [
        ('{"id": "a", "text": "b"}', Document("b", id="a")),
        ('{"_id": 3, "text": "b", "title": "T"}', Document("b", "T", "3")),
        ('{"docid": "a", "contents": "b", "title": ""}', Document("b", None, "a")),
    ],
)
def test_collections_as_json_lines(tmp_path, line, document):
    path = tmp_path / "docs.jsonl"
    path.write_text(line + "\n")
    assert read_collection(path) == {document.id: document}
    assert read_collection(path, keep=["other"]) == {}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", ":1: not JSON"),
        ("[]", ":1: expected an object with 'id' and 'text'"),
        ('{"text": "b"}', ":1: an object without 'id' or '_id' or 'docid'"),
        ('{"id": "a"}', ":1: an object without 'text' or 'contents'"),
        ('{"id": true, "text": "b"}', ":1: the id is True; it must be a string or a whole number"),
        ('{"id": null, "text": "b"}', ":1: the id is None"),
        ('{"id": "a", "text": null}', ":1: 'text' is a NoneType, not a string"),
        ('{"id": "a", "text": "b", "title": 3}', ":1: 'title' is a int, not a string"),
        ('{"id": "a", "text": "b"}\n{"id": "a", "text": "c"}', ":2: 'a' stands there twice"),
    ],
)
def test_a_malformed_collection_is_named_even_where_nothing_is_kept(tmp_path, line, message):
    path = tmp_path / "docs.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match=message):
        read_collection(path, keep=["a"])


def test_a_collection_of_an_unknown_kind(tmp_path):
    with pytest.raises(DataError, match=r"docs\.xml: a collection is named \.tsv"):
        read_collection(tmp_path / "docs.xml")
