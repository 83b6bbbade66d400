"""Every adapter, every way to call it: wrong queries and documents are errors of ours.

With ``on_error="passthrough"`` a wrong query lets the documents through, in their order and told;
wrong documents raise all the same.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker
from icr_rag.errors import InputError

QUERY = "Which metal melts first?"
TEXTS = ["Tin melts at 232 degrees.", "Lead is soft.", "Zinc."]

WRONG_QUERIES = [None, ["a", "list"], 5, b"bytes", {"query": "a"}, "", " \n"]
#: What stands in place of all documents.
WRONG_LISTS = [None, 5, b"bytes", {"text": "a"}, object()]
#: What stands in place of one.
WRONG_DOCUMENTS = [None, 5, b"bytes", ["nested"], object()]


@dataclass(frozen=True)
class Way:
    """One way to call one adapter.

    Attributes:
        needs: the module of the framework.
        make: an adapter on a reranker.
        document: the framework's document with a text.
        call: the adapter with a query and documents; may return an awaitable.
        passed: texts and reasons in a result that was let through; None where the way has no
            place for them.
    """

    needs: str
    make: Callable[[Reranker], Any]
    document: Callable[[str], Any]
    call: Callable[[Any, Any, Any], Any]
    passed: Callable[[Any], tuple[list[str], list[str]]] | None


def ours(module, name="ICRRerank"):
    return getattr(importlib.import_module(f"icr_rag.integrations.{module}"), name)


def langchain_document(text):
    from langchain_core.documents import Document

    return Document(page_content=text)


def from_documents(result):
    return [d.page_content for d in result], [d.metadata["rerank_error"] for d in result]


def from_results(result):
    return [TEXTS[row["index"]] for row in result], [row["rerank_error"] for row in result]


def langchain(call, passed=from_documents, make=lambda r: ours("langchain")(r)):
    # Its early versions had no interface for cross-encoders.
    needs = "langchain_core.cross_encoders" if make is cross_encoder else "langchain_core"
    return Way(needs, make, langchain_document, call, passed)


def cohere(reranker):
    return ours("compat.langchain", "CohereRerank")(reranker)


def cross_encoder(reranker):
    compat = ours("compat.langchain", "CrossEncoderReranker")
    return compat(model=ours("langchain_cross_encoder", "ICRCrossEncoder")(reranker))


def node(text):
    from llama_index.core.schema import NodeWithScore, TextNode

    return NodeWithScore(node=TextNode(text=text, metadata={"key": "value"}), score=0.5)


def bundle(query):
    from llama_index.core.schema import QueryBundle

    return QueryBundle(query)


def from_nodes(nodes):
    return [n.node.text for n in nodes], [n.node.metadata["rerank_error"] for n in nodes]


def llama_index(call, name="ICRRerank", module="llama_index"):
    return Way("llama_index.core", lambda r: ours(module, name)(reranker=r), node, call, from_nodes)


def haystack_document(text):
    from haystack import Document

    return Document(content=text, id=text)


def haystack(call):
    def passed(result):
        documents = result["documents"]
        return [d.content for d in documents], [d.meta["rerank_error"] for d in documents]

    return Way(
        "haystack", lambda r: ours("haystack", "ICRRanker")(r), haystack_document, call, passed
    )


def ranker_document(text):
    from rerankers import Document

    return Document(text)


def rerankers(call, document=ranker_document):
    def passed(result):
        assert not result.has_scores
        documents = [row.document for row in result.results]
        return [d.text for d in documents], [d.metadata["rerank_error"] for d in documents]

    return Way(
        "rerankers", lambda r: ours("rerankers", "ICRRanker")(reranker=r), document, call, passed
    )


def pairs(query, documents):
    return [(query, text) for text in documents] if isinstance(documents, list) else documents


def frame(query, texts):
    import pandas

    if not isinstance(texts, list):
        return texts
    rows = [
        {"qid": "q", "query": query, "docno": str(n), "text": text} for n, text in enumerate(texts)
    ]
    return pandas.DataFrame(rows, columns=["qid", "query", "docno", "text"])


def from_frame(found):
    return found["text"].tolist(), found["rerank_error"].tolist()


SENTENCE = "sentence_transformers"
WAYS = {
    "langchain": langchain(lambda a, q, d: a.compress_documents(d, q)),
    "langchain, async": langchain(lambda a, q, d: a.acompress_documents(d, q)),
    "langchain, rerank": langchain(lambda a, q, d: a.rerank(d, q), from_results),
    "langchain, arerank": langchain(lambda a, q, d: a.arerank(d, q), from_results),
    "langchain, runnable": langchain(
        lambda a, q, d: a.as_runnable().invoke({"query": q, "documents": d})
    ),
    "cohere": langchain(lambda a, q, d: a.compress_documents(d, q), make=cohere),
    "cohere, rerank": langchain(lambda a, q, d: a.rerank(d, q), from_results, cohere),
    "cohere, arerank": langchain(lambda a, q, d: a.arerank(d, q), from_results, cohere),
    "cross-encoder compressor": langchain(
        lambda a, q, d: a.compress_documents(d, q), make=cross_encoder
    ),
    "cross-encoder compressor, async": langchain(
        lambda a, q, d: a.acompress_documents(d, q), make=cross_encoder
    ),
    "llama_index": llama_index(lambda a, q, d: a.postprocess_nodes(d, bundle(q))),
    "llama_index, async": llama_index(lambda a, q, d: a.apostprocess_nodes(d, bundle(q))),
    "llama_index, query_str": llama_index(lambda a, q, d: a.postprocess_nodes(d, query_str=q)),
    "llama_index, async query_str": llama_index(
        lambda a, q, d: a.apostprocess_nodes(d, query_str=q)
    ),
    # A string, too, where a bundle is due.
    "llama_index, no bundle": llama_index(lambda a, q, d: a.postprocess_nodes(d, q)),
    "llama_index, async no bundle": llama_index(lambda a, q, d: a.apostprocess_nodes(d, q)),
    **{
        name: llama_index(
            lambda a, q, d: a.postprocess_nodes(d, bundle(q)), name, "compat.llama_index"
        )
        for name in ("SentenceTransformerRerank", "LLMRerank", "RankGPTRerank")
    },
    "haystack": haystack(lambda a, q, d: a.run(q, d)),
    "haystack, async": haystack(lambda a, q, d: a.run_async(q, d)),
    "rerankers": rerankers(lambda a, q, d: a.rank(q, d)),
    "rerankers, async": rerankers(lambda a, q, d: a.rank_async(q, d)),
    "rerankers, str": rerankers(lambda a, q, d: a.rank(q, d), str),
    "sentence_transformers": Way(
        "icr_rag", lambda r: ours(SENTENCE, "CrossEncoder")(reranker=r), str,
        lambda a, q, d: a.rank(q, d),
        lambda rows: ([TEXTS[r["corpus_id"]] for r in rows], [r["rerank_error"] for r in rows]),
    ),
    "sentence_transformers, predict": Way(
        "icr_rag", lambda r: ours(SENTENCE, "CrossEncoder")(reranker=r), str,
        lambda a, q, d: a.predict(pairs(q, d)), None,
    ),
    "cross-encoder": Way(
        "langchain_core.cross_encoders",
        lambda r: ours("langchain_cross_encoder", "ICRCrossEncoder")(r), str,
        lambda a, q, d: a.score(pairs(q, d)), None,
    ),
    "pyterrier": Way(
        "pyterrier", lambda r: ours("pyterrier", "ICRRanker")(r), str,
        lambda a, q, d: a.transform(frame(q, d)), from_frame,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def engine():
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), layers=(1, 2))


@pytest.fixture(params=sorted(WAYS))
def way(request):
    found = WAYS[request.param]
    pytest.importorskip(found.needs)
    return found


@pytest.fixture(params=["raise", "passthrough"])
def reranker(request, engine):
    return engine.with_config(on_error=request.param)


def run(way, reranker, query, documents):
    result = way.call(way.make(reranker), query, documents)
    return asyncio.run(result) if asyncio.iscoroutine(result) else result


def told(error):
    """Whether an error says something, in few words, and not with a whole object's inside."""
    return 10 < len(str(error)) < 300


@pytest.mark.parametrize("query", WRONG_QUERIES, ids=repr)
def test_a_wrong_query(way, engine, query):
    documents = [way.document(text) for text in TEXTS]
    if "no bundle" in way_name(way) and query is None:
        pytest.skip("no query at all has a test of its own")
    with pytest.raises(InputError) as caught:
        run(way, engine, query, documents)
    assert type(caught.value) is InputError
    assert told(caught.value)
    if way.passed is not None:
        passed = run(way, engine.with_config(on_error="passthrough"), query, documents)
        texts, reasons = way.passed(passed)
        assert texts == TEXTS[: len(texts)]
        assert texts
        assert all(reason.startswith("InputError: ") for reason in reasons)


def way_name(way):
    return next(name for name, other in WAYS.items() if other is way)


@pytest.mark.parametrize("documents", WRONG_LISTS, ids=lambda value: type(value).__name__)
def test_what_is_no_list_of_documents(way, reranker, documents):
    with pytest.raises(InputError) as caught:
        run(way, reranker, QUERY, documents)
    assert told(caught.value)
    assert type(documents).__name__ in str(caught.value)


@pytest.mark.parametrize("wrong", WRONG_DOCUMENTS, ids=lambda value: type(value).__name__)
def test_what_is_no_document(way, reranker, wrong):
    if way_name(way) == "pyterrier" and wrong is None:
        pytest.skip("a missing text in a frame is no text")
    documents = [way.document(TEXTS[0]), wrong, way.document(TEXTS[1])]
    with pytest.raises(InputError) as caught:
        run(way, reranker, QUERY, documents)
    assert told(caught.value)
    assert type(wrong).__name__ in str(caught.value)
    assert "1" in str(caught.value)


def test_what_is_right_still_works(way, reranker):
    if "no bundle" in way_name(way):
        pytest.skip("never right")
    run(way, reranker, QUERY, [way.document(text) for text in TEXTS])
    run(way, reranker, QUERY, [])
