"""Fields of documents in adapters, on the command line and in evaluation."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
from fields_parts import LIKELIHOOD, LINES, NAMES, QUERY, SHOPS, tiny
from tiny import byte_tokenizer, tiny_model

from icr_rag import Document, Reranker, RerankerConfig, cli
from icr_rag.errors import ConfigError, DataError, InputError

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
