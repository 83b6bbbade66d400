"""The fields that the model reads: what is composed, and that it is read as such a text."""

from __future__ import annotations

import asyncio
import copy
import datetime
import decimal
import enum
import json
import pickle
import re
import uuid
from pathlib import Path

import numpy
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import byte_tokenizer, tiny_model

from icr_rag import Document, Reranker, RerankerConfig, cli
from icr_rag.errors import ConfigError, DataError, InputError
from icr_rag.fields import check_given
from icr_rag.methods import BUILT_IN

QUERY = "Where do they bake bread?"
SHOPS = [
    {"name": "Fern", "address": {"street": "Main St", "no": 5}, "open": True, "id": 7},
    {"name": "Bread & Co", "tags": ["bread", "cake", 3], "rating": 4.5, "title": "A bakery"},
    {"name": "Old Mill", "founded": datetime.date(1901, 2, 3), "note": None},
    {"name": "Oak"},
]
NAMES = ("name", "address", "tags", "rating", "founded", "open")
LINES = [
    'name: Fern\naddress: {"street": "Main St", "no": 5}\nopen: true',
    "name: Bread & Co\ntags: bread, cake, 3\nrating: 4.5",
    "name: Old Mill\nfounded: 1901-02-03",
    "name: Oak",
]
LIKELIHOOD = {"scoring": "likelihood"}


def tiny(**fields):
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **fields)


def content(document, names, layout="lines"):
    return check_given([document], names, layout).read[0].content


def told(ranking):
    return [hit.index for hit in ranking], ranking.scores, ranking.score_groups


# --- what is composed -----------------------------------------------------------------------------


def test_lines():
    assert [content(shop, NAMES) for shop in SHOPS] == LINES
    assert content(SHOPS[1], ("rating", "name")) == "rating: 4.5\nname: Bread & Co"
    # The title stands as it always has.
    assert content(SHOPS[1], ("title", "rating")) == "A bakery\nrating: 4.5"


def test_yaml():
    for shop in SHOPS[:2]:
        wanted = {name: shop[name] for name in NAMES if name in shop}
        found = content(shop, NAMES, "yaml")
        assert found == yaml.safe_dump(wanted, sort_keys=False).rstrip("\n")
        assert yaml.safe_load(found) == wanted
    long = {"text": "word " * 60 + "end", "title": "Tür: 'n\"\nzwei"}
    found = content(long, ("title", "text"), "yaml")
    assert "Tür" in found
    assert yaml.safe_load(found) == {"title": long["title"], "text": long["text"]}
    shared = ["a"]
    assert "&" not in content({"a": shared, "b": shared}, ("a", "b"), "yaml")


@pytest.mark.parametrize("document", [
    {"text": "Body.", "title": "Head", "id": "x", "metadata": {"year": 1999, "text": "not this"}},
    Document("Body.", "Head", "x", {"year": 1999, "text": "not this"}),
])  # fmt: skip
def test_documents_have_their_own_before_their_metadata(document):
    given_, read = check_given([document], ("year", "id", "title", "text"), "lines")
    assert read[0] == Document("Body.", "year: 1999\nid: x\nHead")
    assert given_[0].metadata == {"year": 1999, "text": "not this"}
    assert content(document, ("text", "year")) == "Body.\nyear: 1999"
    assert content(document, ("text",)) == "Body."
    assert content(Document("a", metadata={"title": "T"}), ("title", "text")) == "T\na"


@given(st.text(max_size=20), st.none() | st.text(max_size=9))
def test_title_and_text_are_what_is_read_without_the_setting(text, title):
    document = Document(text, title)
    read = check_given([document], ("title", "text"), "lines").read[0]
    if title is None or title.strip():
        assert read.content == document.content
    assert read.text == text


class Colour(str, enum.Enum):
    RED = "red"


VALUES = [
    ("é", "é"), (Colour.RED, "red"), (True, "true"), (False, "false"), (0, "0"),
    (10**30, "1" + "0" * 30), (0.1, "0.1"), (numpy.float32(0.5), "0.5"), (numpy.int64(3), "3"),
    (numpy.bool_(True), "true"),
    (numpy.array([1, 2]), "1, 2"), (decimal.Decimal("1.50"), "1.50"),
    (datetime.datetime(2020, 1, 2, 3, 4), "2020-01-02T03:04:00"), (datetime.time(3, 4), "03:04:00"),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (("a", None, 2), "a, 2"), ([["a"], {"b": None, "c": float("nan"), 1: [True]}],
                               '[["a"], {"1": [true]}]'),
]  # fmt: skip


@pytest.mark.parametrize(("value", "written"), VALUES, ids=str)
def test_values_are_written_the_same_everywhere(value, written):
    assert content({"field": value}, ("field",)) == f"field: {written}"
    assert "field:" in content({"field": value}, ("field",), "yaml")


class Thing:
    def __repr__(self):
        return "a thing"


NESTED = []
NESTED.append(NESTED)


@pytest.mark.parametrize(
    "value",
    [Thing(), b"a", {1, 2}, 1j, [Thing()], {"a": Thing()}, {(1, 2): 3}, NESTED,
     datetime.timedelta(1)],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("layout", ["lines", "yaml"])
def test_what_cannot_be_written_is_named(value, layout):
    with pytest.raises(InputError, match=r"document 1 .*field 'what'.*(a [\w.]+|nested)"):
        check_given([{"what": 1}, {"what": value}], ("what",), layout)


def test_what_lacks_is_left_out_and_a_document_without_any_is_named():
    nothing = {"name": None, "rating": float("nan"), "tags": [], "address": {}, "open": ""}
    for layout in ("lines", "yaml"):
        assert content(nothing, NAMES, layout) == ""
        with pytest.raises(InputError, match=r"document 1 has none of the fields.*name.*colour"):
            check_given([SHOPS[0], {"colour": "red"}], NAMES, layout)
    with pytest.raises(InputError, match="document 0 has none of the fields"):
        check_given(["only a text"], NAMES, "lines")
    with pytest.raises(InputError, match="metadata of type list"):
        check_given([{"text": "a", "metadata": [1]}], ("year",), "lines")
    for wrong in ("a string", 5, None):
        with pytest.raises(InputError, match="documents is a"):
            check_given(wrong, NAMES, "lines")
    with pytest.raises(InputError, match="document 0 has a text of type int"):
        check_given([{"text": 5, "name": "a"}], ("name",), "lines")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from("abc"), JSON, min_size=1), st.permutations("abc"))
def test_whatever_json_holds_is_written_and_nothing_is_changed(document, names):
    before = copy.deepcopy(document)
    for layout in ("lines", "yaml"):
        first = check_given([document], tuple(names), layout)
        assert first == check_given([copy.deepcopy(document)], tuple(names), layout)
        assert first.documents[0].metadata is document
    found = yaml.safe_load(first.read[0].content)
    assert found is None or list(found) == [name for name in names if name in found]
    assert document == before or document != document


# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("row", BUILT_IN, ids=lambda row: row.label)
def test_it_is_ranked_as_a_text_of_these_words(row):
    fields = {"scoring": row.scoring, "framework": row.framework,
              "document_states": row.document_states[0],
              **({"likelihood": row.variant} if row.variant else {})}  # fmt: skip
    # Rerankers of the same settings share what is kept, and both are to encode it.
    kept = row.document_states[0] != "joint"
    first, second = ({"states_memory": 61}, {"states_memory": 62}) if kept else ({}, {})
    wanted = tiny(**fields, **first).rank(QUERY, LINES)
    found = tiny(**fields, **second, rank_fields=NAMES).rank(QUERY, SHOPS)
    assert told(found) == told(wanted)
    assert (found.usage.tokens, found.usage.calls) == (wanted.usage.tokens, wanted.usage.calls)


@pytest.mark.parametrize("layout", ["lines", "yaml"])
def test_hits_are_what_was_given(layout):
    before = copy.deepcopy(SHOPS)
    ranker = tiny(**LIKELIHOOD, rank_fields=NAMES, rank_fields_format=layout)
    for hit in ranker.rank(QUERY, SHOPS):
        assert hit.document.metadata is SHOPS[hit.index]
        assert hit.document.text == content(SHOPS[hit.index], NAMES, layout)
        assert hit.document.id == ("7" if hit.index == 0 else None)
    documents = [Document("Tin.", "Metal", "i", {"year": 3}), Document("Oak.")]
    ranker = tiny(**LIKELIHOOD, rank_fields=("year", "text"), rank_fields_format=layout)
    assert all(hit.document is documents[hit.index] for hit in ranker.rank(QUERY, documents))
    assert before == SHOPS


def test_all_calls_read_them(tmp_path):
    fields = {"framework": "listwise", "layers": (1, 2), "document_states": "independent"}
    ranker = tiny(**fields, rank_fields=NAMES, states_dir=str(tmp_path))
    plain = tiny(**fields)
    wanted = told(plain.rank(QUERY, LINES))
    assert ranker.encode(SHOPS).new == 4
    assert ranker.rank(QUERY, SHOPS).usage.tokens < len(LINES[0]) * 4
    assert told(asyncio.run(ranker.arank(QUERY, SHOPS))) == wanted
    queries = [QUERY, "What is old?"]
    many = ranker.rank_many(queries, [SHOPS, [dict(shop) for shop in SHOPS]])
    # One pass, because the same is read, whatever else documents have.
    apart = [[Document(f"{side} {n}", metadata=shop) for n, shop in enumerate(SHOPS)]
             for side in ("left", "right")]  # fmt: skip
    asked: list[int] = []
    score_queries = ranker.scorer.score_queries

    def counted(own, *arguments):
        asked.append(len(own))
        return score_queries(own, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranker.scorer, "score_queries", counted)
        found = ranker.rank_many(queries, apart)
    assert list(map(told, found)) == list(map(told, many))
    assert asked == [2]
    assert list(map(told, many)) == list(map(told, plain.rank_many(queries, [LINES] * 2)))
    assert many[0][0].document.metadata is SHOPS[many[0][0].index]
    # Lists are the same where what is read is, and only there.
    years = [[Document(text, metadata={"year": year}) for text in "ab"] for year in (1, 2, 1)]
    dated = tiny(**fields, rank_fields=("year", "text")).rank_many([QUERY] * 3, years)
    for year, ranking in zip((1, 2, 1), dated, strict=True):
        texts = [f"year: {year}\n{text}" for text in "ab"]
        assert ranking.scores == pytest.approx(plain.rank(QUERY, texts).scores, abs=1e-5)
    assert dated[0].scores != dated[1].scores
    found = ranker.read_attention(QUERY, SHOPS)
    assert found.token_ids == plain.read_attention(QUERY, LINES).token_ids


@pytest.mark.parametrize("more", [
    {"near_duplicates": 0.9}, {"diversity": 0.8}, {"score_mode": "explained"}, {"top_n": 2},
    {"score_threshold": -6.9}, {"max_document_tokens": 12}, {"score_mode": "share"},
    {"document_states": "independent", "cascade": 2},
], ids=str)  # fmt: skip
def test_what_else_is_asked_for_looks_at_what_is_read(more):
    # By their other fields they would repeat each other, or would not.
    shops = [*SHOPS, {"name": "Oak", "secret": "x" * 99}, {"name": "", "secret": "y" * 99}]
    lines = [*LINES, "name: Oak", ""]
    found = tiny(**LIKELIHOOD, **more, rank_fields=NAMES).rank(QUERY, shops)
    wanted = tiny(**LIKELIHOOD, **more).rank(QUERY, lines)
    assert told(found) == told(wanted)
    assert found.duplicates == wanted.duplicates
    assert found.usage.truncated == wanted.usage.truncated


def test_failures_that_are_let_through_and_first_stages():
    ranker = tiny(**LIKELIHOOD, rank_fields=NAMES, on_error="passthrough")
    ranking = ranker.rank(" ", SHOPS)
    assert ranking.error is not None
    assert [hit.document.metadata for hit in ranking] == SHOPS
    with pytest.raises(InputError, match="none of the fields"):
        ranker.rank(QUERY, [*SHOPS, {"colour": "red"}])
    with pytest.raises(InputError, match="rank_fields"):
        tiny(**LIKELIHOOD).rank(QUERY, SHOPS)
    scores = [4, 3, 2, 1]
    fused = tiny(**LIKELIHOOD, rank_fields=NAMES, fusion="weighted")
    assert told(fused.rank(QUERY, SHOPS, retrieval_scores=scores)) == told(
        tiny(**LIKELIHOOD, fusion="weighted").rank(QUERY, LINES, retrieval_scores=scores)
    )


def test_the_setting_is_checked_and_goes_along(model_folder):
    assert RerankerConfig(rank_fields="name, year").rank_fields == ("name", "year")
    assert RerankerConfig(rank_fields=["name"]).rank_fields == ("name",)
    environment = {"ICR_RAG_RANK_FIELDS": "name,year"}
    assert RerankerConfig.from_env(environment=environment).rank_fields == ("name", "year")
    for wrong in ((), "", "a,,b", ("a", "a"), ("a\nb",), (" ",), 5, (5,)):
        with pytest.raises(ConfigError, match="rank_fields"):
            RerankerConfig(rank_fields=wrong)
    with pytest.raises(ConfigError, match="rank_fields_format='yaml' means nothing without"):
        RerankerConfig(rank_fields_format="yaml")
    config = RerankerConfig(rank_fields=NAMES, rank_fields_format="yaml")
    assert config.switched(rank_fields=None).rank_fields_format == "lines"
    assert config.switched(scoring="likelihood").rank_fields == NAMES
    assert RerankerConfig.from_dict(config.to_dict()) == config
    ranker = pickle.loads(pickle.dumps(Reranker(model=model_folder, rank_fields=NAMES)))
    assert ranker.config.rank_fields == NAMES


# --- adapters and the command line ----------------------------------------------------------------

NOTES = [("Tin.", {"year": 3, "place": "Cornwall"}), ("Oak.", {"year": 5}), ("", {"year": None})]
READ = ("year", "place", "text")
WRITTEN = ["year: 3\nplace: Cornwall\nTin.", "year: 5\nOak.", ""]


@pytest.fixture
def wanted():
    return tiny(**LIKELIHOOD).rank(QUERY, WRITTEN)


def test_langchain_reads_metadata(wanted):
    documents = pytest.importorskip("langchain_core.documents")
    from icr_rag.integrations.compat.langchain import CohereRerank
    from icr_rag.integrations.langchain import ICREncode, ICRRerank

    given_ = [documents.Document(text, metadata=own) for text, own in NOTES]
    before = copy.deepcopy(given_)
    adapter = ICRRerank(tiny(**LIKELIHOOD, rank_fields=READ))
    found = adapter.compress_documents(given_, QUERY)
    assert [own.page_content for own in found] == [NOTES[hit.index][0] for hit in wanted]
    assert [own.metadata["relevance_score"] for own in found] == [hit.score for hit in wanted]
    assert given_ == before
    shops = ICRRerank(tiny(**LIKELIHOOD, rank_fields=NAMES)).rerank(SHOPS, QUERY)
    plain = tiny(**LIKELIHOOD).rank(QUERY, LINES)
    assert [row["index"] for row in shops] == [hit.index for hit in plain]
    cohere = CohereRerank(tiny(**LIKELIHOOD, rank_fields=NAMES), top_n=None)
    assert cohere.rerank(SHOPS, QUERY) == shops
    with pytest.raises(InputError, match="rank_fields"):
        cohere.rerank(SHOPS, QUERY, rank_fields=["name"])
    for wrong in ("text", 5):
        with pytest.raises(InputError, match="documents is a"):
            adapter.rerank(wrong, QUERY)
    kept = tiny(**LIKELIHOOD, document_states="independent", rank_fields=READ, states_memory=78)
    ICREncode(kept).transform_documents(given_)
    assert kept.encode([Document(text, metadata=own) for text, own in NOTES]).new == 0


def test_llama_index_reads_metadata_by_name(wanted):
    schema = pytest.importorskip("llama_index.core.schema")
    from icr_rag.integrations.llama_index import ICREncode, ICRRerank

    nodes = [
        schema.NodeWithScore(
            node=schema.TextNode(
                text=text, metadata=own, excluded_embed_metadata_keys=["year"], id_=str(n)
            ),
            score=None if n == 2 else 0.5,
        )
        for n, (text, own) in enumerate(NOTES)
    ]
    before = copy.deepcopy(nodes)
    adapter = ICRRerank(tiny(**LIKELIHOOD, rank_fields=READ, fusion="none"))
    found = adapter.postprocess_nodes(nodes, query_str=QUERY)
    assert [int(own.node.node_id) for own in found] == [hit.index for hit in wanted]
    assert [own.score for own in found] == [hit.score for hit in wanted]
    assert nodes == before
    for mode in (schema.MetadataMode.ALL, schema.MetadataMode.NONE):
        for kind in (ICRRerank, ICREncode):
            with pytest.raises(ConfigError, match=r"metadata_mode=.*rank_fields"):
                kind(rank_fields=READ, metadata_mode=mode)
    adapter.metadata_mode = schema.MetadataMode.ALL
    with pytest.raises(ConfigError, match=r"metadata_mode=.*rank_fields"):
        adapter.postprocess_nodes(nodes, query_str=QUERY)
    kept = tiny(**LIKELIHOOD, document_states="independent", rank_fields=READ, states_memory=77)
    ICREncode(kept)([own.node for own in nodes])
    assert kept.encode([Document(text, metadata=own) for text, own in NOTES]).new == 0
    # A node without text whose metadata is asked for is read.
    image = schema.NodeWithScore(node=schema.ImageNode(metadata={"place": "a mine"}), score=0.1)
    mixed = ICRRerank(tiny(**LIKELIHOOD, rank_fields=("place", "year"), fusion="none"))
    ranked = mixed.postprocess_nodes([*nodes, image], query_str=QUERY)
    texts = ["place: Cornwall\nyear: 3", "year: 5", "", "place: a mine"]
    plain = tiny(**LIKELIHOOD).rank(QUERY, texts)
    assert [own.score for own in ranked] == [hit.score for hit in plain]


def test_the_others_read_metadata(wanted):
    haystack = pytest.importorskip("haystack")
    pytest.importorskip("rerankers")
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyterrier")
    from icr_rag.integrations import pyterrier, rerankers
    from icr_rag.integrations.haystack import ICRRanker

    order, scores = [hit.index for hit in wanted], [hit.score for hit in wanted]
    fields = {**LIKELIHOOD, "rank_fields": READ}
    given_ = [haystack.Document(id=str(n), content=t, meta=m) for n, (t, m) in enumerate(NOTES)]
    found = ICRRanker(tiny(**fields), top_k=None).run(QUERY, given_)["documents"]
    assert ([int(own.id) for own in found], [own.score for own in found]) == (order, scores)
    with pytest.raises(ConfigError, match=r"meta_fields_to_embed=.*rank_fields"):
        ICRRanker(tiny(**fields), meta_fields_to_embed=["year"])

    results = rerankers.ICRRanker(reranker=tiny(**fields)).rank(
        QUERY, [text for text, _ in NOTES], metadata=[own for _, own in NOTES]
    )
    assert [result.document.doc_id for result in results] == order

    frame = pandas.DataFrame({
        "qid": "1", "query": QUERY, "docno": ["0", "1", "2"], "body": [text for text, _ in NOTES],
        "year": pandas.array([3, 5, None], dtype="Int64"), "place": ["Cornwall", None, None],
    })  # fmt: skip
    ranker = pyterrier.ICRRanker(tiny(**fields), text_field="body")
    assert ranker.transform_inputs() == [["qid", "query", "docno", "year", "place", "body"]]
    shown = ranker.transform(frame)
    assert ([int(n) for n in shown["docno"]], list(shown["score"])) == (order, scores)
    # The text need not be there where nobody reads it.
    only = pyterrier.ICRRanker(tiny(**LIKELIHOOD, rank_fields=("place",)))
    assert len(only.transform(frame.drop(columns="body"))) == 3
    with pytest.raises(InputError, match="lacks the columns place"):
        only.transform(frame.drop(columns="place"))


def test_the_command_line_reads_any_objects(model_folder, tmp_path, capsys):
    path = tmp_path / "shops.jsonl"
    shops = [{**shop, "founded": "1901-02-03"} if "founded" in shop else shop for shop in SHOPS]
    path.write_text("\n".join(map(json.dumps, shops)))
    asked = ["rerank", QUERY, str(path), "--model", model_folder, "--dtype", "float32",
             "--scoring", "likelihood", "--rank-fields", ",".join(NAMES)]  # fmt: skip
    wanted = tiny(**LIKELIHOOD).rank(QUERY, LINES)
    assert cli.main([*asked, "--format", "json"]) == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert [hit["index"] for hit in hits] == [hit.index for hit in wanted]
    assert [hit["score"] for hit in hits] == pytest.approx([hit.score for hit in wanted], abs=1e-6)
    assert {hit["id"] for hit in hits} == {"7", None}
    assert cli.main([*asked, "--format", "trec"]) == 0
    assert "7" in {line.split()[2] for line in capsys.readouterr().out.splitlines()}
    # Without fields an object needs its text.
    assert cli.main(asked[:-2]) != 0
    assert "no 'text'" in capsys.readouterr().err
    encoded = ["encode", str(path), "--model", model_folder, "--dtype", "float32", "--scoring",
               "likelihood", "--rank-fields", "name",
               "--states-dir", str(tmp_path / "s")]  # fmt: skip
    assert cli.main(encoded) == 0
    assert "4 documents have states" in capsys.readouterr().out


def test_objects_in_files_are_checked(tmp_path):
    from icr_rag.document_files import parse_with_fields, read_with_fields

    with pytest.raises(DataError, match=r"here:2: 'text' is 5"):
        parse_with_fields('{"a": 1}\n{"text": 5}', "here")
    with pytest.raises(DataError, match=r"here:1: 'id' is \[\]"):
        parse_with_fields('{"a": 1, "id": []}', "here")
    with pytest.raises(DataError, match="not a JSON object"):
        parse_with_fields('{"a": 1}\n[2]', "here")
    assert parse_with_fields("one\ntwo", "here") == [Document("one"), Document("two")]
    assert parse_with_fields('{"text": null, "a": 1}', "here") == [{"text": None, "a": 1}]
    path = tmp_path / "a.txt"
    path.write_text("words")
    assert read_with_fields(str(path)) == [Document("words", id=str(path))]


@pytest.mark.real_weights
def test_the_snippets_of_the_page_run(capsys):
    page = (Path(__file__).resolve().parent.parent / "docs" / "fields.md").read_text("utf-8")
    fields, instructions, diversity = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names: dict = {}
    exec(fields, names)
    assert "Bread & Co" in capsys.readouterr().out
    read = re.findall(r"```text\n(.*?)\n```", page, flags=re.DOTALL)
    assert read == [names["reranker"].rank("q", names["shops"][1:])[0].document.text]
    exec(instructions, names)
    assert len(capsys.readouterr().out.splitlines()) == 2
    exec(diversity, names)
    first, second = json.loads(capsys.readouterr().out)
    assert {first, second} != {0, 1}


def test_profiling_and_evaluation_read_them():
    from icr_rag.evaluation.datasets import Dataset
    from icr_rag.evaluation.harness import Setting, evaluate
    from icr_rag.profiling.collect import collect, profiling_config

    documents = {
        "a": Document("Tin.", "Metal", "a"),
        "b": Document("Oak.", "Tree", "b"),
    }
    bare = {name: Document(own.text, id=name) for name, own in documents.items()}
    judged = {"q": {"a": 1}}
    sets = [Dataset("d", own, {"q": QUERY}, judged) for own in (documents, bare)]
    run = {"q": ["b", "a"]}
    config = profiling_config(RerankerConfig(framework="listwise", rank_fields=("text",)))
    samples = [
        collect(Reranker.from_model(tiny_model("llama"), byte_tokenizer(), config), own, run, ["q"])
        for own in sets
    ]
    assert (samples[0][0].readings == samples[1][0].readings).all()
    rankers = [tiny(**LIKELIHOOD, rank_fields=("text",)), tiny(**LIKELIHOOD)]
    found = [evaluate(r, own, run, Setting(2)).run for r, own in zip(rankers, sets, strict=True)]
    assert found[0] == found[1]
