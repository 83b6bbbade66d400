"""The key of a cached score: everything that the score depends on is in it, and nothing else is."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import byte_tokenizer, tiny_model

from icr_rag import ConfigError, Document, Reranker, RerankerConfig
from icr_rag.server.score_key import (
    WITHOUT,
    ScoreKeys,
    basis_of,
    score_key,
    settings_that_count,
)

ABSOLUTE = {"scoring": "likelihood", "score_mode": "explained"}
QUERY = "what melts first?"

texts = st.text(max_size=12)
requests = st.tuples(texts, texts, texts, texts, st.one_of(st.none(), st.integers(1, 10_000)))


def key(parts, basis=b"basis"):
    query, title, text, instruction, most = parts
    return score_key(basis, query, Document(text, title), instruction, most)


@given(requests, requests)
def test_other_parts_are_another_key(first, second):
    assert (key(first) == key(second)) == (first == second)


@given(st.tuples(texts, texts, texts, texts), st.integers(0, 48), st.integers(0, 48))
def test_the_same_characters_split_elsewhere_are_another_key(parts, one, other):
    whole = "".join(parts)
    splits = [(whole[:at], "", whole[at:], "i", None) for at in (one, other)]
    assert (key(splits[0]) == key(splits[1])) == (splits[0] == splits[1])


@given(requests, st.binary(max_size=8))
def test_another_basis_is_another_key(parts, basis):
    assert (key(parts) == key(parts, basis)) == (basis == b"basis")


@given(requests)
def test_a_key_is_twenty_bytes_also_of_lone_surrogates(parts):
    assert len(key(parts)) == 20
    assert len(key(("\ud800", *parts[1:]))) == 20


def test_no_title_is_an_empty_one_and_a_title_is_no_text():
    assert key(("q", None, "t", "i", None)) == key(("q", "", "t", "i", None))
    assert key(("q", "a", "b", "i", None)) != key(("q", "", "a\nb", "i", None))


# --- what does not change from request to request ---------------------------------------------


def keys_of(model=None, tokenizer=None, **fields):
    model = tiny_model("llama") if model is None else model
    fields = {**ABSOLUTE, **fields}
    with Reranker.from_model(model, tokenizer or byte_tokenizer(), **fields) as reranker:
        return ScoreKeys.of(reranker)


def test_the_same_twice_is_the_same_and_a_reranker_can_be_made_of_its_settings():
    assert keys_of() == keys_of()
    assert keys_of(top_n=3, deadline_ms=100.0, score_threshold=0.1) == keys_of()


#: Settings that change a score -> another value that goes with query likelihood.
CHANGES = {
    "likelihood": "yes_no", "score_mode": "probability", "max_query_tokens": 3,
    "passages": "max", "token_budget": 2000, "document_states": "independent",
    "states_dtype": "int8", "prefill_chunk": 64, "model": "another",
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_setting_that_changes_scores_changes_keys(name):
    beside = {"document_states": "independent"} if name == "states_dtype" else {}
    config = RerankerConfig(**{**ABSOLUTE, **beside})
    changed = config.replace(**{name: CHANGES[name]})
    assert settings_that_count(config) != settings_that_count(changed)


def test_a_setting_is_in_the_key_unless_it_is_listed():
    config = RerankerConfig(**ABSOLUTE)
    assert set(settings_that_count(config)) == set(RerankerConfig.model_fields) - WITHOUT
    assert set(RerankerConfig.model_fields) >= WITHOUT


def test_another_method_and_other_heads_are_other_keys():
    made = [
        keys_of(),
        keys_of(likelihood="yes_no"),
        keys_of(document_states="independent"),
        keys_of(scoring="attention", framework="pointwise"),
        keys_of(scoring="attention", framework="pointwise", layers=(1, 2)),
        keys_of(scoring="attention", framework="pointwise", heads=((2, 1),)),
        keys_of(scoring="mixed", reading="log_mass"),
        keys_of(scoring="mixed", reading="max"),
    ]
    assert len({one.basis for one in made}) == len(made)


def test_weights_are_in_the_key_those_of_the_lm_head_too():
    before = keys_of()
    for change in (
        lambda model: model.lm_head.weight,
        lambda model: model.model.layers[4].mlp.down_proj.weight,
    ):
        model = copy.deepcopy(tiny_model("llama"))
        with torch.no_grad():
            change(model).view(-1)[1] += 0.5
        assert keys_of(model).basis != before.basis
    attention = {"scoring": "attention", "framework": "pointwise", "layers": (1, 2)}
    # Layers above the last one read are not run, nor is the LM head.
    assert keys_of(model, **attention).basis == keys_of(**attention).basis


def test_the_tokenizer_is_in_the_key():
    other = byte_tokenizer()
    other.chat_template = "another"
    assert keys_of(tokenizer=other).basis != keys_of().basis
    other = byte_tokenizer()
    other.add_tokens(["tin"])
    assert keys_of(tokenizer=other).basis != keys_of().basis


def test_a_calibration_is_in_the_key_by_its_numbers():
    from icr_rag.profiles import Calibration
    from icr_rag.scoring.judge import Judge

    with Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **ABSOLUTE) as reranker:
        scorer = reranker.scorer
        made = []
        for slope, data in ((None, {}), (1.0, {}), (2.0, {}), (2.0, {"seen": 3})):
            calibration = slope and Calibration(
                kind="logistic", slope=slope, intercept=0.0, basis=scorer.basis(), data=data
            )
            scorer.judge = Judge(calibration)
            made.append(basis_of(scorer))
    assert made[2] == made[3]
    assert len(set(made)) == 3


def test_another_version_of_the_library_is_another_key(monkeypatch):
    before = keys_of()
    monkeypatch.setattr("icr_rag.__version__", "999")
    assert keys_of().basis != before.basis


def test_another_process_makes_the_same_keys(model_folder):
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from icr_rag import Reranker\nfrom icr_rag.server.score_key import ScoreKeys\n"
        f"reranker = Reranker(model={model_folder!r}, dtype='float32', **{ABSOLUTE!r})\n"
        "print(ScoreKeys.of(reranker)('q', 'd').hex())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    with Reranker(model=model_folder, dtype="float32", **ABSOLUTE) as reranker:
        assert ScoreKeys.of(reranker)("q", "d").hex() == done.stdout.strip()


# --- a request --------------------------------------------------------------------------------


def test_what_is_in_effect_counts_not_who_said_it():
    sentence = "Find the melting point."
    own = keys_of(instruction=sentence, max_document_tokens=20)
    assert own("q", "d") == own("q", "d", sentence, 20) == own("q", "d", sentence, 50)
    assert own("q", "d", None, 10) == own("q", "d", sentence, 10)
    assert own("q", "d", None, 10) != own("q", "d")
    assert own("q", "d", "retrieval") != own("q", "d")


def test_a_title_stands_apart_only_where_it_is_read_apart():
    titled, whole = Document("b", "a"), Document("a\nb", id="7", metadata={"k": 1})
    keys = keys_of()
    assert keys("q", titled) == keys("q", whole) == keys("q", "a\nb")
    apart = keys_of(passages="max")
    assert apart("q", titled) != apart("q", whole)
    assert apart("q", "a\nb") == apart("q", whole)


@pytest.mark.parametrize("mode", ["raw", "share", "rank", "lift"])
def test_scores_relative_to_a_list_are_refused(mode):
    method = {"scoring": "attention", "framework": "listwise"} if mode == "lift" else {}
    reranker = Reranker(score_mode=mode, **method)
    with pytest.raises(ConfigError, match=f"score_mode='{mode}' gives scores relative to a list"):
        ScoreKeys.of(reranker)


def test_equal_keys_have_equal_scores():
    """The slow, obvious way: whatever differs in score differs in key."""
    documents = [Document("tin melts at 232 degrees"), Document("lead is soft", "metals"),
                 Document("metals\nlead is soft"), Document("gold")]  # fmt: skip
    seen: dict[bytes, float] = {}
    with Reranker.from_model(
        tiny_model("llama"), byte_tokenizer(), fusion="none", **ABSOLUTE
    ) as reranker:
        keys = ScoreKeys.of(reranker)
        for query, instruction, most in (
            (QUERY, None, None), ("soft", None, None), ("soft", "Find what melts.", None),
            ("soft", None, 8), ("soft", "retrieval", 8),
        ):  # fmt: skip
            ranking = reranker.rank(
                query, documents, instruction=instruction, max_tokens_per_doc=most
            )
            for document, score in zip(documents, ranking.scores, strict=True):
                own = keys(query, document, instruction, most)
                assert seen.setdefault(own, score) == pytest.approx(score, abs=1e-5)
    assert len(set(seen.values())) == len(seen) == 4 * 3
