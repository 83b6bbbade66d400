"""`ICRCrossEncoder`: pairs grouped by query; in LangChain's own CrossEncoderReranker."""

from __future__ import annotations

import asyncio
import copy
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_parts import QUERY, TEXTS, make_documents
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker, RerankerConfig
from icr_rag.errors import ConfigError, InputError

cross_encoders = pytest.importorskip("langchain_core.cross_encoders")

from icr_rag.integrations.langchain import ICRCrossEncoder, ICRRerank  # noqa: E402

OTHER_QUERY = "What conducts heat?"


@pytest.fixture(scope="module")
def reranker():
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), layers=(1, 2))


def test_scores_are_the_rerankers_in_the_order_of_the_pairs(reranker):
    encoder = ICRCrossEncoder(reranker)
    assert isinstance(encoder, cross_encoders.BaseCrossEncoder)
    scores = encoder.score([(QUERY, text) for text in TEXTS])
    assert scores == list(reranker.rank(QUERY, TEXTS).scores)
    assert {type(score) for score in scores} == {float}
    assert encoder.score([]) == []


@settings(max_examples=20)
@given(picks=st.lists(st.tuples(st.booleans(), st.sampled_from(TEXTS)), max_size=6))
def test_queries_may_be_mixed(reranker, picks):
    pairs = [(QUERY if first else OTHER_QUERY, text) for first, text in picks]
    before = list(pairs)
    scores = ICRCrossEncoder(reranker).score(pairs)
    assert pairs == before
    for query in (QUERY, OTHER_QUERY):
        members = [place for place, pair in enumerate(pairs) if pair[0] == query]
        alone = reranker.rank(query, [pairs[place][1] for place in members]).scores
        assert [scores[place] for place in members] == list(alone)


def test_what_the_rerankers_settings_leave_out_has_a_score_nevertheless(reranker):
    encoder = ICRCrossEncoder(
        Reranker.from_model(
            tiny_model("llama"), byte_tokenizer(), layers=(1, 2), top_n=1, near_duplicates=1.0
        )
    )
    scores = encoder.score([(QUERY, text) for text in [*TEXTS, TEXTS[0], " "]])
    assert len(scores) == 6
    assert scores[0] == scores[4]
    assert scores[5] == min(scores)


def test_wrong_pairs_are_named(reranker):
    encoder = ICRCrossEncoder(reranker)
    for pairs, message in (
        (["ab"], r"pairs\[0\] is 'ab'"),
        ([(QUERY, "a"), (QUERY,)], r"pairs\[1\] is"),
        ([(None, "a")], r"pairs\[0\] has a query of type NoneType"),
        ([(QUERY, "a"), (QUERY, None)], r"pairs\[1\] has a text of type NoneType"),
        ([(" ", "a")], "blank"),
    ):
        with pytest.raises(InputError, match=message):
            encoder.score(pairs)


def test_making_one_is_cheap_and_checked(reranker):
    encoder = ICRCrossEncoder(model="no/such-model", layers=(3, 5))
    assert encoder.config == RerankerConfig(model="no/such-model", layers=(3, 5))
    assert "no/such-model" in repr(encoder)
    assert pickle.loads(pickle.dumps(encoder)).config == encoder.config
    assert copy.deepcopy(ICRCrossEncoder(reranker)).reranker is reranker
    with pytest.raises(ConfigError, match="did you mean 'layers'"):
        ICRCrossEncoder(layer=3)
    with pytest.raises(ConfigError, match="device"):
        ICRCrossEncoder(reranker, device="cpu")


def test_in_langchains_cross_encoder_reranker(reranker):
    compressors = pytest.importorskip("langchain_classic.retrievers.document_compressors")
    compressor = compressors.CrossEncoderReranker(model=ICRCrossEncoder(reranker), top_n=3)
    result = compressor.compress_documents(make_documents(), QUERY)
    ours = ICRRerank(reranker, top_n=3).compress_documents(make_documents(), QUERY)
    assert [document.id for document in result] == [document.id for document in ours]
    assert asyncio.run(compressor.acompress_documents(make_documents(), QUERY)) == result
