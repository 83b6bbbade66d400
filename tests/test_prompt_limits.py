"""A document's score does not depend on how a prompt is split, nor is a document out of sight."""

from __future__ import annotations

import pytest
import torch
import transformers
from tiny import _COMMON, byte_tokenizer
from transformers import AutoModelForCausalLM

from icr_rag import Reranker
from icr_rag.errors import UnsupportedModelError
from icr_rag.model.limits import context_length, reach

QUERY = "which metal?"
SHORT, LONG = "tin melts", "lead is soft " * 40


def model(kind, **changes):
    config = getattr(transformers, kind)(**{**_COMMON, **changes})
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def stretched(rope_type):
    parameters = {"rope_type": rope_type, "rope_theta": 1e4, "factor": 4.0}
    if rope_type == "longrope":
        parameters |= {
            "long_factor": [8.0] * 4,
            "short_factor": [1.0] * 4,
            "original_max_position_embeddings": 256,
        }
        return model("Phi3Config", rope_parameters=parameters, original_max_position_embeddings=256)
    return model("LlamaConfig", rope_parameters=parameters, max_position_embeddings=256)


@pytest.mark.parametrize("rope_type", ["longrope", "dynamic"])
@pytest.mark.parametrize(
    "settings",
    [
        {"framework": "pointwise", "layers": (1, 2)},
        {"scoring": "likelihood"},
        {"scoring": "mixed"},
        {"framework": "pointwise", "layers": (1, 2), "document_states": "independent"},
    ],
)
def test_positions_do_not_depend_on_the_split(rope_type, settings):
    llm = stretched(rope_type)
    assert context_length(llm.config) == 256
    alone = {"max_document_tokens": 150, "fusion": "none", **settings}
    scores = []
    for chunk in (None, 32):
        ranker = Reranker.from_model(llm, byte_tokenizer(), prefill_chunk=chunk, **alone)
        together = ranker.rank(QUERY, [SHORT, LONG, "oak"])
        assert together.usage.truncated == (1,)
        scores.append(together.scores)
        if settings.get("scoring") != "mixed":
            assert ranker.rank(QUERY, [SHORT]).scores[0] == pytest.approx(
                together.scores[0], abs=1e-4
            )
    assert scores[0] == pytest.approx(scores[1], abs=2e-3)


def test_what_a_caller_does_to_stretched_positions_meanwhile_does_not_matter():
    llm = stretched("longrope")
    ranker = Reranker.from_model(llm, byte_tokenizer(), framework="pointwise", layers=(1, 2))
    before = ranker.rank(QUERY, [SHORT, "oak"]).scores
    with torch.no_grad():
        llm(torch.tensor([list(range(4, 204)) * 2]))
    factors = llm.model.rotary_emb.inv_freq.clone()
    assert ranker.rank(QUERY, [SHORT, "oak"]).scores == pytest.approx(before, abs=1e-6)
    # Nor does ranking do anything to the caller's.
    assert torch.equal(llm.model.rotary_emb.inv_freq, factors)


@pytest.mark.parametrize("framework", ["listwise", "pointwise"])
@pytest.mark.parametrize("kept", ["joint", "independent"])
def test_no_document_is_out_of_sight(framework, kept):
    """All layers slide: what they do not see would score nothing."""
    llm = model("MistralConfig", sliding_window=300)
    assert reach(llm.config, [0, 4]) == 300
    ranker = Reranker.from_model(
        llm, byte_tokenizer(), framework=framework, layers=(1, 3), fusion="none",
        document_states=kept,
    )  # fmt: skip
    documents = [LONG, "tin melts " * 20, "oaks carry acorns"]
    ranking = ranker.rank(QUERY, documents)
    assert 0 in ranking.usage.truncated
    assert all(score != 0.0 for score in ranking.scores)


def test_layers_that_see_everything_are_enough():
    llm = model("Qwen2Config", use_sliding_window=True, sliding_window=64, max_window_layers=2)
    assert reach(llm.config, [2, 3]) == 64
    assert reach(llm.config, [1, 3]) is None
    assert reach(llm.config, []) is None


def test_attention_to_what_follows_is_refused():
    llm = model("Gemma3TextConfig", head_dim=8, use_bidirectional_attention=True)
    for settings in ({"layers": (1, 2)}, {"scoring": "likelihood"}, {"scoring": "generation"}):
        with pytest.raises(UnsupportedModelError, match="not causal"):
            Reranker.from_model(llm, byte_tokenizer(), **settings).rank(QUERY, [SHORT, LONG])
