"""Adapters over long documents: which passage was best, in the document's own characters."""

from __future__ import annotations

import pytest
from tiny import byte_tokenizer, tiny_model

pytest.importorskip("sentencex")

from icr_rag import Document, Reranker

QUERY = "Which metal melts first?"
LONG = "  Oaks carry acorns in autumn. Tin melts at 232 degrees, and that is early. Why?  "
TEXTS = [LONG, "Lead is soft.", f"{LONG}Sand is everywhere, and nobody counts it. "]
SETTINGS = {"scoring": "likelihood", "passages": "max", "passage_tokens": 64}


@pytest.fixture
def reranker():
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **SETTINGS)


def best(reranker, texts=TEXTS, title=None):
    """What `rank` says: input position -> the passage's text."""
    documents = [Document(text, title) for text in texts]
    return {
        hit.index: None if hit.passage is None else hit.document.text[slice(*hit.passage)]
        for hit in reranker.rank(QUERY, documents)
    }


def test_langchain_tells_the_passage(reranker):
    langchain = pytest.importorskip("icr_rag.integrations.langchain")
    from langchain_core.documents import Document as Theirs

    given = [Theirs(page_content=text, metadata={"n": n}) for n, text in enumerate(TEXTS)]
    wanted = best(reranker)
    found = langchain.ICRRerank(reranker, report_passage=True).compress_documents(given, QUERY)
    assert [document.metadata["n"] for document in found] == list(wanted)
    for document in found:
        place = document.metadata["n"]
        start, end = (document.metadata.get(key) for key in ("passage_start", "passage_end"))
        assert (start is None) == (wanted[place] is None)
        if start is not None:
            assert document.page_content[start:end] == wanted[place]
    quiet = langchain.ICRRerank(reranker).compress_documents(given, QUERY)
    assert all("passage_start" not in document.metadata for document in quiet)
    assert all(document.metadata == {"n": n} for n, document in enumerate(given))
    results = langchain.ICRRerank(reranker, report_passage=True).rerank(TEXTS, QUERY)
    assert {r["index"]: r.get("passage_start") for r in results}[1] is None
    assert sum("passage_start" in result for result in results) == 2


def test_langchain_limits_tokens_in_a_call(reranker):
    langchain = pytest.importorskip("icr_rag.integrations.langchain")
    adapter = langchain.ICRRerank(reranker, report_truncation=True)
    results = adapter.rerank(TEXTS, QUERY, max_tokens_per_doc=30)
    assert {result["index"] for result in results if result.get("truncated")} == {0, 2}
    wanted = reranker.rank(QUERY, TEXTS, max_tokens_per_doc=30)
    assert [result["relevance_score"] for result in results] == [hit.score for hit in wanted]


def nodes_of(schema, **fields):
    return [
        schema.NodeWithScore(
            node=schema.TextNode(text=text, metadata={"kind": "metals"}, id_=str(n), **fields)
        )
        for n, text in enumerate(TEXTS)
    ]


def test_llama_index_repeats_metadata_and_tells_the_passage_in_the_nodes_text(reranker):
    llama_index = pytest.importorskip("icr_rag.integrations.llama_index")
    from llama_index.core import schema

    nodes = nodes_of(schema)
    # The header that LlamaIndex puts before a text, and the blank line behind it.
    wanted = best(reranker, [text.rstrip() for text in TEXTS], title="kind: metals\n")
    adapter = llama_index.ICRRerank(reranker, report_passage=True)
    found = adapter.postprocess_nodes(nodes, query_str=QUERY)
    assert [int(scored.node.node_id) for scored in found] == list(wanted)
    for scored in found:
        node, passage = scored.node, wanted[int(scored.node.node_id)]
        start, end = (node.metadata.get(key) for key in ("passage_start", "passage_end"))
        assert (start is None) == (passage is None)
        if passage is not None:
            assert node.text[start:end] == passage
            for mode in (schema.MetadataMode.EMBED, schema.MetadataMode.LLM):
                assert "passage_" not in node.get_content(metadata_mode=mode)
    assert all(scored.node.metadata == {"kind": "metals"} for scored in nodes)


def test_a_template_of_the_users_own_is_read_as_it_is(reranker):
    llama_index = pytest.importorskip("icr_rag.integrations.llama_index")
    from llama_index.core import schema

    nodes = nodes_of(schema, text_template="{content} ({metadata_str})")
    read = [scored.node.get_content(metadata_mode=schema.MetadataMode.EMBED) for scored in nodes]
    wanted = reranker.rank(QUERY, read)
    adapter = llama_index.ICRRerank(reranker, report_passage=True)
    found = adapter.postprocess_nodes(nodes, query_str=QUERY)
    assert [scored.score for scored in found] == [hit.score for hit in wanted]
    for scored, hit in zip(found, wanted, strict=True):
        start, end = (scored.node.metadata.get(key) for key in ("passage_start", "passage_end"))
        if start is not None:
            assert scored.node.text[start:end] in hit.document.text[slice(*hit.passage)]


def test_nodes_encoded_ahead_are_found(reranker):
    llama_index = pytest.importorskip("icr_rag.integrations.llama_index")
    from llama_index.core import schema

    kept = reranker.with_config(document_states="independent")
    nodes = nodes_of(schema)
    llama_index.ICREncode(kept)([scored.node for scored in nodes])
    before = kept.rank(QUERY, [Document(t.rstrip(), "kind: metals\n") for t in TEXTS])
    # Of each passage the query's tokens and none of its own.
    assert before.usage.tokens == before.usage.passages * len(f" {QUERY}")


def test_haystack_repeats_meta_and_tells_the_passage(reranker):
    haystack = pytest.importorskip("icr_rag.integrations.haystack")
    from haystack import Document as Theirs

    given = [Theirs(content=text, meta={"kind": "metals"}, id=str(n))
             for n, text in enumerate(TEXTS)]  # fmt: skip
    wanted = best(reranker, title="metals")
    component = haystack.ICRRanker(reranker, meta_fields_to_embed=["kind"], report_passage=True)
    found = component.run(QUERY, given)["documents"]
    assert [int(document.id) for document in found] == list(wanted)
    for document in found:
        passage = wanted[int(document.id)]
        start, end = (document.meta.get(key) for key in ("passage_start", "passage_end"))
        assert (passage is None) == (start is None)
        assert passage is None or document.content[start:end] == passage
    assert component.to_dict()["init_parameters"]["report_passage"] is True
    # Another separator is read as it was, and not taken for a line's end.
    other = haystack.ICRRanker(reranker, meta_fields_to_embed=["kind"], embedding_separator=" - ")
    scores = [document.score for document in other.run(QUERY, given)["documents"]]
    read = reranker.rank(QUERY, [f"metals - {text}" for text in TEXTS])
    assert scores == [hit.score for hit in read]


def test_others_rank_by_passages(reranker):
    shim = pytest.importorskip("icr_rag.integrations.sentence_transformers")
    wanted = reranker.rank(QUERY, TEXTS)
    scores = shim.CrossEncoder(reranker=reranker).predict([(QUERY, text) for text in TEXTS])
    assert list(scores) == pytest.approx(list(wanted.scores))
