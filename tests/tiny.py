"""Tiny models with random weights, one per architecture, and a byte-level tokenizer."""

from __future__ import annotations

import functools

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 264

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    # Large weights make attention far from uniform, so that mistakes show.
    "initializer_range": 0.3,
}
_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}

#: architecture -> (configuration class, what differs from the common settings)
FAMILIES = {
    "llama": ("LlamaConfig", {}),
    "mistral": ("MistralConfig", {"sliding_window": 1000}),
    "qwen2": ("Qwen2Config", {}),
    "qwen2_sliding": (
        "Qwen2Config",
        {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 2},
    ),
    "qwen3": ("Qwen3Config", {"head_dim": 16}),
    "qwen3_moe": ("Qwen3MoeConfig", {"head_dim": 16, **_MOE}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4, "sliding_window": 1000}),
    "gemma2": ("Gemma2Config", {"head_dim": 8, "sliding_window": 200, "query_pre_attn_scalar": 8}),
    "gemma3": (
        "Gemma3TextConfig",
        {"head_dim": 8, "sliding_window": 1000, "query_pre_attn_scalar": 8},
    ),
    "phi3": ("Phi3Config", {}),
    "olmo2": ("Olmo2Config", {}),
    "smollm3": ("SmolLM3Config", {}),
    "glm4": ("Glm4Config", {"head_dim": 8}),
    "gpt_oss": (
        "GptOssConfig",
        {"head_dim": 8, "sliding_window": 200, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
}

#: Windows that are narrower than a document: what is read of them, but not ranked by them.
NARROW = {
    "mistral_narrow": ("MistralConfig", {"sliding_window": 24}),
    "gemma2_narrow": (
        "Gemma2Config",
        {"head_dim": 8, "sliding_window": 24, "query_pre_attn_scalar": 8},
    ),
    "gemma3_narrow": (
        "Gemma3TextConfig",
        {"head_dim": 8, "sliding_window": 200, "query_pre_attn_scalar": 8},
    ),
    "gpt_oss_narrow": (
        "GptOssConfig",
        {"head_dim": 8, "sliding_window": 24, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
}


@functools.cache
def tiny_model(family: str) -> torch.nn.Module:
    """A causal LM of that architecture, fp32, eager attention, always the same weights."""
    name, changes = {**FAMILIES, **NARROW}[family]
    config = getattr(transformers, name)(**{**_COMMON, **changes})
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", dtype=torch.float32
    ).eval()


CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer(chat: bool = True) -> PreTrainedTokenizerFast:
    """One token per byte, and the control tokens of a chat."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": 0, "<|im_start|>": 1, "<|im_end|>": 2, "<think>": 3}
    vocabulary |= {character: 4 + i for i, character in enumerate(alphabet)}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<|im_start|>", eos_token="<|im_end|>"
    )
    tokenizer.add_tokens(["<think>"])
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def meaningful(scoring: str, framework: str, **fields: object) -> dict[str, object]:
    """These settings, without those that mean nothing to the method."""
    from icr_rag.methods import find_method

    likelihood = str(fields.get("likelihood", "query"))
    row = find_method(scoring, framework, likelihood, str(fields.get("document_states", "joint")))
    kept = {name: value for name, value in fields.items() if row.uses(name)}
    if kept.get("sort") == "all_pairs":
        kept.pop("sort_top", None)
    return {"scoring": scoring, "framework": framework, **kept}
