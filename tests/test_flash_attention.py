"""Flash attention, with a stand-in for its package that computes the same on a CPU.

In a process of its own: what transformers finds of the package it remembers for good.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import tiny_model

from icr_rag.errors import UnsupportedModelError
from icr_rag.model._transformers import flash_attention

#: The functions of flash-attn 2 that transformers calls: [batch, token, head, dimension], and
#: sequences of several lengths one behind the other.
STUB = """
import torch

calls = []

def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False,
                    window_size=(-1, -1), softcap=0.0, alibi_slopes=None, deterministic=False):
    calls.append("flash_attn_func")
    return attend(q, k, v, softmax_scale, causal, window_size, softcap)

def flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k,
                           dropout_p=0.0, softmax_scale=None, causal=False,
                           window_size=(-1, -1), softcap=0.0, alibi_slopes=None,
                           deterministic=False):
    calls.append("flash_attn_varlen_func")
    parts = []
    for n in range(len(cu_seqlens_q) - 1):
        rows = slice(int(cu_seqlens_q[n]), int(cu_seqlens_q[n + 1]))
        keys = slice(int(cu_seqlens_k[n]), int(cu_seqlens_k[n + 1]))
        parts.append(attend(q[None, rows], k[None, keys], v[None, keys], softmax_scale, causal,
                            window_size, softcap)[0])
    return torch.cat(parts)

def flash_attn_with_kvcache(*args, **kwargs):
    raise NotImplementedError

def attend(q, k, v, scale, causal, window, softcap):
    k, v = (x.repeat_interleave(q.shape[2] // k.shape[2], 2) for x in (k, v))
    logits = torch.einsum("brhd,bthd->bhrt", q, k) * (scale or q.shape[-1] ** -0.5)
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    # Causal from the lower right corner, as since version 2.1; windows count from there too.
    ahead = torch.arange(k.shape[1])[None] - torch.arange(q.shape[1])[:, None]
    ahead = ahead - (k.shape[1] - q.shape[1])
    hidden = torch.zeros_like(ahead, dtype=torch.bool)
    if causal:
        hidden |= ahead > 0
    if window[0] >= 0:
        hidden |= ahead < -window[0]
    weights = logits.masked_fill(hidden, -torch.inf).softmax(-1)
    return torch.einsum("bhrt,bthd->brhd", weights, v)
"""

PADDING = """
import torch

def unpad_input(states, mask, unused_mask=None):
    lengths = mask.sum(-1, dtype=torch.int32)
    where = mask.flatten().nonzero().flatten()
    ends = torch.nn.functional.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
    return states.flatten(0, 1)[where], where, ends, int(lengths.max()), lengths

def pad_input(states, where, batch, length):
    out = states.new_zeros(batch * length, *states.shape[1:])
    out[where] = states
    return out.reshape(batch, length, *states.shape[1:])
"""

SCRIPT = """
import sys
import transformers.modeling_flash_attention_utils as seen_by_transformers

# That there is no GPU is all that speaks against it here.
seen_by_transformers.is_flash_attn_2_available = lambda *args, **kwargs: True

import flash_attn
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker

DOCUMENTS = ["Tin melts at 232 degrees.", "Lead is soft.", "Copper conducts heat. " * 9, "Gold."]
model = tiny_model(sys.argv[1])
before = (model.config.to_dict(), model.config._attn_implementation)
for settings in (
    {"framework": "listwise"},
    {"framework": "listwise", "prefill_chunk": 32},
    {"framework": "pointwise"},
    {"framework": "pointwise", "prefill_chunk": 32},
    {"framework": "pointwise", "document_states": "independent"},
    {"framework": "listwise", "document_states": "independent"},
    {"framework": "pointwise", "scoring": "likelihood"},
    {"framework": "pointwise", "scoring": "generation"},
):
    scores = []
    for kernel in ("sdpa", "flash_attention_2"):
        del flash_attn.calls[:]
        reranker = Reranker.from_model(
            model, byte_tokenizer(), attn_implementation=kernel, fusion="none", **settings
        )
        ranking = reranker.rank("Which metal melts?", DOCUMENTS)
        scores.append(ranking.scores)
        assert bool(flash_attn.calls) == (kernel != "sdpa"), (settings, flash_attn.calls)
    difference = max(abs(a - b) for a, b in zip(*scores, strict=True))
    assert difference < 1e-5, (settings, scores)
    assert len(set(scores[0])) > 1 or settings.get("scoring") == "generation", scores

# Texts of prompts that are padded to one length.
from icr_rag.prompts.layout import PromptBatch
from icr_rag.model.greedy import generate

prompts = PromptBatch([1, 40, 41], [[50], [60, 61, 62, 63], [70, 71]])
texts = []
for kernel in ("sdpa", "flash_attention_2"):
    engine = Reranker.from_model(model, byte_tokenizer(), attn_implementation=kernel).engine
    del flash_attn.calls[:]
    texts.append(generate(engine, prompts, 8).texts)
assert texts[0] == texts[1], texts
assert "flash_attn_varlen_func" in flash_attn.calls
assert (model.config.to_dict(), model.config._attn_implementation) == before
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A folder that holds a package flash_attn, with the metadata of an installed one."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "flash_attn").mkdir()
    (folder / "flash_attn/__init__.py").write_text(STUB)
    (folder / "flash_attn/bert_padding.py").write_text(PADDING)
    about = folder / "flash_attn-2.8.3.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: flash-attn\nVersion: 2.8.3\n")
    (about / "top_level.txt").write_text("flash_attn\n")
    return folder


def test_learned_sinks_are_refused_and_not_left_out():
    module = tiny_model("gpt_oss").model.layers[0].self_attn
    states = torch.zeros(1, 4, 2, 8)
    with pytest.raises(UnsupportedModelError, match=r"learned sinks.*'sdpa'"):
        flash_attention(module, states, states, states, None, s_aux=module.sinks)


@pytest.mark.parametrize("family", ["llama", "qwen2_sliding", "gemma2"])
def test_scores_and_texts_are_those_of_sdpa(package, family):
    tests = Path(__file__).parent
    paths = [str(package), str(tests), str(tests.parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, family],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
