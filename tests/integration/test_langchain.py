"""The LangChain adapter by itself, with langchain-core only."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_parts import QUERY, TEXTS, BrokenReranker, make_documents
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker, RerankerConfig
from icr_rag.errors import ConfigError, InputError, ModelLoadError
from icr_rag.integrations._langchain_documents import SCORE_KEYS
from icr_rag.integrations.langchain import ICRRerank


@pytest.fixture(scope="module")
def reranker():
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), layers=(1, 2))


def test_order_and_scores_are_the_rerankers(reranker):
    result = ICRRerank(reranker).compress_documents(make_documents(), QUERY)
    expected = reranker.rank(QUERY, TEXTS)
    assert [d.id for d in result] == [f"d{hit.index}" for hit in expected]
    assert [d.metadata["relevance_score"] for d in result] == [hit.score for hit in expected]
    assert all(type(d.metadata["relevance_score"]) is float for d in result)


@settings(max_examples=25)
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


def test_making_one_is_cheap_and_checked():
    adapter = ICRRerank(model="no/such-model", layers=(3, 5), top_n=2)
    assert adapter.config == RerankerConfig(model="no/such-model", layers=(3, 5))
    with pytest.raises(ConfigError, match="did you mean 'layers'"):
        ICRRerank(layer=3)
    with pytest.raises(ConfigError, match="device"):
        ICRRerank(adapter.reranker, device="cpu")
    with pytest.raises(ConfigError, match="top_n=-1"):
        ICRRerank(top_n=-1)
    with pytest.raises(ConfigError, match="retrieval_score_key"):
        ICRRerank(fusion="weighted")


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


# --- rerank ------------------------------------------------------------------------------------


def test_rerank_gives_positions_and_scores(reranker):
    expected = [
        {"index": hit.index, "relevance_score": hit.score} for hit in reranker.rank(QUERY, TEXTS)
    ]
    adapter = ICRRerank(reranker, top_n=3)
    assert adapter.rerank(TEXTS, QUERY) == expected[:3]
    assert adapter.rerank(make_documents(), QUERY, top_n=None) == expected
    assert adapter.rerank([{"text": text} for text in TEXTS], QUERY, top_n=1) == expected[:1]
    assert adapter.rerank(TEXTS, QUERY, top_n=0) == adapter.rerank([], QUERY) == []
    assert asyncio.run(adapter.arerank(TEXTS, QUERY)) == expected[:3]
    assert json.loads(json.dumps(expected)) == expected


def test_rerank_says_what_it_cannot_take(reranker):
    adapter = ICRRerank(reranker)
    with pytest.raises(InputError, match="documents is a str"):
        adapter.rerank("one text", QUERY)
    with pytest.raises(InputError, match="document 1 is a int"):
        adapter.rerank(["a", 1], QUERY)
    with pytest.raises(InputError, match="top_n=-2"):
        adapter.rerank(["a"], QUERY, top_n=-2)
    with pytest.raises(InputError, match="got a str as document 0"):
        adapter.compress_documents(TEXTS, QUERY)
    with pytest.raises(InputError, match="got a str as documents"):
        adapter.compress_documents("one text", QUERY)


# --- the first stage's scores, and failures ----------------------------------------------------


@pytest.mark.parametrize("key", ["score", "relevance_score"])
def test_a_fusion_reads_the_first_stages_scores_from_metadata(key):
    first_stage = [0.1, 0.9, 0.4, 0.2]
    reranker = Reranker.from_model(
        tiny_model("llama"),
        byte_tokenizer(),
        layers=(1, 2),
        fusion="weighted",
        fusion_weight=0.0,
    )
    documents = [
        Document(page_content=text, metadata={key: score})
        for text, score in zip(TEXTS, first_stage, strict=True)
    ]
    adapter = ICRRerank(reranker, retrieval_score_key=key)
    result = adapter.compress_documents(documents, QUERY)
    # All the weight is the first stage's.
    assert [d.page_content for d in result] == [TEXTS[i] for i in (1, 2, 3, 0)]
    assert [d.metadata[key] for d in documents] == first_stage
    assert result[0].metadata["relevance_score"] == 1.0
    mappings = [
        {"text": document.page_content, "metadata": document.metadata} for document in documents
    ]
    assert [hit["index"] for hit in adapter.rerank(mappings, QUERY)] == [1, 2, 3, 0]
    del documents[2].metadata[key]
    with pytest.raises(InputError, match=r"retrieval_scores\[2\]"):
        adapter.compress_documents(documents, QUERY)


def with_metadata(**columns):
    documents = make_documents()
    for name, values in columns.items():
        for document, value in zip(documents, values, strict=True):
            document.metadata[name] = value
    return documents


def shown(hits):
    return [(hit["index"], hit["relevance_score"]) for hit in hits]


def wanted(reranker, scores):
    return [(hit.index, hit.score) for hit in reranker.rank(QUERY, TEXTS, retrieval_scores=scores)]


FALLING = [0.9, 0.8, 0.8, 0.1]


@pytest.mark.parametrize("key", SCORE_KEYS)
def test_scores_that_documents_are_in_the_order_of_count_by_default(
    key, tiny_reranker, own_records
):
    documents = with_metadata(**{key: FALLING})
    found = ICRRerank(tiny_reranker).rerank(documents, QUERY)
    assert shown(found) == wanted(tiny_reranker, FALLING)
    assert shown(found) != wanted(tiny_reranker, None)
    named = ICRRerank(tiny_reranker, retrieval_score_key=key)
    assert named.rerank(documents, QUERY) == found
    # Distances rise; what is no first stage's score has another order, or is no number.
    for other in (
        FALLING[::-1], [0.1, 0.9, 0.2, 0.3], [0.9, 0.8, 0.7, None], ["HIGH", "LOW", "LOW", "LOW"],
        [0.9, 0.8, 0.7, float("nan")], [1, 1, 1, 1], [True, True, False, False],
    ):  # fmt: skip
        hits = ICRRerank(tiny_reranker).rerank(with_metadata(**{key: other}), QUERY)
        assert shown(hits) == wanted(tiny_reranker, None), other
    assert own_records() == []


def test_what_an_earlier_reranker_wrote_counts_only_where_it_is_asked_for(tiny_reranker):
    first = ICRRerank(tiny_reranker).compress_documents(make_documents(), QUERY)
    scores = [document.metadata["relevance_score"] for document in first]
    assert scores == sorted(scores, reverse=True)
    texts = [document.page_content for document in first]
    plain = ICRRerank(tiny_reranker).rerank(first, QUERY)
    asked = ICRRerank(tiny_reranker, retrieval_score_key="relevance_score").rerank(first, QUERY)
    for found, counted in ((plain, None), (asked, scores)):
        ranking = tiny_reranker.rank(QUERY, texts, retrieval_scores=counted)
        assert shown(found) == [(hit.index, hit.score) for hit in ranking]
    assert shown(plain) != shown(asked)


def test_scores_that_do_not_count_are_not_looked_at(tiny_reranker):
    documents = with_metadata(score=FALLING)
    plain = wanted(tiny_reranker, None)
    for adapter in (
        ICRRerank(tiny_reranker, retrieval_score_key=None),
        ICRRerank(tiny_reranker.with_config(fusion="none")),
        ICRRerank(tiny_reranker.with_config(fusion="none"), retrieval_score_key="score"),
        ICRRerank(tiny_reranker.with_config(fusion="none"), retrieval_score_key=("a", "score")),
    ):
        assert shown(adapter.rerank(documents, QUERY)) == plain
    # Not even where there could be none: metadata that is no mapping.
    odd = [{"text": text, "metadata": 5} for text in TEXTS]
    none = ICRRerank(tiny_reranker.with_config(fusion="none"), retrieval_score_key="score")
    assert shown(none.rerank(odd, QUERY)) == plain
    assert shown(ICRRerank(tiny_reranker).rerank(odd, QUERY)) == plain
    with pytest.raises(InputError, match="metadata of type int"):
        ICRRerank(tiny_reranker, retrieval_score_key="score").rerank(odd, QUERY)


def test_several_scores_are_weighed_by_their_names(tiny_reranker):
    sparse = [1.5, 12.0, None, 3.0]
    documents = with_metadata(dense=FALLING, sparse=sparse)
    told = []
    adapter = ICRRerank(
        tiny_reranker, retrieval_score_key=["dense", "sparse"], on_ranking=told.append
    )
    assert adapter.retrieval_score_key == ("dense", "sparse")
    both = {"dense": FALLING, "sparse": sparse}
    assert shown(adapter.rerank(documents, QUERY)) == wanted(tiny_reranker, both)
    assert told[0].usage.fused == {"model": 1.0, "dense": 1.0, "order of sparse": 0.3}
    assert shown(adapter.rerank(make_documents(), QUERY)) == wanted(tiny_reranker, None)


class Lengths(Embeddings):
    """Embeds how long a text is."""

    def embed_query(self, text):
        return [30.0, 60.0]

    def embed_documents(self, texts):
        return [[float(len(text)), 50.0] for text in texts]


def test_an_embeddings_object_scores_what_came_without_scores(tiny_reranker, tmp_path):
    embedder = Lengths()
    told = []
    engine = tiny_reranker.with_config(embedder=embedder)
    adapter = ICRRerank(engine, on_ranking=told.append)
    found = adapter.compress_documents(make_documents(), QUERY)
    assert told[0].usage.fused == {"model": 1.0, "embedder": 1.0}
    assert [d.metadata["relevance_score"] for d in found] == [
        hit.score for hit in engine.rank(QUERY, TEXTS)
    ]
    asyncio.run(adapter.acompress_documents(make_documents(), QUERY))
    assert told[1].scores == told[0].scores
    # As a keyword of every way to make one.
    path = tmp_path / "settings.yaml"
    path.write_text("layers: 1-2\n", encoding="utf-8")
    for made in (
        ICRRerank(embedder=embedder, layers=(1, 2)),
        ICRRerank(config={"layers": (1, 2)}, embedder=embedder),
        ICRRerank.from_config(path, embedder=embedder),
        ICRRerank.from_llm(tiny_model("llama"), tokenizer=byte_tokenizer(), embedder=embedder),
    ):
        assert made.config.embedder is None
        assert made.reranker._embedder.given is embedder
    assert ICRRerank(embedder="a name").config.embedder == "a name"
    with pytest.raises(ConfigError, match="embedder=5 is no embedding model"):
        ICRRerank(embedder=5)


def test_a_fusion_by_ranks_needs_no_scores():
    reranker = Reranker.from_model(
        tiny_model("llama"), byte_tokenizer(), layers=(1, 2), fusion="rrf", fusion_weight=0.0
    )
    adapter = ICRRerank(reranker, retrieval_score_key="score")
    result = adapter.compress_documents(make_documents(), QUERY)
    assert [d.id for d in result] == ["d0", "d1", "d2", "d3"]


def test_a_failure_is_raised_or_told():
    with pytest.raises(ModelLoadError, match="no such weights"):
        ICRRerank(BrokenReranker()).compress_documents(make_documents(), QUERY)
    documents = make_documents()
    adapter = ICRRerank(BrokenReranker(on_error="passthrough"), top_n=3)
    for result in (
        adapter.compress_documents(documents, QUERY),
        asyncio.run(adapter.acompress_documents(documents, QUERY)),
    ):
        assert [d.id for d in result] == ["d0", "d1", "d2"]
        assert {d.metadata["relevance_score"] for d in result} == {0.0}
        assert {d.metadata["rerank_error"] for d in result} == {"ModelLoadError: no such weights"}
    assert documents == make_documents()
    assert adapter.rerank(TEXTS, QUERY, top_n=1) == [
        {"index": 0, "relevance_score": 0.0, "rerank_error": "ModelLoadError: no such weights"}
    ]


# --- other ways to make one --------------------------------------------------------------------


def test_from_a_file_and_from_the_environment(tmp_path, monkeypatch):
    path = tmp_path / "icr.toml"
    path.write_text('model = "some/model"\nlayers = [3, 5]\ntop_n = 4\n')
    adapter = ICRRerank.from_config(path, retrieval_score_key="score")
    assert adapter.config == RerankerConfig(model="some/model", layers=(3, 5), top_n=4)
    assert (adapter.top_n, adapter.retrieval_score_key) == (4, "score")
    changed = ICRRerank.from_config(path, top_n=2, layers="all")
    assert (changed.top_n, changed.config.layers, changed.config.model) == (2, "all", "some/model")
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        ICRRerank.from_config(tmp_path / "missing.yaml")
    monkeypatch.setenv("MINE_MODEL", "other/model")
    monkeypatch.setenv("MINE_LAYERS", "2-4")
    adapter = ICRRerank.from_env("MINE_", top_n=1)
    assert (adapter.config.model, adapter.config.layers, adapter.top_n) == (
        "other/model",
        (2, 4),
        1,
    )


def test_from_a_language_model_that_is_loaded():
    huggingface = pytest.importorskip("langchain_huggingface")
    transformers = pytest.importorskip("transformers")
    pipeline = transformers.pipeline(
        "text-generation", model=tiny_model("llama"), tokenizer=byte_tokenizer(), device="cpu"
    )
    llm = huggingface.HuggingFacePipeline(pipeline=pipeline)
    adapter = ICRRerank.from_llm(llm, top_n=2, layers=(1, 2), config={"order": "given"})
    expected = Reranker.from_model(
        tiny_model("llama"), byte_tokenizer(), layers=(1, 2), order="given"
    ).rank(QUERY, TEXTS, 2)
    assert adapter.rerank(TEXTS, QUERY) == [
        {"index": hit.index, "relevance_score": hit.score} for hit in expected
    ]
    alone = ICRRerank.from_llm(
        tiny_model("llama"), tokenizer=byte_tokenizer(), top_n=2, layers=(1, 2), order="given"
    )
    assert alone.rerank(TEXTS, QUERY) == adapter.rerank(TEXTS, QUERY)
    with pytest.raises(ConfigError, match="did you mean 'layers'"):
        ICRRerank.from_llm(llm, layer=3)


def test_needs_langchain_core_only():
    """Neither the adapter nor a call imports a LangChain distribution besides the core's."""
    program = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("langchain", "langchain_classic", "langgraph", "cohere"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
from langchain_core.documents import Document
from icr_rag.integrations.langchain import ICRRerank
from icr_rag.integrations.compat.langchain import CohereRerank
adapters = (ICRRerank(), CohereRerank(model="some/model"))
assert "torch" not in sys.modules
for adapter in adapters:
    given = [Document(page_content=" ", id="a")]
    assert adapter.compress_documents(given, "q")[0].id == "a"
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


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
