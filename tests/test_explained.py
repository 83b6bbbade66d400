"""Absolute scores: as a plain forward pass gives them, whatever else is in the list."""

from __future__ import annotations

import copy
import itertools
import json
import math
import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker, RerankerConfig
from icr_rag.errors import ConfigError
from icr_rag.methods import BUILT_IN, listed, with_explained
from icr_rag.order import UNREAD
from icr_rag.profiles import Profile, Shape
from icr_rag.scoring import null_documents
from icr_rag.scoring.null_documents import NULL_DOCUMENTS
from icr_rag.scoring.selection import LIKELIHOOD_WEIGHT

QUERY = "Which metal melts first?"
DOCUMENTS = [
    "Tin melts at 232 degrees.",
    "Lead is soft.",
    "Copper conducts heat well, which is why wires are made of it.",
    "Gold.",
]
LIKELIHOOD = {"scoring": "likelihood"}
YES_NO = {"scoring": "likelihood", "likelihood": "yes_no"}
KEPT = {"document_states": "independent"}
ADDED_UP = {"framework": "pointwise", "layers": (1, 2)}
WEIGHTED = {**ADDED_UP, "reading": "log_mass"}
MIXED = {"scoring": "mixed", "layers": (1, 2)}
METHODS = [
    LIKELIHOOD, {**LIKELIHOOD, **KEPT}, YES_NO,
    ADDED_UP, {**ADDED_UP, **KEPT}, WEIGHTED, {**WEIGHTED, **KEPT},
    MIXED, {**MIXED, **KEPT},
]  # fmt: skip
#: Those whose raw scores are of the document alone already.
ALONE = METHODS[:5]
#: Those that run documents without content.
WITH_NULL = [fields for fields in METHODS if fields is not YES_NO]


def explained(fields, model=None, **more):
    return Reranker.from_model(
        model or tiny_model("llama"),
        byte_tokenizer(),
        score_mode="explained",
        **{**fields, **more},
    )


def prompt_of(tokenizer, document, query):
    """Token ids before the document, of it, behind it and of the query, each by itself."""
    instruction = "\nPlease write a question based on this passage.\nQuestion:"
    texts = ["Passage:", f" {document}", instruction, f" {query}"]
    head, *rest = (tokenizer(text, add_special_tokens=False).input_ids for text in texts)
    return [tokenizer("").input_ids + head, *rest]


def mean_surprise(model, tokenizer, document, query):
    """-log P per token of the query after one document, by one plain forward pass."""
    *before, query_ids = prompt_of(tokenizer, document, query)
    prompt = [token for part in before for token in part]
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *query_ids]]), use_cache=False).logits[0]
    rows = logits[len(prompt) - 1 : -1].double().log_softmax(-1)
    return -float(rows[torch.arange(len(query_ids)), torch.tensor(query_ids)].mean())


def shares(model, tokenizer, documents, query):
    without = [mean_surprise(model, tokenizer, text, query) for text in NULL_DOCUMENTS]
    null = sum(without) / len(without)
    return [1 - mean_surprise(model, tokenizer, text, query) / null for text in documents]


@pytest.mark.parametrize("states", [{}, KEPT])
def test_it_equals_the_direct_computation(family, tokenizer, states):
    _, model = family
    wanted = shares(model, tokenizer, DOCUMENTS, QUERY)
    ranker = Reranker.from_model(model, tokenizer, score_mode="explained", **LIKELIHOOD, **states)
    for _ in range(2):
        found = ranker.rank(QUERY, DOCUMENTS).scores
        assert found == pytest.approx(wanted, abs=1e-5)
        assert all(type(score) is float and math.isfinite(score) for score in found)


@pytest.mark.real_weights
@pytest.mark.parametrize("states", [{}, KEPT])
def test_it_equals_the_direct_computation_on_real_weights(states):
    import transformers

    from icr_rag.model.embedded import ensure_embedded_model

    folder = ensure_embedded_model("smollm2-135m")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ranker = Reranker(score_mode="explained", dtype="float32", **LIKELIHOOD, **states)
    found = ranker.rank(QUERY, DOCUMENTS)
    assert found.scores == pytest.approx(shares(model, tokenizer, DOCUMENTS, QUERY), abs=1e-4)
    assert found[0].index == 0
    assert found[0].score > 0.1
    assert found.scores[3] < found[0].score / 2


def log_masses(model, tokenizer, document, query):
    """[layer and head] of layers 1 and 2, mean over the query's tokens, by eager maps."""
    head, body, after, rows = prompt_of(tokenizer, document, query)
    with torch.no_grad():
        output = model(
            torch.tensor([[*head, *body, *after, *rows]]), output_attentions=True, use_cache=False
        )
    maps = torch.stack(output.attentions[1:3])[:, 0].double()
    mass = maps[:, :, -len(rows) :, len(head) : len(head) + len(body)].sum(-1)
    return mass.log().mean(-1)


@pytest.mark.parametrize("states", [{}, KEPT])
def test_attention_equals_the_direct_computation(llama, tokenizer, states):
    def mean(text):
        return float(log_masses(llama, tokenizer, text, QUERY).mean())

    null = sum(map(mean, NULL_DOCUMENTS)) / len(NULL_DOCUMENTS)
    wanted = [mean(text) - null for text in DOCUMENTS]
    ranker = Reranker.from_model(llama, tokenizer, score_mode="explained", **WEIGHTED, **states)
    for _ in range(2):
        assert ranker.rank(QUERY, DOCUMENTS).scores == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("states", [{}, KEPT])
def test_attention_that_is_added_up_is_compared_with_no_content(llama, tokenizer, states):
    raw = Reranker.from_model(llama, tokenizer, fusion="none", **ADDED_UP, **states)
    null = raw.rank(QUERY, NULL_DOCUMENTS).scores
    wanted = [score - sum(null) / len(null) for score in raw.rank(QUERY, DOCUMENTS).scores]
    found = raw.with_config(score_mode="explained").rank(QUERY, DOCUMENTS).scores
    assert found == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("states", [{}, KEPT])
def test_mixed_is_the_mean_of_both_shares(llama, tokenizer, states):
    def share_of_attention(text):
        head_by_head = 1 - log_masses(llama, tokenizer, text, QUERY) / null
        return float(head_by_head.mean())

    null = sum(log_masses(llama, tokenizer, text, QUERY) for text in NULL_DOCUMENTS) / 3
    words = shares(llama, tokenizer, DOCUMENTS, QUERY)
    weight = LIKELIHOOD_WEIGHT
    wanted = [
        (weight * own + share_of_attention(text)) / (weight + 1)
        for own, text in zip(words, DOCUMENTS, strict=True)
    ]
    ranker = Reranker.from_model(llama, tokenizer, score_mode="explained", **MIXED, **states)
    for _ in range(2):
        assert ranker.rank(QUERY, DOCUMENTS).scores == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("reading", ["lift", "calibrated"])
def test_mixed_adds_up_shares_of_logarithms_only(reading):
    with pytest.raises(ConfigError, match=f"score_mode='explained'.*{reading}.*log_mass"):
        explained(MIXED, reading=reading).rank(QUERY, DOCUMENTS)


@pytest.mark.parametrize("template", ["chat", "qwen3_reranker"])
def test_yes_no_is_a_probability(llama, tokenizer, template):
    raw = Reranker.from_model(llama, tokenizer, yes_no_template=template, **YES_NO)
    margins = raw.rank(QUERY, DOCUMENTS).scores
    found = raw.with_config(score_mode="explained").rank(QUERY, DOCUMENTS)
    wanted = [math.exp(m) / (1 + math.exp(m)) for m in margins]
    assert found.scores == pytest.approx(wanted, abs=1e-12)
    assert found.usage.tokens == raw.rank(QUERY, DOCUMENTS).usage.tokens


@settings(max_examples=15)
@given(
    method=st.sampled_from(METHODS),
    documents=st.lists(st.text("abc d.", min_size=1, max_size=60), min_size=1, max_size=12),
    query=st.text("what is?", min_size=1, max_size=12).filter(str.strip),
    size=st.sampled_from([1, 3, 8]),
    chunk=st.sampled_from([None, 40, 300]),
)
def test_splitting_a_list_changes_nothing(method, documents, query, size, chunk):
    ranker = explained(method, prefill_chunk=chunk)
    whole = ranker.rank(query, documents)
    # Another one, so that null documents are run beside other neighbours.
    other = explained(method, prefill_chunk=chunk)
    parts = [documents[begin : begin + size] for begin in range(0, len(documents), size)]
    apart = [score for part in parts for score in other.rank(query, part).scores]
    assert whole.scores == pytest.approx(apart, abs=1e-5)
    assert all(math.isfinite(score) for score in whole.scores)
    along = [hit.score for hit in whole]
    assert along == sorted(along, reverse=True)


@settings(max_examples=15)
@given(
    method=st.sampled_from(ALONE),
    documents=st.lists(st.text("abc d.", min_size=1, max_size=60), max_size=8),
    scores=st.lists(st.floats(-9, 9), min_size=8, max_size=8),
)
def test_the_order_is_that_of_raw_scores(method, documents, scores):
    ranker = explained(method)
    first = ranker.rank(QUERY, documents, retrieval_scores=scores[: len(documents)])
    raw = ranker.with_config(score_mode="raw", fusion="none").rank(QUERY, documents)
    assert [hit.index for hit in first] == sorted(
        range(len(documents)), key=lambda index: -first.scores[index]
    )
    # Equal to the last bits, in which batches differ.
    along = [raw.scores[hit.index] for hit in first]
    for better, worse in itertools.pairwise(along):
        assert better >= worse - 1e-4


@pytest.mark.parametrize("fields", WITH_NULL, ids=str)
def test_null_documents_cost_little_and_once_per_query(fields):
    # Of this test alone: states that others keep of the same weights would make a call cheaper.
    mark = f"{zlib.crc32(repr(fields).encode()):010d}"
    documents = [letter * 89 + mark + str(n) for letter in "xy" for n in range(10)]
    query = "which?"
    # On other weights, because states are shared by all who have the same.
    raw = Reranker.from_model(tiny_model("qwen2"), byte_tokenizer(), **fields)
    plain = raw.rank(query, documents).usage
    ranker = explained(fields)
    first = ranker.rank(query, documents).usage
    assert first.calls == plain.calls + len(NULL_DOCUMENTS)
    assert plain.tokens < first.tokens < 1.1 * plain.tokens
    again = raw.rank(query, documents).usage
    other = ranker.rank(query, documents[::-1]).usage
    assert (other.tokens, other.calls) == (again.tokens, again.calls)
    # Another batch of candidates is paid for by itself, another query has its own null documents.
    fewer = [text.upper() for text in documents[:3]]
    assert ranker.rank(query, fewer).usage.calls == 3
    assert ranker.rank("why?", fewer).usage.calls == 3 + len(NULL_DOCUMENTS)


def test_only_the_latest_queries_are_kept(monkeypatch):
    monkeypatch.setattr(null_documents, "MOST_QUERIES", 2)
    ranker = explained(LIKELIHOOD)
    calls = [ranker.rank(query, ["a"]).usage.calls for query in "pqpqrpq"]
    # Asking for r lets p go, which lets q go.
    assert calls == [4, 4, 1, 1, 4, 4, 4]


def head(model):
    with torch.no_grad():
        model.lm_head.weight[7:90] *= 1.5


def head_through_data(model):
    model.lm_head.weight.data.roll(1, 0)
    model.lm_head.weight.data = model.lm_head.weight.data.roll(1, 0)


def lower(model):
    with torch.no_grad():
        model.model.layers[1].self_attn.k_proj.weight.mul_(1.5)


def another_tensor(model):
    layer = model.model.layers[1].self_attn
    layer.k_proj.weight = torch.nn.Parameter(layer.k_proj.weight.detach() * 1.5)


@pytest.mark.parametrize("change", [head, head_through_data, lower, another_tensor])
@pytest.mark.parametrize("fields", WITH_NULL, ids=str)
def test_changed_weights_are_noticed(change, fields):
    if "scoring" not in fields and change in (head, head_through_data):
        pytest.skip("attention does not go through the LM head")
    model = copy.deepcopy(tiny_model("llama"))
    ranker = explained(fields, model)
    before = ranker.rank(QUERY, DOCUMENTS)
    assert ranker.rank(QUERY, DOCUMENTS).usage.calls == len(DOCUMENTS)
    change(model)
    after = ranker.rank(QUERY, DOCUMENTS)
    assert after.usage.calls == before.usage.calls
    fresh = explained(fields, copy.deepcopy(model)).rank(QUERY, DOCUMENTS)
    assert after.scores == pytest.approx(fresh.scores, abs=1e-6)
    assert after.scores != pytest.approx(before.scores, abs=1e-4)
    assert ranker.rank(QUERY, DOCUMENTS).usage.calls == len(DOCUMENTS)


@pytest.mark.parametrize("fields", METHODS, ids=str)
def test_blank_documents_have_a_constant_below_all(fields):
    ranker = explained(fields)
    found = ranker.rank(QUERY, ["  ", *DOCUMENTS, ""])
    assert (found.scores[0], found.scores[-1]) == (UNREAD, UNREAD)
    assert [hit.index for hit in found][-2:] == [0, 5]
    assert found.scores[1:-1] == pytest.approx(ranker.rank(QUERY, DOCUMENTS).scores, abs=1e-5)
    assert ranker.rank(QUERY, ["", " "]).scores == (UNREAD, UNREAD)


def test_thresholds_and_places_work_on_it():
    whole = explained(LIKELIHOOD).rank(QUERY, DOCUMENTS)
    least = sorted(whole.scores)[1]
    cut = explained(LIKELIHOOD, score_threshold=least, top_n=2).rank(QUERY, [*DOCUMENTS, " "])
    assert [hit.index for hit in cut] == [hit.index for hit in whole][:2]
    above = explained(LIKELIHOOD, score_threshold=1.01).rank(QUERY, DOCUMENTS)
    assert not above.hits
    same = explained(LIKELIHOOD, near_duplicates=0.5).rank(QUERY, [*DOCUMENTS, "Lead is soft!"])
    assert len(same) == len(DOCUMENTS)


def test_a_query_that_leaves_no_room_for_null_documents_is_refused():
    # A document of one token would fit, "This is a passage." would not.
    for budget, fits in ((64, False), (200, True)):
        ranker = explained(LIKELIHOOD, token_budget=budget)
        if fits:
            assert ranker.rank("?", DOCUMENTS)
        else:
            with pytest.raises(Exception, match="leaves no room"):
                ranker.rank("?", DOCUMENTS)


def test_the_command_line_and_adapters_pass_it_on(model_folder, tmp_path, capsys):
    langchain = pytest.importorskip("langchain_core.documents")
    from icr_rag import cli
    from icr_rag.integrations.langchain import ICRRerank

    path = tmp_path / "documents.jsonl"
    lines = [json.dumps({"id": str(n), "text": text}) for n, text in enumerate(DOCUMENTS)]
    path.write_text("\n".join(lines))
    fields = {"model": model_folder, "dtype": "float32", "score_mode": "explained", **LIKELIHOOD}
    wanted = Reranker(**fields).rank(QUERY, DOCUMENTS)
    asked = ["rerank", QUERY, str(path), "--format", "json", "--score-mode", "explained",
             "--scoring", "likelihood", "--model", model_folder, "--dtype", "float32"]  # fmt: skip
    assert cli.main(asked) == 0
    told = json.loads(capsys.readouterr().out)
    assert json.dumps(wanted[0].score) in json.dumps(told)
    given = [langchain.Document(text) for text in DOCUMENTS]
    hits = ICRRerank(**fields).compress_documents(given, QUERY)
    assert [hit.metadata["relevance_score"] for hit in hits] == [hit.score for hit in wanted]


def test_the_description_of_the_setting_names_the_methods():
    description = RerankerConfig.model_fields["score_mode"].description
    assert f"for {listed(with_explained(), short=True)};" in description


ABSOLUTE = [row for row in BUILT_IN if row.explained]


@pytest.mark.parametrize("row", BUILT_IN, ids=lambda row: row.label)
def test_methods_have_it_or_say_who_has(row):
    fields = {"scoring": row.scoring, "framework": row.framework, "score_mode": "explained",
              "document_states": row.document_states[0],
              **({"likelihood": row.variant} if row.variant else {})}  # fmt: skip
    if row.explained:
        assert RerankerConfig(**fields).method is row
        return
    with pytest.raises(ConfigError, match="score_mode='explained' does not go with") as caught:
        RerankerConfig(**fields)
    assert all(other.framework in str(caught.value) for other in ABSOLUTE)


def test_a_profile_decides_for_auto(tmp_path):
    shape = Shape.of(tiny_model("llama").config)
    for framework in ("pointwise", "listwise"):
        path = tmp_path / f"{framework}.json"
        Profile(model="t", shape=shape, framework=framework, layers=(1, 2),
                first_stage_weight=0.5).save(path)  # fmt: skip
        ranker = explained({"profile": str(path)})
        if framework == "listwise":
            with pytest.raises(ConfigError, match="does not go with attention"):
                ranker.rank(QUERY, DOCUMENTS)
            continue
        # Nor does the profile's first stage count.
        found = ranker.rank(QUERY, DOCUMENTS, retrieval_scores=[1, 2, 3, 4])
        assert found.scores == pytest.approx(explained(ADDED_UP).rank(QUERY, DOCUMENTS).scores)
        along = [hit.score for hit in found]
        assert along == sorted(along, reverse=True)
    with pytest.raises(ConfigError, match="does not go with attention"):
        explained({"scoring": "attention"}).rank(QUERY, DOCUMENTS)


@pytest.mark.parametrize("fields", [{**KEPT, "framework": "pointwise"}, {**KEPT, **LIKELIHOOD}])
def test_a_cascade_is_refused(fields):
    with pytest.raises(ConfigError, match="score_mode='explained' does not go with cascade"):
        RerankerConfig(score_mode="explained", cascade=3, **fields)


@pytest.mark.parametrize("fusion", ["prior", "rrf", "weighted"])
def test_the_first_stage_cannot_be_mixed_in(fusion):
    with pytest.raises(ConfigError, match=f"does not go with fusion='{fusion}'"):
        RerankerConfig(score_mode="explained", fusion=fusion, **LIKELIHOOD)


def test_switching_leaves_no_mode_that_is_refused():
    config = RerankerConfig(score_mode="explained", **LIKELIHOOD)
    assert config.switched(framework="listwise").score_mode == "raw"
    assert config.switched(likelihood="yes_no").score_mode == "explained"
    # What a profile may allow is kept.
    assert RerankerConfig(score_mode="explained").switched(top_n=3).score_mode == "explained"


@pytest.mark.parametrize("fields", METHODS, ids=str)
def test_attention_can_be_read_all_the_same(fields):
    reading = explained(fields).read_attention(QUERY, DOCUMENTS)
    assert len(reading.spans) == len(DOCUMENTS)
