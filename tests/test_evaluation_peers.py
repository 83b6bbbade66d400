"""What re-rankers are compared with: each gives every document once, on the same weights."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

import pytest
import torch
from tiny import byte_tokenizer, tiny_model

from icr_rag import Document, RerankerConfig, Usage
from icr_rag.errors import ConfigError, InputError
from icr_rag.evaluation.peers import NotRunHere, check_peer, make_peer, ranking_of

DOCUMENTS = [Document("tin melts"), Document("lead is a metal", title="Lead"), Document("oak")]


def order(ranking):
    return [hit.index for hit in ranking]


def test_the_first_stage_keeps_its_order():
    ranking = make_peer("bm25", RerankerConfig(), {}).rank("where?", DOCUMENTS)
    assert order(ranking) == [0, 1, 2]
    assert list(ranking.scores) == sorted(ranking.scores, reverse=True)
    assert ranking.usage == Usage()


class Own:
    """A peer of the user's."""

    def __init__(self, config, result):
        self.config, self.result = config, result

    def rank(self, query, documents):
        return self.result


@pytest.fixture
def own(monkeypatch):
    module = ModuleType("my_ranker")
    module.Own = Own
    module.useless = lambda config: object()
    monkeypatch.setitem(sys.modules, "my_ranker", module)


def test_anything_with_rank_is_a_peer(own):
    config = RerankerConfig(model="some/model", fusion="rrf")
    peer = make_peer("my_ranker:Own", config, {"result": (2, 0, 1)})
    assert peer.inner.config is config
    assert peer.config.fusion == "none"
    assert order(peer.rank("q", DOCUMENTS)) == [2, 0, 1]
    usage = Usage(tokens=5)
    whole = ranking_of([1, 0, 2], DOCUMENTS, usage)
    ranking = make_peer("my_ranker:Own", config, {"result": whole}).rank("q", DOCUMENTS)
    assert (order(ranking), ranking.usage) == ([1, 0, 2], usage)
    assert make_peer("my_ranker:Own", config, {"result": []}).rank("q", []).hits == ()


@pytest.mark.parametrize("result", [[0, 1], [0, 1, 1], [0, 1, 3], [0, 1, 2, 2]])
def test_a_peer_that_loses_or_invents_documents_is_refused(own, result):
    peer = make_peer("my_ranker:Own", RerankerConfig(), {"result": result})
    with pytest.raises(InputError, match="each from 0 to 2 once"):
        peer.rank("q", DOCUMENTS)


def test_mistakes_name_the_peer(own):
    config = RerankerConfig()
    with pytest.raises(
        ConfigError, match=r"peer='cross'; allowed are bm25, cross_encoder, rank_llm"
    ):
        check_peer("cross")
    for name in ("no_such_module:x", "my_ranker:Other"):
        with pytest.raises(ConfigError, match=f"peer '{name}' cannot be imported"):
            make_peer(name, config, {})
    with pytest.raises(ConfigError, match="object has no method rank"):
        make_peer("my_ranker:useless", config, {})
    with pytest.raises(ConfigError, match=r"'my_ranker:Own' with options {'bad': 1}"):
        make_peer("my_ranker:Own", config, {"bad": 1})


# --- sentence-transformers ------------------------------------------------------------------


@pytest.fixture
def cross_encoder(model_folder):
    pytest.importorskip("sentence_transformers.cross_encoder.modules")
    config = RerankerConfig(model=model_folder, dtype="float32", device="cpu")
    return make_peer("cross_encoder", config, {})


def prompt(query, document):
    return (
        f"<|im_start|>user\nPassage: {document}\n\nQuery: {query}\n\nDoes the passage answer the "
        "query? Answer with yes or no.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_cross_encoder_scores_as_the_model_does(cross_encoder):
    ranking = cross_encoder.rank("where?", DOCUMENTS)
    tokenizer, model = byte_tokenizer(), tiny_model("llama")
    expected, tokens = [], 0
    for document in DOCUMENTS:
        ids = tokenizer(prompt("where?", document.content), add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
        yes, no = (tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in ("y", "n"))
        expected.append(float(logits[yes] - logits[no]))
        tokens += len(ids)
    pairs = [("where?", document.content) for document in DOCUMENTS]
    scores = cross_encoder.inner.encoder.predict(pairs, activation_fn=lambda values: values)
    assert scores == pytest.approx(expected, abs=1e-4)
    assert order(ranking) == sorted(range(3), key=lambda i: -expected[i])
    assert (ranking.usage.tokens, ranking.usage.calls) == (tokens, 3)
    # Counted anew for each query.
    assert cross_encoder.rank("where?", DOCUMENTS[:1]).usage.calls == 1


def test_cross_encoder_cuts_documents(model_folder):
    pytest.importorskip("sentence_transformers.cross_encoder.modules")
    config = RerankerConfig(model=model_folder, dtype="float32", max_document_tokens=4)
    peer = make_peer("cross_encoder", config, {})
    usage = peer.rank("where?", DOCUMENTS).usage
    assert usage.truncated == (0, 1)
    assert (
        usage.tokens
        < make_peer("cross_encoder", config.replace(max_document_tokens=None), {})
        .rank("where?", DOCUMENTS)
        .usage.tokens
    )


def test_cross_encoder_without_a_chat_template(tmp_path):
    pytest.importorskip("sentence_transformers.cross_encoder.modules")
    tiny_model("llama").save_pretrained(tmp_path)
    byte_tokenizer(chat=False).save_pretrained(tmp_path)
    config = RerankerConfig(model=str(tmp_path), dtype="float32")
    peer = make_peer("cross_encoder", config, {})
    features = peer.inner.encoder.preprocess([("where?", "oak")])
    text = peer.inner.tokenizer.decode(features["input_ids"][0])
    assert text.startswith("Passage: oak\n\nQuery: where?\n\n")
    assert text.endswith("Answer with yes or no.\nAnswer: ")
    assert len(peer.rank("where?", DOCUMENTS)) == 3


def test_answers_that_begin_alike_are_refused(model_folder):
    pytest.importorskip("sentence_transformers.cross_encoder.modules")
    config = RerankerConfig(model=model_folder)
    with pytest.raises(ConfigError, match="'good' and 'great' begin with the same token"):
        make_peer("cross_encoder", config, {"yes": "good", "no": "great"})
    with pytest.raises(ConfigError, match="the answer '' has no tokens"):
        make_peer("cross_encoder", config, {"yes": ""})


def test_without_the_library_it_is_not_run(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(NotRunHere, match="cross_encoder needs sentence_transformers"):
        make_peer("cross_encoder", RerankerConfig(), {})


# --- rank_llm, of which the shape of its classes stands in ----------------------------------


@dataclass
class Query:
    text: str
    qid: str


@dataclass
class Candidate:
    docid: str
    score: float
    doc: dict


@dataclass
class Request:
    query: Query
    candidates: list = field(default_factory=list)


class ListwiseStandIn:
    def __init__(self, model, context_size, window_size, stride, **options):
        self.settings = (model, context_size, window_size, stride, options)


class RerankerStandIn:
    def __init__(self, agent):
        self.agent = agent

    def rerank(self, request, rank_start=0, rank_end=100, **options):
        assert options == {"populate_invocations_history": True}
        assert rank_end == len(request.candidates)
        self.request = request
        call = SimpleNamespace(input_token_count=40, output_token_count=9)
        return SimpleNamespace(
            candidates=request.candidates[::-1], invocations_history=[call, call]
        )


def test_rank_llm_gets_the_documents_and_tells_its_costs(monkeypatch):
    modules = {
        "rank_llm": {},
        "rank_llm.data": {"Query": Query, "Candidate": Candidate, "Request": Request},
        "rank_llm.rerank": {"Reranker": RerankerStandIn},
        "rank_llm.rerank.listwise": {"RankListwiseOSLLM": ListwiseStandIn},
    }
    for name, contents in modules.items():
        module = ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    config = RerankerConfig(model="some/model")
    peer = make_peer("rank_llm", config, {"window_size": 4, "use_alpha": True})
    ranking = peer.rank("where?", DOCUMENTS)
    assert order(ranking) == [2, 1, 0]
    assert (ranking.usage.tokens, ranking.usage.calls, ranking.usage.generated_tokens) == (
        80,
        2,
        18,
    )
    inner = peer.inner._reranker
    assert inner.agent.settings == ("some/model", 4096, 4, 10, {"use_alpha": True})
    assert inner.request.query.text == "where?"
    assert inner.request.candidates[1].doc == {"text": "lead is a metal", "title": "Lead"}
    scores = [candidate.score for candidate in inner.request.candidates]
    assert scores == sorted(scores, reverse=True)


def test_where_rank_llm_is_missing_it_is_not_run(monkeypatch):
    monkeypatch.setitem(sys.modules, "rank_llm.data", None)
    with pytest.raises(NotRunHere, match=r"rank_llm cannot be imported .*needs vllm"):
        make_peer("rank_llm", RerankerConfig(), {})
