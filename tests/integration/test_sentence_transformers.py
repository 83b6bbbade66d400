"""The shim of sentence-transformers' CrossEncoder beside its owner."""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icr_rag.errors import ConfigError, InputError
from icr_rag.integrations.sentence_transformers import CrossEncoder

QUERY = "Which metal melts first?"
TEXTS = ["Tin melts at 232 degrees.", "Lead is soft.", "", "Zinc.", "Lead is soft."]
PAIRS = [(QUERY, text) for text in TEXTS]


@pytest.fixture(scope="module")
def ours(tiny_reranker):
    return CrossEncoder(reranker=tiny_reranker)


@pytest.fixture(scope="module")
def owners(cross_encoder_folder):
    module = pytest.importorskip("sentence_transformers")
    return module.CrossEncoder(cross_encoder_folder, device="cpu")


@pytest.mark.parametrize("method", ["predict", "rank"])
def test_arguments_have_the_owners_places(ours, owners, method):
    theirs = list(inspect.signature(getattr(owners, method)).parameters)
    mine = list(inspect.signature(getattr(ours, method)).parameters)
    # The owner's last ones spread the work over processes and devices.
    assert mine == [name for name in theirs if name in mine]
    assert set(theirs) - set(mine) <= {"device", "pool", "chunk_size", "kwargs"}


@pytest.mark.parametrize(
    "keywords",
    [{}, {"convert_to_tensor": True}, {"convert_to_numpy": False},
     {"activation_fn": torch.nn.Sigmoid()}, {"batch_size": 2, "show_progress_bar": False}],
)  # fmt: skip
@pytest.mark.parametrize("inputs", [PAIRS, [list(pair) for pair in PAIRS], PAIRS[0]])
def test_predict_returns_what_the_owner_returns(ours, owners, inputs, keywords):
    mine, theirs = ours.predict(inputs, **keywords), owners.predict(inputs, **keywords)
    assert type(mine) is type(theirs)
    if isinstance(mine, list):
        assert [type(score) for score in mine] == [type(score) for score in theirs]
        assert mine[0].shape == theirs[0].shape
    else:
        assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)


def test_rank_returns_what_the_owner_returns(ours, owners):
    for keywords in ({}, {"return_documents": True}, {"top_k": 2}, {"top_k": 99}):
        mine, theirs = ours.rank(QUERY, TEXTS, **keywords), owners.rank(QUERY, TEXTS, **keywords)
        assert len(mine) == len(theirs)
        assert [set(result) for result in mine] == [set(result) for result in theirs]
        assert all(type(result["score"]) is float for result in mine)
        for result in mine:
            assert result.get("text", TEXTS[result["corpus_id"]]) == TEXTS[result["corpus_id"]]


def test_scores_are_the_rerankers(ours, tiny_reranker):
    expected = tiny_reranker.rank(QUERY, TEXTS)
    assert ours.predict(PAIRS).tolist() == pytest.approx(list(expected.scores), abs=1e-6)
    assert [r["corpus_id"] for r in ours.rank(QUERY, TEXTS)] == [hit.index for hit in expected]


@settings(max_examples=20, deadline=None)
@given(pairs=st.lists(st.tuples(st.sampled_from(["a?", "b?"]), st.sampled_from("xyz")), max_size=8))
def test_pairs_of_several_queries_keep_their_places(ours, tiny_reranker, pairs):
    scores = ours.predict(pairs)
    assert scores.shape == (len(pairs),)
    for query in {query for query, _ in pairs}:
        mine = [score for (of, _), score in zip(pairs, scores, strict=True) if of == query]
        texts = [text for of, text in pairs if of == query]
        expected = tiny_reranker.rank(query, texts).scores
        assert mine == pytest.approx(list(numpy.float32(expected)))


def test_nothing_gives_nothing(ours):
    assert ours.predict([]).shape == (0,)
    assert ours.rank(QUERY, []) == []


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c: c.predict(["a", "b", "c"]), InputError, "pair 0 is 'a'"),
        (lambda c: c.predict([("a", "b", "c")]), InputError, "pair 0 is"),
        (lambda c: c.predict([(1, "b")]), InputError, "pair 0 has a query of type int"),
        (lambda c: c.predict(PAIRS, prompt="?"), InputError, "prompt and prompt_name"),
        (lambda c: c.rank(" ", TEXTS), InputError, "the query is blank"),
        (lambda c: CrossEncoder("m", backend="onnx"), ConfigError, "unknown setting 'backend'"),
    ],
)
def test_mistakes_are_named(ours, call, error, message):
    with pytest.raises(error, match=message):
        call(ours)


def test_the_owners_settings_reach_the_configuration():
    made = CrossEncoder("org/name", device="cpu", cache_folder="here", max_length=128)
    config = made.reranker.config
    assert (config.model, config.device, config.cache_dir) == ("org/name", "cpu", "here")
    assert config.max_document_tokens == 128


def test_the_owner_need_not_be_installed():
    code = (
        "import sys; sys.modules['sentence_transformers'] = None\n"
        "from icr_rag.integrations.sentence_transformers import CrossEncoder; CrossEncoder()"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
