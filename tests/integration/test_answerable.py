"""Adapters where nothing answers: nothing is given to the LLM, and one can know why."""

from __future__ import annotations

import asyncio
import copy
import pickle

import pytest
from adapter_kinds import QUERY, TEXTS, OfLangChain, OfLlamaIndex, cohere
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker
from icr_rag.errors import ConfigError
from icr_rag.profiles import Abstention, Calibration, Profile, Shape
from icr_rag.profiles.calibration import FEATURES


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    fields = {"scoring": "likelihood", "score_mode": "explained"}
    with Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **fields) as ranker:
        basis = ranker.scorer.basis()
    path = tmp_path_factory.mktemp("profile") / "p.json"
    Profile(
        model="tiny", shape=Shape.of(tiny_model("llama").config), scoring="likelihood",
        framework="pointwise", likelihood="query",
        calibration=Calibration(kind="logistic", slope=2.0, intercept=0.0, basis=basis),
        abstention=Abstention(intercept=0.0, weights=dict.fromkeys(FEATURES, 0.1), basis=basis),
    ).save(path)  # fmt: skip
    return str(path)


@pytest.fixture(scope="module")
def ranker(profile):
    fields = {"scoring": "likelihood", "score_mode": "probability", "profile": profile}
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **fields)


class LangChain(OfLangChain):
    def run(self, adapter, documents):
        return [d.metadata for d in adapter.compress_documents(documents, QUERY)]

    def arun(self, adapter, documents):
        return [d.metadata for d in asyncio.run(adapter.acompress_documents(documents, QUERY))]


class Results(LangChain):
    """``rerank()``, which returns positions."""

    def run(self, adapter, documents):
        return adapter.rerank(documents, QUERY)

    def arun(self, adapter, documents):
        return asyncio.run(adapter.arerank(documents, QUERY))


class Cohere(Results):
    """A call's own cut, by an adapter that the first one makes."""

    def make(self, *arguments, **fields):
        return cohere(*arguments, **fields)

    def run(self, adapter, documents):
        return adapter.rerank(documents, QUERY, max_tokens_per_doc=100)


class LlamaIndex(OfLlamaIndex):
    def documents(self):
        from llama_index.core.schema import ImageNode, NodeWithScore

        return [*super().documents(), NodeWithScore(node=ImageNode(image="aGk="), score=0.9)]

    def told(self, found):
        return self.hidden(found, "answerable")

    def run(self, adapter, documents):
        return self.told(adapter.postprocess_nodes(documents, query_str=QUERY))

    def arun(self, adapter, documents):
        return self.told(asyncio.run(adapter.apostprocess_nodes(documents, query_str=QUERY)))


@pytest.fixture(params=[LangChain, Results, Cohere, LlamaIndex], ids=lambda kind: kind.__name__)
def kind(request):
    pytest.importorskip(request.param.needs)
    return request.param()


def test_metadata_tell_on_request(kind, ranker):
    documents = kind.documents()
    before = copy.deepcopy(documents)
    wanted = ranker.rank(QUERY, TEXTS).answerable
    assert 0 < wanted < 1
    adapter = kind.make(ranker, report_answerable=True)
    for found in (kind.run(adapter, documents), kind.arun(adapter, documents)):
        assert [row["answerable"] for row in found] == [wanted] * len(documents)
    assert documents == before
    assert not any("answerable" in row for row in kind.run(kind.make(ranker), documents))


def test_what_is_not_known_is_not_told(kind, ranker):
    raw = ranker.switched(score_mode="raw")
    found = kind.run(kind.make(raw, report_answerable=True), kind.documents())
    assert found
    assert not any("answerable" in row for row in found)


def test_where_nothing_answers_nothing_is_left_and_one_can_know(kind, ranker):
    seen = []
    strict = ranker.with_config(min_answerable=1.0)
    adapter = kind.make(strict, on_ranking=seen.append)
    assert kind.run(adapter, kind.documents()) == []
    assert kind.arun(adapter, kind.documents()) == []
    assert [(one.abstained, len(one.scores) >= 4) for one in seen] == [(True, True)] * 2
    # A threshold on documents leaves nothing, too, and for another reason.
    seen.clear()
    adapter = kind.make(ranker.with_config(score_threshold=1.0), on_ranking=seen.append)
    kind.run(adapter, kind.documents())
    assert [one.abstained for one in seen] == [False]


def remember(ranking):
    """A function that can be pickled."""


def test_the_settings_are_kept_by_copies(kind):
    adapter = kind.make(model="no/such-model", report_answerable=True, on_ranking=remember)
    for twin in (copy.deepcopy(adapter), pickle.loads(pickle.dumps(adapter))):
        assert twin.report_answerable is True
        assert twin._on_ranking is remember


def test_where_each_text_gets_a_score_nothing_can_be_left_out(ranker):
    from icr_rag.integrations.sentence_transformers import CrossEncoder

    strict = ranker.with_config(min_answerable=1.0)
    encoder = CrossEncoder(reranker=strict)
    with pytest.raises(ConfigError, match=r"min_answerable=1.0 leaves out documents"):
        encoder.predict([(QUERY, TEXTS[0])])
    assert encoder.rank(QUERY, TEXTS) == []
    scores = CrossEncoder(reranker=ranker).predict([(QUERY, text) for text in TEXTS])
    assert scores.tolist() == pytest.approx(ranker.rank(QUERY, TEXTS).scores, abs=1e-6)
    pytest.importorskip("langchain_core.cross_encoders")
    from icr_rag.integrations.langchain import ICRCrossEncoder

    with pytest.raises(ConfigError, match="min_answerable"):
        ICRCrossEncoder(strict).score([(QUERY, TEXTS[0])])
    pytest.importorskip("rerankers")
    from icr_rag.integrations.rerankers import ICRRanker

    with pytest.raises(ConfigError, match="min_answerable"):
        ICRRanker(reranker=strict).score(QUERY, TEXTS[0])


def test_other_adapters_return_nothing(ranker):
    strict = ranker.with_config(min_answerable=1.0)
    pytest.importorskip("haystack")
    from haystack import Document

    from icr_rag.integrations.haystack import ICRRanker

    found = ICRRanker(strict).run(QUERY, [Document(content=text) for text in TEXTS])
    assert found == {"documents": []}
