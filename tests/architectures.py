"""Every causal language model that transformers can build, tiny, with random weights."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY = 264
LAYERS = 4

_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_NOT_PER_LAYER = {"vocab_size_per_layer_input": 0, "hidden_size_per_layer_input": 0}
_PER_LAYER = {"vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8}

#: What every configuration, and each that it is composed of, is given, by whatever names it has.
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "d_model": 32,
    "n_embd": 32,
    "embed_dim": 32,
    "word_embed_proj_dim": 32,
    "embedding_size": 32,
    "intermediate_size": 48,
    "ffn_dim": 48,
    "d_ff": 48,
    "decoder_ffn_dim": 48,
    "encoder_ffn_dim": 48,
    "num_hidden_layers": LAYERS,
    "num_layers": LAYERS,
    "n_layer": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_layers": 1,
    "num_attention_heads": 4,
    "num_heads": 4,
    "n_head": 4,
    "decoder_attention_heads": 4,
    "encoder_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 2048,
    "n_positions": 2048,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    # Large weights make attention far from uniform, so that mistakes show.
    "initializer_range": 0.3,
    "initializer_factor": 10.0,
    "init_std": 0.3,
    "embed_init_std": 0.3,
    # experts
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "moe_num_experts": 4,
    "shared_expert_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
    # latent attention
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "qk_head_dim": 16,
    "v_head_dim": 8,
    # keys selected for each row: fewer than the tests' texts have tokens
    "index_topk": 16,
    # recurrent layers
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_num_heads": 8,
    "mamba_head_dim": 8,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "ssm_state_size": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}

#: Windows much shorter than the texts of the tests, where a configuration has one by default.
WINDOWS = {"sliding_window": 24, "sliding_window_size": 24, "attention_chunk_size": 24}

#: One entry per layer. All kinds that a model has are there, in turns.
KINDS = ("layer_types", "layers_block_type", "mlp_layer_types")

#: What single models need besides.
OWN: dict[str, dict[str, Any]] = {
    # All their layers slide: what they do not see is not ranked by them.
    **{key: {"sliding_window": 400} for key in ("mistral", "ministral", "moshi")},
    "recurrent_gemma": {"sliding_window": 400, "attention_window_size": 400},
    "bamba": {"attn_layer_indices": [1, 3]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "kimi_linear": {"linear_head_dim": 8, "linear_num_heads": 4},
    "blt": {"encoder_hash_byte_group_vocab": 500, "cross_attn_k": 1},
    "codegen": {"rotary_dim": 4},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE},
    },
    "cpmant": {"dim_head": 8, "dim_ff": 48},
    "ctrl": {"dff": 48},
    "dbrx": {
        "n_layers": LAYERS,
        "n_heads": 4,
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 48, "hidden_size": 32, "moe_top_k": 2},
    },
    "deepseek_v4": {"o_lora_rank": 8, "o_groups": 2, "index_n_heads": 4, "index_head_dim": 8},
    "dots3_note_text": {
        "index_head_dim": 8,
        # Many: where the scores of all heads are 0, which keys are selected is a tie.
        "index_n_heads": 32,
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 4,
        "swa_q_lora_rank": 16,
        "swa_kv_lora_rank": 16,
        "swa_head_dim": 16,
        "swa_qk_nope_head_dim": 8,
        "swa_v_head_dim": 8,
        "head_dim": 16,
        "shared_experts_intermediate_size": 16,
    },
    "dots3_note_vision_encoder": {"adapter_in_dim": 32, "adapter_out_dim": 32},
    "dots3_note_audio_encoder": {"adapter_input_size": 32, "adapter_out_dim": 32},
    "gemma4_assistant": {
        "backbone_hidden_size": 32,
        "text_config": {**_NOT_PER_LAYER, "num_kv_shared_layers": LAYERS},
    },
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "qwen4_exp_text": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 1,
        "hc_lowrank": 8,
    },
    "dots1": {"n_shared_experts": 1, "num_experts_per_tok": 2},
    "falcon": {"num_kv_heads": 2, "new_decoder_architecture": True},
    "falcon_h1": {"mamba_d_ssm": 64},
    "gemma3n_text": {
        **_PER_LAYER,
        "num_kv_shared_layers": 2,
        "laurel_rank": 8,
        "intermediate_size": 48,
        "activation_sparsity_pattern": [0.0] * LAYERS,
    },
    "gemma4_text": _PER_LAYER,
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": 24},
    "gptj": {"rotary_dim": 4},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "longcat_flash": {
        "zero_expert_num": 2,
        "moe_topk": 2,
        "ffn_hidden_size": 48,
        "expert_ffn_hidden_size": 16,
    },
    "minimax_m3_vl_text": {
        "layer_types": ["full_attention", "minimax_m3_sparse"] * 2,
        "index_n_heads": 2,
        "index_head_dim": 8,
        "index_block_size": 4,
        "index_topk_blocks": 4,
    },
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "reformer": {
        "is_decoder": True,
        "axial_pos_embds_dim": [16, 16],
        "axial_pos_shape": [16, 128],
        "attention_head_size": 8,
        "feed_forward_size": 48,
        "attn_layers": ["local", "lsh"] * 2,
    },
    "zaya": {"num_experts_per_tok": 1},
}


#: What a configuration needs that can not be made without any settings.
DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma4_assistant": {"text_config": {"model_type": "gemma4_text", **_NOT_PER_LAYER}},
}

#: Model types that are not built, and why.
UNBUILDABLE = {
    "gemma3n": "its vision tower needs timm; gemma3n_text is built",
    "musicgen": "the mapping names a configuration that its class does not take",
    "musicgen_melody": "the mapping names a configuration that its class does not take",
}


#: What transformers itself cannot build from a configuration of that type.
UNBUILDABLE = {
    "musicgen": "AutoModelForCausalLM takes its decoder's configuration, which has another type",
    "musicgen_melody": "AutoModelForCausalLM takes its decoder's configuration, of another type",
}


#: Settings by which a model of some type behaves unlike its tiny standard: name -> type, settings.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-dynamic": (
        "llama",
        {"rope_parameters": {**_ROPE, "rope_type": "dynamic", "factor": 2.0}},
    ),
    "phi3-longrope": (
        "phi3",
        {
            "rope_parameters": {
                **_ROPE,
                "rope_type": "longrope",
                "short_factor": [1.0] * 4,
                "long_factor": [1.5, 2.0, 3.0, 4.0],
                "original_max_position_embeddings": 600,
            },
            "original_max_position_embeddings": 600,
        },
    ),
    "deepseek_v2-q_proj": ("deepseek_v2", {"q_lora_rank": None}),
    "qwen2-sliding": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 2},
    ),
    "mistral-sliding": ("mistral", {"sliding_window": 300}),
    "gemma3_text-bidirectional": ("gemma3_text", {"use_bidirectional_attention": True}),
    "gemma4_text-shared": (
        "gemma4_text",
        {"num_kv_shared_layers": 2, "attention_k_eq_v": True, "num_global_key_value_heads": 2},
    ),
    "llama4_text-chunks": ("llama4_text", {"attention_chunk_size": 16}),
    "falcon-alibi": ("falcon", {"alibi": True}),
    "deepseek_v32-all": ("deepseek_v32", {"index_topk": 4096}),
}


def names() -> list[str]:
    """Model types of transformers' mapping of causal language models."""
    return sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - set(UNBUILDABLE))


def tiny_config(name: str, **own: Any) -> Any:
    """A configuration of a model type, or of one of `VARIANTS`, small."""
    if name in VARIANTS:
        name, changes = VARIANTS[name]
        own = {**changes, **own}
    kind = CONFIG_MAPPING[name]
    return kind(**{**_settings(kind), **own})


def _settings(kind: Any) -> dict[str, Any]:
    base = kind(**DEFAULTS.get(kind.model_type, {}))
    found = {key: value for key, value in COMMON.items() if _has(base, key)}
    if _has(base, "kv_lora_rank"):
        found["num_key_value_heads"] = COMMON["num_attention_heads"]
    found |= {key: value for key, value in WINDOWS.items() if getattr(base, key, None)}
    for key in KINDS:
        given = vars(base).get(key)
        if given and len(set(given)) > 1:
            kinds = list(dict.fromkeys(given))
            found[key] = [kinds[layer % len(kinds)] for layer in range(LAYERS)]
    for name in kind.sub_configs:
        part = getattr(base, name, None)
        if part is not None:
            found[name] = _settings(type(part))
            found[name]["model_type"] = part.model_type
    for key, value in OWN.get(kind.model_type, {}).items():
        merges = isinstance(value, dict) and key in kind.sub_configs
        found[key] = {**found.get(key, {}), **value} if merges else value
    return found


def _has(config: Any, key: str) -> bool:
    return key in vars(config) or key in config.attribute_map


def tiny_causal_lm(name: str) -> torch.nn.Module:
    """A causal LM of that type, float32, always the same weights."""
    return build(tiny_config(name))


def build(config: Any) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model.eval()
