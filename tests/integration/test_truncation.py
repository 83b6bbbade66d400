"""Adapters tell what was cut: in the log always, in metadata on request."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle

import pytest
from adapter_kinds import QUERY, OfLangChain, OfLlamaIndex, cohere

CUT = {0, 2}


@pytest.fixture(scope="module")
def cutting(tiny_reranker):
    return tiny_reranker.with_config(max_document_tokens=10)


class LangChain(OfLangChain):
    def run(self, adapter, documents):
        return {d.metadata["i"]: d.metadata for d in adapter.compress_documents(documents, QUERY)}

    def arun(self, adapter, documents):
        found = asyncio.run(adapter.acompress_documents(documents, QUERY))
        return {d.metadata["i"]: d.metadata for d in found}


class Results(LangChain):
    """``rerank()``, which returns positions."""

    def run(self, adapter, documents):
        return {row["index"]: row for row in adapter.rerank(documents, QUERY)}

    def arun(self, adapter, documents):
        return {row["index"]: row for row in asyncio.run(adapter.arerank(documents, QUERY))}


class Cohere(Results):
    """A call's own cut, by an adapter that the first one makes."""

    def make(self, *arguments, **fields):
        return cohere(*arguments, **fields)

    def run(self, adapter, documents):
        rows = adapter.rerank(documents, QUERY, max_tokens_per_doc=10)
        return {row["index"]: row for row in rows}


class LlamaIndex(OfLlamaIndex):
    def told(self, found):
        return {metadata["i"]: metadata for metadata in self.hidden(found, "truncated")}

    def run(self, adapter, documents):
        return self.told(adapter.postprocess_nodes(documents, query_str=QUERY))

    def arun(self, adapter, documents):
        return self.told(asyncio.run(adapter.apostprocess_nodes(documents, query_str=QUERY)))


@pytest.fixture(params=[LangChain, Results, Cohere, LlamaIndex], ids=lambda kind: kind.__name__)
def kind(request):
    pytest.importorskip(request.param.needs)
    return request.param()


def test_metadata_tells_on_request(kind, cutting, caplog):
    documents = kind.documents()
    before = copy.deepcopy(documents)
    adapter = kind.make(cutting, report_truncation=True)
    for found in (kind.run(adapter, documents), kind.arun(adapter, documents)):
        assert sorted(found) == [0, 1, 2, 3]
        assert {i for i, metadata in found.items() if metadata.get("truncated") is True} == CUT
        assert not any("query_truncated" in metadata for metadata in found.values())
    assert documents == before
    assert "2 of 4 documents were cut (positions 0, 2)" in caplog.text


def test_without_request_only_the_log_tells(kind, cutting, own_records):
    found = kind.run(kind.make(cutting), kind.documents())
    assert not any("truncated" in metadata for metadata in found.values())
    (record,) = own_records()
    assert record.levelno == logging.WARNING


def test_a_query_that_was_cut_is_told_in_all(kind, tiny_reranker):
    cut = tiny_reranker.with_config(max_query_tokens=5, max_document_tokens=10)
    found = kind.arun(kind.make(cut, report_truncation=True), kind.documents())
    assert all(metadata["query_truncated"] is True for metadata in found.values())
    assert {i for i, metadata in found.items() if "truncated" in metadata} == CUT


def test_what_is_whole_is_told_nothing(kind, tiny_reranker):
    found = kind.arun(kind.make(tiny_reranker, report_truncation=True), kind.documents())
    assert not any("truncated" in key for metadata in found.values() for key in metadata)


def test_the_setting_is_kept_by_copies(kind):
    adapter = kind.make(model="no/such-model", report_truncation=True)
    for twin in (copy.deepcopy(adapter), pickle.loads(pickle.dumps(adapter))):
        assert twin.report_truncation is True
    assert kind.make(model="no/such-model").report_truncation is False
