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
    # The owner takes names of its earlier versions in a decorator.
    assert mine.pop() == "legacy"
    # The owner's last ones spread the work over processes and devices.
    assert mine == [name for name in theirs if name in mine]
    assert set(theirs) - set(mine) <= {"device", "pool", "chunk_size", "kwargs"}


@pytest.mark.parametrize(
    "keywords",
    [{}, {"convert_to_tensor": True}, {"convert_to_numpy": False},
     {"activation_fn": torch.nn.Sigmoid()}, {"batch_size": 2, "show_progress_bar": False}],
)  # fmt: skip
@pytest.mark.parametrize(
    "inputs",
    [PAIRS, [list(pair) for pair in PAIRS], PAIRS[0], tuple(PAIRS), numpy.array(PAIRS),
     numpy.array(PAIRS[0]), PAIRS[:1]],
)  # fmt: skip
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


@settings(max_examples=20)
@given(pairs=st.lists(st.tuples(st.sampled_from(["a?", "b?"]), st.sampled_from("xyz")), max_size=8))
def test_pairs_of_several_queries_keep_their_places(ours, tiny_reranker, pairs):
    scores = ours.predict(pairs)
    assert scores.shape == (len(pairs),)
    for query in {query for query, _ in pairs}:
        mine = [score for (of, _), score in zip(pairs, scores, strict=True) if of == query]
        texts = [text for of, text in pairs if of == query]
        expected = tiny_reranker.rank(query, texts).scores
        assert mine == pytest.approx(list(numpy.float32(expected)))


def test_nothing_gives_nothing(ours, owners):
    for keywords in ({}, {"convert_to_tensor": True}, {"convert_to_numpy": False}):
        mine, theirs = ours.predict([], **keywords), owners.predict([], **keywords)
        assert type(mine) is type(theirs)
        assert len(mine) == len(theirs) == 0
    assert ours.rank(QUERY, []) == owners.rank(QUERY, []) == []
    assert ours.rank(QUERY, TEXTS, top_k=0) == owners.rank(QUERY, TEXTS, top_k=0) == []


def test_names_of_earlier_versions(ours, owners):
    old = {"activation_fct": torch.nn.Sigmoid(), "num_workers": 0}
    expected = ours.predict(PAIRS, activation_fn=torch.nn.Sigmoid())
    assert ours.predict(sentences=PAIRS, **old).tolist() == expected.tolist()
    assert owners.predict(sentences=PAIRS, **old).shape == expected.shape
    for model in (ours, owners):
        found = model.rank(QUERY, TEXTS, apply_softmax=True, convert_to_numpy=True, **old)
        assert len(found) == len(TEXTS)
    assert {r["score"] for r in ours.rank(QUERY, TEXTS, **old)} == set(expected.tolist())


def test_inputs_are_not_changed_and_ties_keep_their_order(ours):
    pairs, texts = [list(pair) for pair in PAIRS], list(TEXTS)
    ours.predict(pairs)
    places = [result["corpus_id"] for result in ours.rank(QUERY, texts, return_documents=True)]
    assert (pairs, texts) == ([list(pair) for pair in PAIRS], TEXTS)
    # The same text twice; the blank one is last.
    assert places.index(1) < places.index(4)
    assert places[-1] == 2


def test_in_the_owners_evaluator(ours, owners):
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

    samples = [{"query": QUERY, "positive": TEXTS[:1], "negative": TEXTS[1:4]}]
    evaluator = CrossEncoderRerankingEvaluator(samples, write_csv=False)
    # Where the owner's keeps its results.
    ours.model_card_data = owners.model_card_data
    metrics = evaluator(ours)
    assert set(metrics) == set(evaluator(owners))
    assert 0 < metrics["mrr@10"] <= 1


def test_passthrough_says_so(ours, tiny_reranker, monkeypatch, caplog):
    engine = tiny_reranker.with_config(on_error="passthrough")

    def fail(*arguments):
        raise RuntimeError("no memory")

    monkeypatch.setattr(engine, "_score", fail)
    found = CrossEncoder(reranker=engine).rank(QUERY, TEXTS, top_k=2)
    error = "RuntimeError: no memory"
    assert found == [{"corpus_id": i, "score": 0.0, "rerank_error": error} for i in (0, 1)]
    caplog.clear()
    assert CrossEncoder(reranker=engine).predict(PAIRS).tolist() == [0.0] * 5
    assert "no memory" in caplog.text


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c: c.predict(["a", "b", "c"]), InputError, r"pairs\[0\] is 'a'"),
        (lambda c: c.predict([("a", "b", "c")]), InputError, r"pairs\[0\] is"),
        (lambda c: c.predict([(1, "b")]), InputError, r"pairs\[0\] has a query of type int"),
        (lambda c: c.predict(PAIRS, prompt="?"), InputError, "prompt and prompt_name"),
        (lambda c: c.predict(), InputError, "inputs is a NoneType"),
        (lambda c: c.predict("ab"), InputError, "inputs is a str"),
        (lambda c: c.predict({"query": "a"}), InputError, "inputs is a dict"),
        (lambda c: c.predict(PAIRS, pool={}), InputError, "unknown argument pool"),
        (lambda c: c.rank(QUERY, TEXTS, sentences=[]), InputError, "unknown argument sentences"),
        (lambda c: c.rank(QUERY, TEXTS, top_k=-1), InputError, "top_n=-1"),
        (lambda c: CrossEncoder(fusion="weighted"), ConfigError, "do not get here"),
        (
            lambda c: CrossEncoder(first_stage_weights={"order": 1, "dense": 1}),
            ConfigError,
            "weight of 'dense', and the first stage's scores do not get here",
        ),
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


def test_other_ways_to_make_one(tmp_path, llama, tokenizer):
    (tmp_path / "reranker.toml").write_text("layers = [1, 2]\ntop_n = 2\n")
    assert CrossEncoder.from_config(tmp_path / "reranker.toml").reranker.config.top_n == 2
    shared = CrossEncoder.from_llm(llama, tokenizer=tokenizer, layers=(1, 2), top_n=2)
    assert len(shared.rank(QUERY, TEXTS)) == 2


def test_the_owner_need_not_be_installed():
    code = (
        "import sys; sys.modules['sentence_transformers'] = None\n"
        "from icr_rag.integrations.sentence_transformers import CrossEncoder; CrossEncoder()"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
