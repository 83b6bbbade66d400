"""Each replacement beside the class it replaces: same arguments, same shape of results."""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
import logging
import pickle
from types import SimpleNamespace

import pytest
from langchain_core.documents import Document
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langchain_parts import QUERY, TEXTS, BrokenReranker, FixedRetriever, make_documents
from pydantic import ValidationError
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker
from icr_rag.errors import ConfigError

cohere = pytest.importorskip("cohere")
langchain_cohere = pytest.importorskip("langchain_cohere")
cross_encoders = pytest.importorskip("langchain_core.cross_encoders")
classic = pytest.importorskip("langchain_classic.retrievers")
owners = pytest.importorskip("langchain_classic.retrievers.document_compressors")

from icr_rag.integrations.compat import langchain as compat  # noqa: E402
from icr_rag.integrations.compat.langchain import CohereRerank, CrossEncoderReranker  # noqa: E402
from icr_rag.integrations.langchain import ICRCrossEncoder, ICRRerank  # noqa: E402

MAPPINGS = [{"title": "Tin", "text": TEXTS[0], "year": 1}, {"text": TEXTS[1], "year": 2}]


@pytest.fixture(scope="module")
def reranker():
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), layers=(1, 2))


class LengthEncoder(cross_encoders.BaseCrossEncoder):
    """Some cross-encoder of somebody else's."""

    def score(self, text_pairs):
        return [float(len(text)) for _, text in text_pairs]


class Service:
    """Cohere's client, answered here; notes what it was asked."""

    def __init__(self):
        self.client = cohere.ClientV2("no key", base_url="http://127.0.0.1:9")
        self.client.rerank = self.rerank
        self.asked = []

    def rerank(self, *, query, documents, model, top_n, max_tokens_per_doc):
        self.asked.append(documents)
        order = sorted(range(len(documents)), key=lambda i: -len(documents[i]))[:top_n]
        hits = [SimpleNamespace(index=i, relevance_score=1 / (1 + n)) for n, i in enumerate(order)]
        return SimpleNamespace(results=hits)


@pytest.fixture
def service():
    return Service()


def both(kind, reranker, service, **arguments):
    """The owner's object and ours, made with the same arguments."""
    if kind == "cross_encoder":
        return (
            owners.CrossEncoderReranker(model=LengthEncoder(), **arguments),
            CrossEncoderReranker(model=ICRCrossEncoder(reranker), **arguments),
        )
    common = {"model": "rerank-v3.5", "client": service.client, **arguments}
    return langchain_cohere.CohereRerank(**common), CohereRerank(reranker, **common)


KINDS = pytest.mark.parametrize("kind", ["cross_encoder", "cohere"])


@KINDS
def test_the_owners_fields_and_parameters_are_ours(kind):
    theirs, ours = {
        "cross_encoder": (owners.CrossEncoderReranker, CrossEncoderReranker),
        "cohere": (langchain_cohere.CohereRerank, CohereRerank),
    }[kind]
    assert ours.__name__ == theirs.__name__
    assert set(theirs.model_fields) <= set(ours.model_fields)
    parameters = inspect.signature(ours).parameters
    assert set(theirs.model_fields) <= set(parameters)
    for name, parameter in inspect.signature(theirs).parameters.items():
        if name == "cohere_api_key":
            continue  # Theirs is looked up in the environment.
        assert parameters[name].default == parameter.default, name
    for method in ("compress_documents", "acompress_documents", "rerank"):
        if hasattr(theirs, method):
            kept = inspect.signature(getattr(theirs, method)).parameters
            own = inspect.signature(getattr(ours, method)).parameters
            assert [(p.name, p.kind, p.default) for p in kept.values()] == [
                (p.name, p.kind, p.default) for p in own.values()
            ]


@KINDS
@pytest.mark.parametrize("arguments", [{}, {"top_n": 1}, {"top_n": 9}])
def test_results_have_the_same_shape(kind, arguments, reranker, service):
    theirs, ours = both(kind, reranker, service, **arguments)
    documents = make_documents()
    expected = theirs.compress_documents(documents, QUERY)
    result = ours.compress_documents(documents, QUERY)
    assert documents == make_documents()
    assert type(result) is type(expected)
    assert len(result) == len(expected)
    # All of them, so that both have to return the same documents, in whatever order.
    if arguments.get("top_n") == 9:
        assert sorted(d.page_content for d in result) == sorted(d.page_content for d in expected)
    for a, b in zip(result, expected, strict=True):
        assert type(a) is type(b) is Document
        assert set(a.metadata) == set(b.metadata)
        assert a.id in {d.id for d in documents}
        if kind == "cross_encoder":
            assert b.id in {d.id for d in documents}
    best = reranker.rank(QUERY, TEXTS, len(result))
    assert [d.id for d in result] == [f"d{hit.index}" for hit in best]
    assert asyncio.run(ours.acompress_documents(documents, QUERY)) == result
    assert ours.compress_documents([], QUERY) == theirs.compress_documents([], QUERY) == []


@KINDS
def test_unknown_arguments_are_errors_in_both(kind, reranker, service):
    # pydantic's ValidationError and our ConfigError are both ValueErrors.
    with pytest.raises(ValueError, match="top_m"):
        both(kind, reranker, service, top_m=3)
    theirs, _ = both(kind, reranker, service)
    with pytest.raises(ValidationError, match="top_m"):
        type(theirs)(**{**dict(theirs), "top_m": 3})


@KINDS
def test_in_a_compression_retriever_and_traced(kind, reranker, service):
    _, ours = both(kind, reranker, service, top_n=2)
    retriever = classic.ContextualCompressionRetriever(
        base_compressor=ours, base_retriever=FixedRetriever(documents=make_documents())
    )
    collector = RunCollectorCallbackHandler()
    found = retriever.invoke(QUERY, {"callbacks": [collector]})
    assert found == ours.compress_documents(make_documents(), QUERY)
    assert [run.name for run in collector.traced_runs[0].child_runs][-1] == type(ours).__name__


@KINDS
def test_a_failure_let_through_is_told(kind, service):
    _, ours = both(kind, BrokenReranker(on_error="passthrough"), service, top_n=2)
    documents = make_documents()
    for result in (
        ours.compress_documents(documents, QUERY),
        asyncio.run(ours.acompress_documents(documents, QUERY)),
    ):
        assert [document.id for document in result] == ["d0", "d1"]
        assert all("no such weights" in d.metadata["rerank_error"] for d in result)
    assert documents == make_documents()


# --- CrossEncoderReranker ----------------------------------------------------------------------


def test_what_a_cross_encoder_may_be(reranker):
    assert CrossEncoderReranker(model="some/model").model.config.model == "some/model"
    assert CrossEncoderReranker(model=reranker).model.reranker is reranker
    with pytest.raises(ValidationError, match="Other cross-encoders work in LangChain's own"):
        CrossEncoderReranker(model=LengthEncoder())
    with pytest.raises(ValidationError, match="top_n"):
        CrossEncoderReranker(model=reranker, top_n=-1)
    twin = copy.deepcopy(CrossEncoderReranker(model=reranker, top_n=2))
    assert (twin.top_n, twin.model.reranker) == (2, reranker)
    unpickled = pickle.loads(pickle.dumps(CrossEncoderReranker(model="some/model")))
    assert unpickled.model.config.model == "some/model"


# --- CohereRerank ------------------------------------------------------------------------------


@pytest.mark.parametrize("top_n", [-1, 0, 1, 3, None])
@pytest.mark.parametrize("given", [TEXTS, make_documents(), MAPPINGS])
def test_rerank_has_the_same_shape(given, top_n, reranker, service):
    theirs, ours = both("cohere", reranker, service, top_n=2)
    before = copy.deepcopy(given)
    expected = theirs.rerank(given, QUERY, top_n=top_n)
    result = ours.rerank(given, QUERY, top_n=top_n)
    assert given == before
    assert len(result) == len(expected)
    for a, b in zip(result, expected, strict=True):
        assert {key: type(value) for key, value in a.items()} == {
            key: type(value) for key, value in b.items()
        }
    assert asyncio.run(ours.arerank(given, QUERY, top_n=top_n)) == result
    assert ours.rerank([], QUERY) == theirs.rerank([], QUERY) == []
    json.dumps(result)


@pytest.mark.parametrize("rank_fields", [None, [], ["text"], ["year", "absent"]])
def test_mappings_are_read_as_the_owner_sends_them(rank_fields, reranker, service):
    theirs, ours = both("cohere", reranker, service)
    theirs.rerank(MAPPINGS, QUERY, rank_fields=rank_fields)
    sent = service.asked[-1]
    expected = ICRRerank(reranker, top_n=3).rerank(sent, QUERY)
    assert ours.rerank(MAPPINGS, QUERY, rank_fields=rank_fields) == expected
    assert asyncio.run(ours.arerank(MAPPINGS, QUERY, rank_fields=rank_fields)) == expected


@pytest.mark.parametrize("loaded", ["from a model", "by name"])
def test_tokens_per_document(loaded, reranker, model_folder):
    settings = {"layers": (1, 2), "dtype": "float32", "device": "cpu"}
    if loaded == "from a model":
        ours = CohereRerank(reranker)
        cut = Reranker.from_model(
            tiny_model("llama"), byte_tokenizer(), layers=(1, 2), max_document_tokens=5
        )
    else:
        ours = CohereRerank(model=model_folder, **settings)
        cut = Reranker(model=model_folder, **settings, max_document_tokens=5)
    expected = CohereRerank(cut).rerank(TEXTS, QUERY)
    assert ours.rerank(TEXTS, QUERY) != expected
    assert ours.rerank(TEXTS, QUERY, max_tokens_per_doc=5) == expected
    assert asyncio.run(ours.arerank(TEXTS, QUERY, max_tokens_per_doc=5)) == expected


def test_another_model_for_one_call(reranker, model_folder):
    ours = CohereRerank(reranker)
    other = CohereRerank(model=model_folder, layers=(1, 2))
    expected = other.rerank(TEXTS, QUERY)
    assert ours.rerank(TEXTS, QUERY, model=model_folder) == expected
    assert ours.rerank(TEXTS, QUERY, model="rerank-v3.5") == ours.rerank(TEXTS, QUERY)


def test_a_model_of_the_service_stands_for_ours_and_the_log_says_so(caplog):
    with caplog.at_level(logging.WARNING, logger="icr_rag"):
        ours = CohereRerank(model="rerank-english-v3.0", cohere_api_key="secret")
    assert (ours.model, ours.config.model) == ("rerank-english-v3.0", "smollm2-135m")
    assert "rerank-english-v3.0 is a model of Cohere's service" in caplog.text
    assert "secret" not in repr(ours) + ours.model_dump_json()
    caplog.clear()
    assert CohereRerank(model="some/model").config.model == "some/model"
    assert CohereRerank().model == "smollm2-135m"
    assert caplog.text == ""


def test_settings_copy_and_serialise(reranker, tmp_path):
    ours = CohereRerank(model="some/model", top_n=2, layers=(3, 5), base_url="http://x")
    for twin in (
        CohereRerank(**json.loads(ours.model_dump_json())),
        pickle.loads(pickle.dumps(ours)),
        copy.deepcopy(ours),
    ):
        assert dict(twin) == dict(ours)
        assert (twin.config, twin.top_n, twin.base_url) == (ours.config, 2, "http://x")
    assert copy.deepcopy(CohereRerank(reranker)).reranker is reranker
    with pytest.raises(ConfigError, match="model cannot be set"):
        CohereRerank(reranker, model="some/model")
    path = tmp_path / "icr.yaml"
    path.write_text("layers: 3-5\n")
    assert CohereRerank.from_config(path, top_n=1).config.layers == (3, 5)


def test_what_is_not_there_is_said():
    with pytest.raises(AttributeError, match="no attribute 'FlashrankRerank'"):
        _ = compat.FlashrankRerank
