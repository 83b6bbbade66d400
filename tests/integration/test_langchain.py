"""The LangChain adapter: alone, and in a real ContextualCompressionRetriever."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ValidationError
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker, RerankerConfig
from icr_rag.errors import ConfigError, InputError
from icr_rag.integrations.langchain import ICRRerank

TEXTS = ["Tin melts at 232 degrees.", "Lead is soft.", "Copper conducts heat well.", "Zinc."]
QUERY = "Which metal melts first?"


@pytest.fixture(scope="module")
def reranker():
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), layers=(1, 2))


def make_documents(texts=TEXTS):
    return [
        Document(page_content=text, metadata={"i": i, "deep": {"list": [i]}}, id=f"d{i}")
        for i, text in enumerate(texts)
    ]


def test_order_and_scores_are_the_rerankers(reranker):
    result = ICRRerank(reranker).compress_documents(make_documents(), QUERY)
    expected = reranker.rank(QUERY, TEXTS)
    assert [d.id for d in result] == [f"d{hit.index}" for hit in expected]
    assert [d.metadata["relevance_score"] for d in result] == [hit.score for hit in expected]
    assert all(type(d.metadata["relevance_score"]) is float for d in result)


@settings(max_examples=25, deadline=None)
@given(texts=st.lists(st.text(max_size=20), max_size=6), top_n=st.none() | st.integers(0, 8))
def test_result_is_a_sub_permutation_and_nothing_is_changed(texts, top_n):
    reranker = Reranker.from_model(tiny_model("llama"), byte_tokenizer(), layers=(1, 1))
    documents = make_documents(texts)
    before = copy.deepcopy(documents)
    result = ICRRerank(reranker, top_n=top_n).compress_documents(documents, QUERY)
    assert documents == before
    assert len(result) == (len(texts) if top_n is None else min(top_n, len(texts)))
    assert len({document.id for document in result}) == len(result)
    for document in result:
        json.dumps(document.metadata)
        original = documents[int(document.id[1:])]
        assert document.page_content == original.page_content
        kept = {k: v for k, v in document.metadata.items() if k != "relevance_score"}
        assert kept == original.metadata


def test_async_equals_sync(reranker):
    adapter = ICRRerank(reranker, top_n=3)
    expected = adapter.compress_documents(make_documents(), QUERY)
    assert asyncio.run(adapter.acompress_documents(make_documents(), QUERY)) == expected


def test_threads_share_one_adapter(reranker):
    adapter = ICRRerank(reranker)
    expected = adapter.compress_documents(make_documents(), QUERY)
    with ThreadPoolExecutor(32) as pool:
        calls = [
            pool.submit(adapter.compress_documents, make_documents(), QUERY) for _ in range(32)
        ]
    assert all(call.result() == expected for call in calls)


def test_making_one_is_cheap_and_checked():
    adapter = ICRRerank(model="no/such-model", layers=(3, 5), top_n=2)
    assert adapter.config == RerankerConfig(model="no/such-model", layers=(3, 5))
    with pytest.raises(ConfigError, match="did you mean 'layers'"):
        ICRRerank(layer=3)
    with pytest.raises(ConfigError, match="device"):
        ICRRerank(adapter.reranker, device="cpu")
    with pytest.raises(ValidationError):
        ICRRerank(top_n=-1)


def test_blank_query_is_an_error(reranker):
    with pytest.raises(InputError, match="blank"):
        ICRRerank(reranker).compress_documents(make_documents(), " ")


def test_serialises_and_copies(reranker):
    adapter = ICRRerank(model="no/such-model", layers=(3, 5), top_n=2)
    for twin in (
        ICRRerank(**json.loads(adapter.model_dump_json())),
        pickle.loads(pickle.dumps(adapter)),
        copy.deepcopy(adapter),
    ):
        assert (twin.config, twin.top_n) == (adapter.config, 2)
        assert twin.reranker.config == adapter.config
    assert copy.deepcopy(ICRRerank(reranker)).reranker is reranker


class FixedRetriever(BaseRetriever):
    """Always retrieves the same documents."""

    documents: list[Document]

    def _get_relevant_documents(self, query, *, run_manager):
        return self.documents


def test_in_a_contextual_compression_retriever(reranker):
    retriever = ContextualCompressionRetriever(
        base_compressor=ICRRerank(reranker, top_n=2),
        base_retriever=FixedRetriever(documents=make_documents()),
    )
    found = retriever.invoke(QUERY)
    assert len(found) == 2
    assert found == asyncio.run(retriever.ainvoke(QUERY))
    empty = ContextualCompressionRetriever(
        base_compressor=ICRRerank(reranker), base_retriever=FixedRetriever(documents=[])
    )
    assert empty.invoke(QUERY) == []


@pytest.mark.real_weights
def test_real_weights_put_the_answer_first():
    texts = [
        "The museum opens at nine and closes at five.",
        "Paris is the capital of France and lies on the Seine.",
        "Bread dough rises because yeast makes carbon dioxide.",
    ]
    adapter = ICRRerank(model="smollm2-135m", dtype="float32", top_n=1)
    result = adapter.compress_documents(make_documents(texts), "What is France's capital?")
    assert [document.id for document in result] == ["d1"]
