"""An embedding model of the caller's: known by its methods, never changed, asked once a text."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading

import numpy as np
import pytest
from fake_time import fake_time
from hypothesis import given
from hypothesis import strategies as st
from tiny import byte_tokenizer, tiny_model

from icr_rag import Document, Reranker, RerankerConfig
from icr_rag.calls import embedder as embedders
from icr_rag.calls.embedder import Embedder
from icr_rag.calls.embedding_models import Named
from icr_rag.errors import ConfigError, EmbedderError, ICRError, ModelLoadError
from icr_rag.model import forking

QUERY = "Which metal melts first?"
TEXTS = ["Tin melts at 232 degrees.", "Lead is soft.", "Copper conducts heat.", "Gold.", "Zinc."]
COSINES = [0.1, 0.9, 0.4, 0.4, -0.2]
BM25 = [3.0, 25.0, 7.0, 7.0, 0.5]


def vector(text):
    return [float(len(text)), 20.0 * text.count("e"), -9.0]


class Encoder:
    """Encodes as sentence-transformers did before 5.0, and counts what it is asked for."""

    def __init__(self):
        self.asked = []

    def encode(self, texts):
        self.asked += texts
        return np.array([vector(text) for text in texts])


class TwoSided(Encoder):
    """As sentence-transformers does from 5.0 on."""

    encode = None

    def encode_query(self, texts):
        return Encoder.encode(self, texts)

    encode_document = encode_query


class LangChain(Encoder):
    """As LangChain's embeddings are."""

    encode = None

    def embed_query(self, text):
        assert isinstance(text, str)
        return Encoder.encode(self, [text])[0].tolist()

    def embed_documents(self, texts):
        return Encoder.encode(self, texts).tolist()


class LlamaIndex(Encoder):
    """As LlamaIndex's embedding models are."""

    encode = None

    def get_query_embedding(self, query):
        return Encoder.encode(self, [query])[0].tolist()

    def get_text_embedding_batch(self, texts):
        return Encoder.encode(self, texts).tolist()


KINDS = [Encoder, TwoSided, LangChain, LlamaIndex]


def tiny(**fields):
    fields = {"layers": (1, 2), **fields}
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **fields)


def cosines(query, texts):
    a = np.array(vector(query))
    return [
        float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        for b in (np.array(vector(text)) for text in texts)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_its_cosines_are_what_scores_would_be_that_are_given(kind):
    model = kind()
    found = tiny(embedder=model).rank(QUERY, TEXTS)
    given_scores = tiny().rank(QUERY, TEXTS, retrieval_scores=cosines(QUERY, TEXTS))
    assert found.scores == pytest.approx(given_scores.scores, abs=1e-4)
    assert found.usage.fused == {"model": 1.0, "embedder": 1.0}
    assert found.usage.seconds["embed"] >= 0
    assert sorted(model.asked) == sorted([QUERY, *TEXTS])


def test_it_is_asked_where_the_first_stage_has_no_scores_of_the_kind():
    model = Encoder()
    ranker = tiny(embedder=model)
    found = ranker.rank(QUERY, TEXTS, retrieval_scores=COSINES)
    assert (model.asked, found.usage.fused) == ([], {"model": 1.0, "scores": 1.0})
    assert "embed" not in found.usage.seconds
    lexical = ranker.rank(QUERY, TEXTS, retrieval_scores=BM25)
    assert lexical.usage.fused == {"model": 1.0, "embedder": 1.0, "order of scores": 0.3}
    both = {"embedder": cosines(QUERY, TEXTS), "scores": BM25}
    wanted = tiny().rank(QUERY, TEXTS, retrieval_scores={"dense": both["embedder"], "sparse": BM25})
    assert lexical.scores == pytest.approx(wanted.scores, abs=1e-4)
    weighed = tiny(embedder=model, first_stage_weights={"embedder": 0.5, "scores": 0})
    fused = weighed.rank(QUERY, TEXTS, retrieval_scores=COSINES).usage.fused
    assert fused == {"model": 1.0, "embedder": 0.5}


def test_texts_are_asked_for_once_and_as_the_model_reads_them():
    model = Encoder()
    ranker = tiny(embedder=model)
    documents = [Document("soft.", title="Lead"), "Gold.", "Gold.", " ", {"text": "Zinc."}]
    first = ranker.rank(QUERY, documents)
    assert sorted(model.asked) == sorted([QUERY, "Lead\nsoft.", "Gold.", "Zinc."])
    model.asked.clear()
    assert ranker.rank(QUERY, documents).scores == first.scores
    assert model.asked == []
    ranker.rank("Another one?", ["Gold.", "Tin."])
    assert model.asked == ["Another one?", "Tin."]
    named = tiny(embedder=model, rank_fields=("name",))
    model.asked.clear()
    named.rank(QUERY, [{"name": "Tin", "text": "x"}, {"name": "Lead", "text": "y"}])
    assert model.asked == [QUERY, "name: Tin", "name: Lead"]


def test_no_more_is_kept_than_the_bound(monkeypatch):
    monkeypatch.setattr(embedders, "MOST_KEPT", 3)
    model = Encoder()
    kept = Embedder(model)
    wanted = cosines(QUERY, TEXTS)
    for _ in range(2):
        assert kept.cosines(QUERY, TEXTS) == pytest.approx(wanted, abs=1e-6)
        assert len(kept._kept) == 3
    assert len(model.asked) == 6 + 3


@given(st.lists(st.text(max_size=5), max_size=8), st.sampled_from([1e-250, 1.0, 1e250]))
def test_cosines_are_numpys(texts, scale):
    class Odd(Encoder):
        def encode(self, own):
            return [[scale * value for value in vector(text)] for text in own]

    found = Embedder(Odd()).cosines(QUERY, texts)
    wanted = cosines(QUERY, texts)
    for text, own, other in zip(texts, found, wanted, strict=True):
        assert own is None if not text.strip() else own == pytest.approx(other, abs=1e-5)


def test_it_is_left_alone():
    class Frozen(Encoder):
        def __setattr__(self, name, value):
            assert (name, hasattr(self, name)) == ("asked", False)
            object.__setattr__(self, name, value)

        def encode(self, texts):
            found = np.array([vector(text) for text in texts])
            # What it was handed is its own.
            texts.clear()
            found.flags.writeable = False
            return found

    assert len(tiny(embedder=Frozen()).rank(QUERY, TEXTS)) == 5


@pytest.mark.parametrize(
    ("made", "match"),
    [
        (RuntimeError("no key"), "failed: RuntimeError: no key"),
        ([[1.0, 2.0]], r"shape \(1, 2\) for 5 texts"),
        ([1.0] * 5, r"shape \(5,\) for 5 texts"),
        ([[1.0], [2.0, 3.0], [1.0], [1.0], [1.0]], "no matrix can be made"),
        ([["a", "b"]] * 5, "no matrix can be made"),
        ([[1.0, float("nan"), 0.0]] * 5, "infinite or NaN"),
        ([[1.0, 2.0]] * 5, "vectors of 2 numbers for documents and 3 for a query"),
        ([[]] * 5, r"shape \(5, 0\)"),
        (None, r"shape \(\)|no matrix"),
    ],
    ids=str,
)
def test_what_is_wrong_with_it_is_said_plainly(made, match):
    class Wrong(LangChain):
        def embed_documents(self, texts):
            if isinstance(made, Exception):
                raise made
            return made

    with pytest.raises(EmbedderError, match=match) as caught:
        tiny(embedder=Wrong()).rank(QUERY, TEXTS)
    assert "Wrong" in str(caught.value)
    assert isinstance(caught.value, ICRError)
    through = tiny(embedder=Wrong(), on_error="passthrough").rank(QUERY, TEXTS)
    assert "EmbedderError" in through.error
    assert [hit.index for hit in through] == [0, 1, 2, 3, 4]
    # Nothing wrong is kept, and nobody asks it where it does not count.
    assert tiny(embedder=Wrong()).with_config(fusion="none").rank(QUERY, TEXTS).error is None


def test_one_that_answers_in_the_same_place_again_is_understood():
    class Reused(Encoder):
        def __init__(self):
            super().__init__()
            self.place = np.zeros((len(TEXTS), 3))

        def encode(self, texts):
            self.place[: len(texts)] = super().encode(texts)
            return self.place[: len(texts)]

    assert tiny(embedder=Reused()).rank(QUERY, TEXTS).scores == (
        tiny(embedder=Encoder()).rank(QUERY, TEXTS).scores
    )


def test_zeros_are_like_nothing():
    class Zeros(Encoder):
        def encode(self, texts):
            return [[0.0, 0.0] for _ in texts]

    found = tiny(embedder=Zeros()).rank(QUERY, TEXTS)
    assert found.usage.fused == {}


@pytest.mark.parametrize("wrong", [5, object(), [1.0], byte_tokenizer, {"embed": 1}])
def test_what_embeds_nothing_is_refused(wrong):
    with pytest.raises(ConfigError, match="no embedding model; allowed are LangChain's"):
        Reranker(embedder=wrong)


def test_it_goes_with_what_counts_it():
    model = Encoder()
    for fields in ({"fusion": "none"}, {"fusion": "rrf"}, {"score_mode": "lift"},
                   {"scoring": "likelihood", "score_mode": "explained"}):  # fmt: skip
        with pytest.raises(ConfigError, match="embedder= means nothing with fusion="):
            Reranker(embedder=model, **fields)
        with pytest.raises(ConfigError, match="embedder='a name' means nothing with"):
            Reranker(embedder="a name", **fields)
    with pytest.raises(ConfigError, match="both say what embeds"):
        Reranker(RerankerConfig(embedder="a name"), embedder=model)


def test_other_settings_keep_it_and_its_vectors():
    model = Encoder()
    ranker = tiny(embedder=model)
    plain = ranker.with_config(fusion="none")
    assert plain.rank(QUERY, TEXTS).usage.fused == {}
    assert model.asked == []
    ranker.rank(QUERY, TEXTS)
    model.asked.clear()
    other = ranker.switched(scoring="likelihood")
    assert other.rank(QUERY, TEXTS).usage.fused == {"model": 1.0, "embedder": 1.0}
    assert ranker.with_config(top_n=2).rank(QUERY, TEXTS).usage.fused["embedder"] == 1.0
    assert model.asked == []
    assert ranker.with_config(embedder=None).rank(QUERY, TEXTS).usage.fused == {}
    another = Encoder()
    ranker.with_config(embedder=another).rank(QUERY, TEXTS)
    assert len(another.asked) == 6
    assert copy.deepcopy(ranker) is ranker


def test_another_one_or_none_replaces_one_that_is_named(tmp_path):
    named = Reranker(embedder=tmp_path)
    assert named.config.embedder == str(tmp_path)
    for change in (named.with_config, named.switched):
        none, other = change(embedder=None), change(embedder="other")
        assert (none.config.embedder, none._embedder) == (None, None)
        assert other.config.embedder == "other"
        model = Encoder()
        own = change(embedder=model)
        assert (own.config.embedder, own._embedder.given) == (None, model)
        assert Reranker(layers=(1, 2)).switched(embedder=model)._embedder.given is model


def test_it_is_pickled_with_the_settings():
    again = pickle.loads(pickle.dumps(Reranker(embedder=Encoder(), layers=(1, 2))))
    assert isinstance(again._embedder.given, Encoder)
    assert again.config.layers == (1, 2)
    assert pickle.loads(pickle.dumps(Reranker(embedder="a name"))).config.embedder == "a name"


def test_asynchronous_calls_and_many_queries_ask_it_off_the_event_loop():
    threads = []

    class Watched(Encoder):
        def encode(self, texts):
            threads.append(threading.current_thread() is threading.main_thread())
            return super().encode(texts)

    ranker = tiny(embedder=Watched())
    found = asyncio.run(ranker.arank(QUERY, TEXTS))
    assert threads == [False, False]
    assert found.scores == tiny(embedder=Encoder()).rank(QUERY, TEXTS).scores
    kept = tiny(
        layers="auto", embedder=Encoder(), document_states="independent", framework="listwise"
    )
    queries = [QUERY, "What is soft?"]
    for query, ranking in zip(queries, kept.rank_many(queries, [TEXTS, TEXTS]), strict=True):
        assert ranking.usage.fused == {"model": 1.0, "embedder": 1.0}
        assert ranking.scores == pytest.approx(kept.rank(query, TEXTS).scores, abs=1e-4)


def test_a_forked_process_waits_for_nobody(monkeypatch):
    monkeypatch.setattr(Named, "load", lambda _: Encoder())
    kept = Embedder(config=RerankerConfig(embedder="org/name"))
    held, done = threading.Event(), threading.Event()

    def hold():
        with kept._making.lock, kept._turns.lock:
            held.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    # As in the child, where the thread that holds them does not exist.
    forking._renew()
    assert kept.cosines(QUERY, TEXTS) == pytest.approx(cosines(QUERY, TEXTS), abs=1e-6)
    done.set()
    holder.join()


def test_under_a_deadline_it_is_asked_only_if_there_is_time():
    class Slow(Encoder):
        def encode(self, texts):
            clock.now += 10 * len(texts)
            return super().encode(texts)

    ranker = tiny(embedder=Slow(), framework="pointwise")
    with fake_time(ranker) as clock:
        ranker.rank(QUERY, TEXTS)
        other = [f"{text} Or so." for text in TEXTS]
        late = ranker.rank(QUERY, other, deadline_ms=9000)
        assert "the embedder was not asked" in late.degraded
        assert late.usage.fused == {}
        assert late.usage.unscored == ()
        assert ranker.rank(QUERY, other, deadline_ms=5e6).usage.fused["embedder"] == 1.0


# --- by name -------------------------------------------------------------------------------------


def test_a_name_is_loaded_once_when_it_is_first_needed(monkeypatch):
    made = []

    def load(named):
        made.append(named)
        return Encoder()

    monkeypatch.setattr(Named, "load", load)
    ranker = tiny(embedder="org/name", local_files_only=True)
    assert (ranker.config.embedder, made) == ("org/name", [])
    ranker.rank(QUERY, TEXTS, retrieval_scores=COSINES)
    assert made == []
    for _ in range(2):
        assert ranker.rank(QUERY, TEXTS).usage.fused == {"model": 1.0, "embedder": 1.0}
    ranker.with_config(top_n=1).rank(QUERY, TEXTS)
    assert made == [Named("org/name", "auto", None, True, False)]
    ranker.with_config(embedder="org/other").rank(QUERY, TEXTS)
    assert made[1:] == [Named("org/other", "auto", None, True, False)]


def test_loading_one_is_not_taken_for_embedding(monkeypatch):
    def load(_):
        clock.now += 1e6
        return Encoder()

    monkeypatch.setattr(Named, "load", load)
    ranker = tiny(embedder="org/name")
    with fake_time(ranker) as clock:
        late = ranker.rank(QUERY, TEXTS, deadline_ms=9000)
        assert late.degraded.endswith("; the embedder took 1000000000 ms")
        assert late.usage.fused == {}
        later = ranker.rank(QUERY, [f"{text} Or so." for text in TEXTS], deadline_ms=9e6)
        assert (later.degraded, later.usage.fused["embedder"]) == (None, 1.0)


def test_where_it_is_loaded_from_is_as_the_settings_say(monkeypatch):
    transformers = pytest.importorskip("sentence_transformers")
    asked = {}

    def make(name, **fields):
        asked.update(fields, name=name)
        return Encoder()

    monkeypatch.setattr(transformers, "SentenceTransformer", make)
    Named.of(RerankerConfig(embedder="x", cache_dir="c", device="cpu")).load()
    assert asked == {"name": "x", "device": "cpu", "cache_folder": "c", "local_files_only": False,
                     "trust_remote_code": False}  # fmt: skip


def test_a_name_that_is_no_model_is_said(tmp_path):
    pytest.importorskip("sentence_transformers")
    with pytest.raises(ModelLoadError, match=r"embedder='.*' cannot be loaded"):
        tiny(embedder=str(tmp_path / "nothing"), local_files_only=True).rank(QUERY, TEXTS)
