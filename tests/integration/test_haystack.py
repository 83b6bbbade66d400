"""The Haystack component: alone, in real pipelines, beside a ranker of Haystack's."""

from __future__ import annotations

import asyncio
import copy
from inspect import signature

import pytest

haystack = pytest.importorskip("haystack")

from haystack import Document, Pipeline  # noqa: E402
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever  # noqa: E402
from haystack.document_stores.in_memory import InMemoryDocumentStore  # noqa: E402

from icr_rag.errors import ConfigError, InputError  # noqa: E402
from icr_rag.integrations.haystack import ICRRanker  # noqa: E402

QUERY = "Which metal melts first?"
TEXTS = ["Tin melts at 232 degrees.", "Lead is soft metal.", "Copper melts late.", "Zinc metal."]


def make_documents():
    return [
        Document(id=f"d{i}", content=text, meta={"i": i}, score=1.0 - i / 10)
        for i, text in enumerate(TEXTS)
    ]


@pytest.fixture
def ours(tiny_reranker):
    return ICRRanker(tiny_reranker)


def test_scores_are_the_rerankers_and_nothing_is_changed(ours, tiny_reranker):
    documents = make_documents()
    before = copy.deepcopy(documents)
    found = ours.run(QUERY, documents)["documents"]
    assert [d.to_dict() for d in documents] == [d.to_dict() for d in before]
    expected = tiny_reranker.rank(QUERY, TEXTS)
    assert [(d.id, d.score) for d in found] == [(f"d{hit.index}", hit.score) for hit in expected]
    assert all(type(d.score) is float and d.meta["i"] == int(d.id[1]) for d in found)


def test_top_k(tiny_reranker):
    ranker = ICRRanker(tiny_reranker, top_k=2)
    assert len(ranker.run(QUERY, make_documents())["documents"]) == 2
    assert len(ranker.run(QUERY, make_documents(), top_k=3)["documents"]) == 3
    assert ranker.run(QUERY, make_documents(), top_k=0)["documents"] == []
    everything = ICRRanker(tiny_reranker, top_k=None).run(QUERY, make_documents())["documents"]
    assert len(everything) == 4
    assert ranker.run(QUERY, [])["documents"] == []


def test_meta_fields_are_read_and_documents_without_text_come_last(tiny_reranker):
    ranker = ICRRanker(tiny_reranker, meta_fields_to_embed=["i", "none"])
    documents = [Document(content=None, meta={"i": 9}), *make_documents()]
    found = ranker.run(QUERY, documents)["documents"]
    expected = tiny_reranker.rank(QUERY, [f"{i}\n{text}" for i, text in enumerate(TEXTS)])
    assert [d.score for d in found[:4]] == [hit.score for hit in expected]
    assert found[-1].content is None


def pipeline_with(ranker):
    store = InMemoryDocumentStore()
    store.write_documents(make_documents())
    pipeline = Pipeline()
    pipeline.add_component("retriever", InMemoryBM25Retriever(store, top_k=3))
    pipeline.add_component("ranker", ranker)
    pipeline.connect("retriever.documents", "ranker.documents")
    return pipeline


def test_in_a_pipeline(ours):
    request = {"retriever": {"query": "melts metal"}, "ranker": {"query": QUERY}}
    documents = pipeline_with(ours).run(request)["ranker"]["documents"]
    assert len(documents) == 3
    assert [d.score for d in documents] == sorted((d.score for d in documents), reverse=True)


def test_a_saved_pipeline_comes_back():
    ranker = ICRRanker(model="org/name", layers=(10, 13), top_k=4, meta_fields_to_embed=["i"])
    saved = pipeline_with(ranker).dumps()
    # Haystack builds nothing from a file that its reader does not trust by name.
    trusted = {"allowed_modules": ["icr_rag.integrations.haystack"]}
    keywords = trusted if "allowed_modules" in signature(Pipeline.loads).parameters else {}
    again = Pipeline.loads(saved, **keywords).get_component("ranker")
    assert again.reranker.config == ranker.reranker.config
    assert (again.top_k, again.meta_fields_to_embed) == (4, ["i"])


def test_async_equals_sync(ours):
    mine = ours.run(QUERY, make_documents())["documents"]
    found = asyncio.run(ours.run_async(QUERY, make_documents()))["documents"]
    assert [(d.id, d.score) for d in found] == [(d.id, d.score) for d in mine]


def test_warm_up_loads(tiny_reranker):
    ICRRanker(tiny_reranker).warm_up()
    with pytest.raises(Exception, match="no/such-model"):
        ICRRanker(model="no/such-model", local_files_only=True).warm_up()


def test_passthrough_says_so(tiny_reranker, monkeypatch):
    engine = tiny_reranker.with_config(on_error="passthrough")

    def fail(*arguments):
        raise RuntimeError("no memory")

    monkeypatch.setattr(engine, "_score", fail)
    found = ICRRanker(engine).run(QUERY, make_documents())["documents"]
    assert [d.id for d in found] == ["d0", "d1", "d2", "d3"]
    assert found[0].meta == {"i": 0, "rerank_error": "RuntimeError: no memory"}


def test_same_sockets_as_a_ranker_of_theirs(ours):
    from haystack.components.rankers import LLMRanker

    theirs = set(signature(LLMRanker.run).parameters)
    assert set(ours.__haystack_input__._sockets_dict) == {"query", "documents", "top_k"} <= theirs
    assert set(ours.__haystack_output__._sockets_dict) == {"documents"}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda r: r.run("", make_documents()), InputError, "the query is blank"),
        (lambda r: r.run(QUERY, make_documents(), top_k=-1), InputError, "top_k=-1"),
        (lambda r: ICRRanker(layer=1), ConfigError, "did you mean 'layers'"),
    ],
)
def test_mistakes_are_named(ours, call, error, message):
    with pytest.raises(error, match=message):
        call(ours)
