"""The ranker for AnswerDotAI's rerankers beside one of theirs."""

from __future__ import annotations

import asyncio
import inspect

import pytest

rerankers = pytest.importorskip("rerankers")

from rerankers.models.ranker import BaseRanker  # noqa: E402
from rerankers.results import RankedResults, Result  # noqa: E402

from icr_rag.errors import ConfigError, InputError  # noqa: E402
from icr_rag.integrations.rerankers import ICRRanker  # noqa: E402

QUERY = "Which metal melts first?"
TEXTS = ["Tin melts at 232 degrees.", "Lead is soft.", "Copper conducts heat well.", "Zinc."]


@pytest.fixture(scope="module")
def ours(tiny_reranker):
    return ICRRanker(reranker=tiny_reranker)


@pytest.fixture(scope="module")
def owners(cross_encoder_folder):
    return rerankers.Reranker(
        cross_encoder_folder, model_type="cross-encoder", verbose=0, device="cpu", dtype="float32"
    )


def test_it_is_one_of_theirs(ours, owners):
    assert isinstance(ours, BaseRanker)
    names = list(inspect.signature(owners.rank).parameters)
    assert [name for name in inspect.signature(ours.rank).parameters if name in names] == names[:4]


@pytest.mark.parametrize(
    "arguments",
    [
        (TEXTS,),
        (TEXTS, ["a", "b", "c", "d"]),
        (TEXTS, None, [{"i": i} for i in range(4)]),
        (TEXTS[0],),
        ([rerankers.Document(text, doc_id=f"d{i}") for i, text in enumerate(TEXTS)],),
    ],
)
def test_results_have_the_owners_shape(ours, owners, arguments):
    mine, theirs = ours.rank(QUERY, *arguments), owners.rank(QUERY, *arguments)
    assert type(mine) is type(theirs) is RankedResults
    assert (mine.query, mine.has_scores) == (theirs.query, theirs.has_scores)
    assert len(mine.results) == len(theirs.results)
    assert {r.doc_id for r in mine} == {r.doc_id for r in theirs}
    # For a single document the owner leaves the rank out.
    assert len(theirs.results) == 1 or [r.rank for r in mine] == [r.rank for r in theirs]
    by_id = {r.doc_id: r.document.metadata for r in theirs}
    for result in mine:
        assert type(result) is Result
        assert type(result.score) is float
        assert result.document.metadata == by_id[result.doc_id]


def test_scores_are_the_rerankers(ours, tiny_reranker):
    expected = tiny_reranker.rank(QUERY, TEXTS)
    found = ours.rank(QUERY, TEXTS)
    assert [(r.doc_id, r.score) for r in found] == [(hit.index, hit.score) for hit in expected]
    assert [r.doc_id for r in found.top_k(2)] == [hit.index for hit in expected[:2]]
    assert ours.score(QUERY, TEXTS[0]) == tiny_reranker.rank(QUERY, TEXTS[:1]).scores[0]


def test_documents_are_not_changed(ours):
    documents = [rerankers.Document(text, doc_id=i, metadata={"i": i}) for i, text in
                 enumerate(TEXTS)]  # fmt: skip
    before = [dict(document.__dict__) for document in documents]
    result = ours.rank(QUERY, documents, doc_ids=["a", "b", "c", "d"])
    assert [dict(document.__dict__) for document in documents] == before
    assert {r.doc_id for r in result} == {"a", "b", "c", "d"}
    assert {r.document.metadata["i"] for r in result} == {0, 1, 2, 3}


def test_async_equals_sync_and_nothing_gives_nothing(ours):
    mine = ours.rank(QUERY, TEXTS)
    found = asyncio.run(ours.rank_async(QUERY, TEXTS))
    assert [(r.doc_id, r.score) for r in found] == [(r.doc_id, r.score) for r in mine]
    named = asyncio.run(ours.rank_async(QUERY, TEXTS, ["a", "b", "c", "d"], [{"i": 1}] * 4))
    assert {r.doc_id for r in named} == {"a", "b", "c", "d"}
    assert named[0].document.metadata == {"i": 1}
    assert ours.rank(QUERY, []).results == []


def test_ties_keep_their_order_and_what_has_no_text_comes_last(ours):
    image = rerankers.Document(document_type="image", base64="aGk=", doc_id="image")
    same = [rerankers.Document("Zinc.", doc_id=f"d{i}") for i in range(3)]
    found = ours.rank(QUERY, [image, *same])
    assert [r.doc_id for r in found] == ["d0", "d1", "d2", "image"]
    assert found.results[-1].document.base64 == "aGk="
    assert [r.doc_id for r in found.top_k(99)] == ["d0", "d1", "d2", "image"]


def test_as_a_langchain_compressor(ours):
    documents = pytest.importorskip("langchain_core.documents")
    given = [documents.Document(page_content=text, id=text) for text in TEXTS]
    found = ours.as_langchain_compressor(k=2).compress_documents(given, QUERY)
    assert [d.id for d in found] == [r.document.text for r in ours.rank(QUERY, TEXTS).top_k(2)]


def test_passthrough_says_so(tiny_reranker, monkeypatch):
    engine = tiny_reranker.with_config(on_error="passthrough")

    def fail(*arguments):
        raise RuntimeError("no memory")

    monkeypatch.setattr(engine, "_score", fail)
    metadata = [{"i": i} for i in range(4)]
    found = ICRRanker(reranker=engine).rank(QUERY, TEXTS, metadata=metadata)
    assert not found.has_scores
    assert [r.doc_id for r in found.top_k(3)] == [0, 1, 2]
    assert found[0].document.metadata == {"i": 0, "rerank_error": "RuntimeError: no memory"}
    assert metadata == [{"i": i} for i in range(4)]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda r: r.rank(QUERY, TEXTS, doc_ids=[1]), InputError, "doc_ids has 1 entries for 4"),
        (lambda r: r.rank(QUERY, [1]), InputError, "document 0 is a int"),
        (lambda r: r.rank("", TEXTS), InputError, "the query is blank"),
        (lambda r: ICRRanker("m", fusion="weighted"), ConfigError, "do not get here"),
        (lambda r: ICRRanker("m", layer=1), ConfigError, "did you mean 'layers'"),
    ],
)
def test_mistakes_are_named(ours, call, error, message):
    with pytest.raises(error, match=message):
        call(ours)
