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
from haystack.utils import ComponentDevice  # noqa: E402

from icr_rag.errors import ClosedError, ConfigError, InputError  # noqa: E402
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
    scores = [document.score for document in before]
    expected = tiny_reranker.rank(QUERY, TEXTS, retrieval_scores=scores)
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
    texts = [f"{i}\n{text}" for i, text in enumerate(TEXTS)]
    # The one without text came without a score, too.
    scores = [document.score for document in make_documents()]
    expected = tiny_reranker.rank(QUERY, texts, retrieval_scores=scores)
    assert [d.score for d in found[:4]] == [hit.score for hit in expected]
    assert found[-1].content is None


def pipeline_with(ranker, kind=Pipeline):
    store = InMemoryDocumentStore()
    store.write_documents(make_documents())
    pipeline = kind()
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


def test_in_an_asynchronous_pipeline(tiny_reranker):
    request = {"retriever": {"query": "melts metal"}, "ranker": {"query": QUERY}}
    # A class of its own in earlier versions.
    kind = Pipeline if hasattr(Pipeline, "run_async") else haystack.AsyncPipeline
    pipeline = pipeline_with(ICRRanker(tiny_reranker), kind)
    found = asyncio.run(pipeline.run_async(request))["ranker"]["documents"]
    mine = pipeline_with(ICRRanker(tiny_reranker)).run(request)["ranker"]["documents"]
    assert [(d.id, d.score) for d in found] == [(d.id, d.score) for d in mine]


def test_of_one_id_the_best_scored_is_ranked_as_in_their_ranker(ours, cross_encoder_folder):
    rankers = pytest.importorskip("haystack_integrations.components.rankers.sentence_transformers")
    theirs = rankers.SentenceTransformersSimilarityRanker(
        model=cross_encoder_folder, device=ComponentDevice.from_str("cpu"), token=None
    )
    documents = [*make_documents(), Document(id="d1", content="Better.", score=5.0)]
    documents += [Document(id="d2", content="Unscored.")]
    mine = ours.run(QUERY, documents)["documents"]
    found = theirs.run(query=QUERY, documents=documents)["documents"]
    assert {(d.id, d.content) for d in mine} == {(d.id, d.content) for d in found}
    assert len(mine) == 4


def test_ties_keep_their_order_and_one_document_comes_back(ours):
    same = [Document(id=f"d{i}", content="Zinc.", meta={"i": [i]}) for i in range(3)]
    found = ours.run(QUERY, same, top_k=99)["documents"]
    assert [d.id for d in found] == ["d0", "d1", "d2"]
    found[0].meta["more"] = 1
    assert same[0].meta == {"i": [0]}
    assert [d.id for d in ours.run(QUERY, same[:1])["documents"]] == ["d0"]


def test_warm_up_runs_once_and_close_lets_go(model_folder, monkeypatch):
    ranker = ICRRanker(
        model=model_folder,
        layers=(1, 2),
        device=ComponentDevice.from_str("cpu"),
        fusion="weighted",
        local_files_only=True,
    )
    ranker.warm_up()
    monkeypatch.setattr(ranker.reranker, "warm_up", lambda: pytest.fail("warmed up twice"))
    ranker.warm_up()
    before = ranker.run(QUERY, make_documents())["documents"]
    closed = ranker.reranker
    ranker.close()
    with pytest.raises(ClosedError):
        closed.rank(QUERY, TEXTS)
    asyncio.run(ranker.warm_up_async())
    assert ranker.run(QUERY, make_documents())["documents"] == before


def test_a_reranker_given_stays_open(ours, tiny_reranker):
    ours.close()
    assert len(tiny_reranker.rank(QUERY, TEXTS)) == 4


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
    assert [d.score for d in found] == [d.score for d in make_documents()]


def test_passthrough_of_a_model_that_cannot_be_loaded_in_a_pipeline():
    ranker = ICRRanker(model="no/such-model", local_files_only=True, on_error="passthrough")
    request = {"retriever": {"query": "melts metal"}, "ranker": {"query": QUERY}}
    found = pipeline_with(ranker).run(request)["ranker"]["documents"]
    assert len(found) == 3
    assert all("no/such-model" in document.meta["rerank_error"] for document in found)


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
        (lambda r: ICRRanker(top_n=5), ConfigError, "name for it is top_k"),
    ],
)
def test_mistakes_are_named(ours, call, error, message):
    with pytest.raises(error, match=message):
        call(ours)
