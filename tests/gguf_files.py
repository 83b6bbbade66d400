"""Tiny GGUF files, written tensor by tensor from a transformers model."""

from __future__ import annotations

from pathlib import Path

import gguf
import torch
from tiny import CHAT_TEMPLATE, byte_tokenizer

_CONTROL, _NORMAL = 3, 1
_ARCHITECTURES = {"llama": gguf.MODEL_ARCH.LLAMA, "gemma3": gguf.MODEL_ARCH.GEMMA3}


def write_gguf(
    path: Path, family: str, model: torch.nn.Module, *, leave_out: tuple[str, ...] = ()
) -> Path:
    """Write ``model`` as float32 with the byte tokenizer, leaving out the tensors named."""
    config = model.config
    writer = gguf.GGUFWriter(path, family)
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    if family == "gemma3":
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
        writer.add_sliding_window(config.sliding_window)
    _add_tokenizer(writer)
    names = gguf.get_tensor_name_map(_ARCHITECTURES[family], config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        base, _, suffix = name.rpartition(".")
        stored = f"{names.get_name(base)}.{suffix}"
        if stored in leave_out or (config.tie_word_embeddings and name == "lm_head.weight"):
            continue
        writer.add_tensor(stored, _as_stored(family, config, name, tensor).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _as_stored(family, config, name, tensor):
    """The tensor as llama.cpp keeps it: rotary halves interleaved, Gemma's norms plus one."""
    if family == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
        query = name.endswith("q_proj.weight")
        heads = config.num_attention_heads if query else config.num_key_value_heads
        halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, tensor.shape[1])
        return halves.transpose(1, 2).reshape(tensor.shape).contiguous()
    if family == "gemma3" and name.endswith("norm.weight"):
        return tensor + 1
    return tensor


def _add_tokenizer(writer):
    vocabulary = byte_tokenizer().get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.get)
    # These take the places of bytes that no test writes. Two, because older readers take a list of
    # one merge for the merge itself.
    tokens[-2:] = ["ĠĠĠĠ", "ĠĠ"]
    controls = {"<pad>", "<|im_start|>", "<|im_end|>"}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([_CONTROL if token in controls else _NORMAL for token in tokens])
    writer.add_token_merges(["Ġ Ġ", "ĠĠ ĠĠ"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_chat_template(CHAT_TEMPLATE)
