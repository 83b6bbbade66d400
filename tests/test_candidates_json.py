"""Candidates in rank_llm's and ICR's JSON."""

import json

import pytest

from icr_rag import Document
from icr_rag.errors import DataError
from icr_rag.evaluation.candidates_json import open_candidates

RANK_LLM = [
    {
        "query": {"text": "where does tin melt", "qid": 7},
        "candidates": [
            {"docid": "d2", "score": 3.5, "doc": {"contents": "oak"}},
            {"docid": 1, "score": 4, "doc": {"title": "Tin", "text": "melts", "contents": "no"}},
        ],
    },
    {"query": {"text": "acorns", "qid": "8"}, "candidates": []},
]
ICR = [
    {
        "idx": "q1",
        "question": "where does tin melt",
        "num_gold_docs": 1,
        "paragraphs": [
            {"idx": "a", "title": "", "paragraph_text": "oak", "is_supporting": False},
            {"idx": "b", "title": "Tin", "paragraph_text": "melts", "is_supporting": True},
        ],
    },
    {
        "idx": "q2",
        "question": "acorns",
        "paragraphs": [
            {"idx": "a", "title": "", "paragraph_text": "oak", "is_supporting": True},
            {"idx": "q2", "title": "", "paragraph_text": "acorns", "is_supporting": True},
        ],
    },
]
MULTI_HOP = [
    {
        "id": f"2hop__{number}",
        "question": "whose acorns",
        "paragraphs": [
            {"idx": 0, "title": "x", "paragraph_text": f"p{number}", "is_supporting": True},
            {"idx": 1, "title": "x", "paragraph_text": "q", "is_supporting": False},
        ],
    }
    for number in range(2)
]


def write(folder, rows, name="file.json"):
    path = folder / name
    lines = name.endswith(".jsonl")
    path.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows, indent=1))
    return path


@pytest.fixture
def qrels(tmp_path):
    path = tmp_path / "qrels.txt"
    path.write_text("7 0 1 2\n7 0 missed 1\n")
    return path


@pytest.mark.parametrize("name", ["requests.json", "requests.jsonl"])
def test_rank_llm(tmp_path, qrels, name):
    opened = open_candidates(write(tmp_path, RANK_LLM, name), qrels)
    assert opened.name == "requests"
    assert opened.queries == {"7": "where does tin melt", "8": "acorns"}
    # The file's order, whatever the scores say.
    assert opened.candidates == {"7": ["d2", "1"], "8": []}
    assert opened.scores == {"7": {"d2": 3.5, "1": 4.0}, "8": {}}
    assert opened.judgements == {"7": {"1": 2, "missed": 1}}
    assert opened.read_documents(None) == {
        "d2": Document("oak", id="d2"),
        "1": Document("melts", "Tin", "1"),
    }
    assert list(opened.read_documents({"1"})) == ["1"]
    assert opened.notes == ()


@pytest.mark.parametrize("key", ["text", "segment", "contents", "content", "body", "passage"])
def test_every_name_of_a_text_in_rank_llm(tmp_path, qrels, key):
    rows = [{"query": {"text": "t", "qid": "7"}, "candidates": [{"docid": "1", "doc": {key: "x"}}]}]
    opened = open_candidates(write(tmp_path, rows), qrels)
    assert opened.read_documents(None)["1"].text == "x"
    # No score, nothing to fuse.
    assert opened.scores is None


def test_rank_llm_without_judgements(tmp_path):
    path = write(tmp_path, RANK_LLM)
    with pytest.raises(DataError, match=r"no judgements; .* candidates:file=.*,qrels=FILE"):
        open_candidates(path)


@pytest.mark.parametrize("name", ["icr.json", "icr.jsonl"])
def test_icr(tmp_path, name):
    opened = open_candidates(write(tmp_path, ICR, name))
    assert opened.queries == {"q1": "where does tin melt", "q2": "acorns"}
    assert opened.candidates == {"q1": ["a", "b"], "q2": ["a", "q2"]}
    assert opened.scores is None
    # A query that is itself a document is not to be found for itself.
    assert opened.excluded == {"q1": frozenset({"q1"}), "q2": frozenset({"q2"})}
    assert opened.judgements == {"q1": {"a": 0, "b": 1}, "q2": {"a": 1}}
    assert opened.read_documents({"b"}) == {"b": Document("melts", "Tin", "b")}
    assert "relevant documents that the first stage missed are unknown" in opened.notes[0]


def test_icr_with_judgements_of_its_own(tmp_path):
    path = tmp_path / "qrels.txt"
    path.write_text("q1 0 missed 1\n")
    opened = open_candidates(write(tmp_path, ICR), path)
    assert opened.judgements == {"q1": {"missed": 1}}
    assert opened.notes == ()


def test_paragraphs_that_are_numbered_within_their_query(tmp_path):
    opened = open_candidates(write(tmp_path, MULTI_HOP))
    assert opened.candidates == {
        "2hop__0": ["2hop__0:0", "2hop__0:1"],
        "2hop__1": ["2hop__1:0", "2hop__1:1"],
    }
    assert opened.read_documents(None)["2hop__1:0"].text == "p1"
    assert opened.judgements["2hop__1"] == {"2hop__1:0": 1, "2hop__1:1": 0}
    assert opened.excluded == {}


def test_a_single_object_is_a_list_of_one(tmp_path):
    path = tmp_path / "one.json"
    path.write_text(json.dumps(ICR[0]))
    assert list(open_candidates(path).queries) == ["q1"]


def changed(row, **fields):
    return [{**row, **fields}]


PARAGRAPH = ICR[0]["paragraphs"][1]
CANDIDATE = RANK_LLM[0]["candidates"][1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no candidates"),
        ([3], "object 1: expected an object of rank_llm .* got a int"),
        ([{"a": 1, "b": 2}], r"object 1: expected an object of .*; its keys: \['a', 'b'\]"),
        (changed(ICR[0], question=None), "the text of query 'q1' is None"),
        (changed(ICR[0], question="  "), "the text of query q1 is blank"),
        (changed(ICR[0], idx=None), "the id is None"),
        (changed(ICR[0], paragraphs={}), "'paragraphs' must be a list of objects"),
        (changed(ICR[0], paragraphs=[PARAGRAPH] * 2), "document 'b' stands twice for query 'q1'"),
        (
            changed(ICR[0], paragraphs=changed(PARAGRAPH, is_supporting="yes")),
            "'is_supporting' of paragraph 'b' is 'yes'",
        ),
        (
            changed(ICR[0], paragraphs=changed(PARAGRAPH, paragraph_text=None)),
            "the text of document 'b' is None, not a string",
        ),
        (changed(ICR[0], paragraphs=changed(PARAGRAPH, title=1)), "the title of document 'b' is 1"),
        ([ICR[0], ICR[0]], "object 2: query 'q1' stands there twice"),
        (
            [ICR[0], *changed(ICR[1], paragraphs=changed(PARAGRAPH, title="Other"))],
            "object 2: 'b' stands there twice, with different contents",
        ),
        (changed(RANK_LLM[0], query={"qid": 7}), "the text of query '7' is None"),
        (changed(RANK_LLM[0], query={"text": "x"}), r"query\.qid: the id is None"),
        (changed(RANK_LLM[0], candidates=["x"]), "'candidates' must be a list of objects"),
        (
            changed(RANK_LLM[0], candidates=changed(CANDIDATE, doc="text")),
            "the 'doc' of candidate '1' has none of text, segment",
        ),
        (
            changed(RANK_LLM[0], candidates=changed(CANDIDATE, docid=None)),
            "docid of a candidate: the id is None",
        ),
        (
            changed(ICR[0], paragraphs=changed(PARAGRAPH, is_supporting=False)),
            "no query has a document judged relevant",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        open_candidates(write(tmp_path, rows))


def test_a_line_that_is_no_json_is_named(tmp_path):
    path = write(tmp_path, ICR, "file.jsonl")
    path.write_text(path.read_text() + "\n{")
    with pytest.raises(DataError, match=r"file\.jsonl:3: not JSON"):
        open_candidates(path)
    whole = tmp_path / "file.json"
    whole.write_text("[")
    with pytest.raises(DataError, match=r"file\.json: not JSON"):
        open_candidates(whole)
