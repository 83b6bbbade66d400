"""A shallow view of a model: fewer layers and our attention, over the same weights.

Instead of patching the model and putting it back, every call makes a twin of its module tree.
The twin has its own structure (layer list, configuration, attention implementation) and shares
every tensor and hook with the original, so nothing is copied, nothing needs restoring, and another
thread may generate with the original meanwhile. It costs about a millisecond.
"""

from __future__ import annotations

import copy
import functools
import types
from typing import Any

import torch
from torch import nn

from icr_rag.errors import UnsupportedModelError
from icr_rag.model import tap


def find_decoder(model: nn.Module) -> nn.Module:
    """The bare decoder (embeddings and layers, no LM head) inside ``model``.

    Raises:
        UnsupportedModelError: if it is an encoder-decoder, or has no list of decoder layers.
    """
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        # Its decoder would run without the encoder's output, and rank by noise.
        raise UnsupportedModelError(
            f"{type(model).__name__} is an encoder-decoder; a decoder-only LLM is needed"
        )
    candidates = [model]
    get_decoder = getattr(model, "get_decoder", None)
    if callable(get_decoder):
        decoder = get_decoder()
        if isinstance(decoder, nn.Module):
            candidates.insert(0, decoder)
    for candidate in candidates:
        if _layer_list_name(candidate) is not None:
            return candidate
    raise UnsupportedModelError(
        f"{type(model).__name__} has no list of decoder layers; pass a decoder-only transformers "
        "model such as AutoModelForCausalLM gives"
    )


def decoder_layers(decoder: nn.Module) -> nn.ModuleList:
    """The decoder's list of layers."""
    name = _layer_list_name(decoder)
    if name is None:
        raise UnsupportedModelError(f"{type(decoder).__name__} has no list of decoder layers")
    layers: nn.ModuleList = getattr(decoder, name)
    return layers


def _layer_list_name(module: nn.Module) -> str | None:
    """Name of the child list that holds as many layers as the configuration says."""
    count = getattr(getattr(module, "config", None), "num_hidden_layers", None)
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList) and len(child) == count:
            return name
    return None


def make_view(decoder: nn.Module, depth: int) -> nn.Module:
    """A twin of ``decoder`` with its first ``depth`` layers and the attention tap.

    The twin is in evaluation mode. In its last layer, projections whose result nobody reads
    (queries of prefix tokens, all values) are skipped; see `_LastLayerProjection`.
    """
    original_config: Any = decoder.config
    config = truncate_config(original_config, depth)
    config._attn_implementation = tap.TAP_NAME
    # Asking for all maps or states would bring back memory that grows with tokens squared.
    config.output_attentions = False
    config.output_hidden_states = False
    name = _layer_list_name(decoder)
    if name is None:
        raise UnsupportedModelError(f"{type(decoder).__name__} has no list of decoder layers")

    memo: dict[int, nn.Module] = {}
    upper = {str(number) for number in range(depth, original_config.num_hidden_layers)}
    layers = getattr(decoder, name)
    memo[id(layers)] = short = _twin(layers, original_config, config, memo, without=upper)
    view = _twin(decoder, original_config, config, memo)

    last = list(short.children())[-1]
    for module in list(last.modules()):
        if not hasattr(module, "layer_idx"):
            continue
        for projection, when_reading in (("q_proj", True), ("v_proj", False)):
            child = module._modules.get(projection)
            if child is not None and isinstance(getattr(child, "out_features", None), int):
                module._modules[projection] = _LastLayerProjection(child, when_reading)
    return view


def make_causal_view(model: nn.Module) -> nn.Module:
    """A twin of a whole causal LM, LM head and all layers, with the attention tap.

    Args:
        model: as AutoModelForCausalLM gives it; not changed.
    """
    decoder = find_decoder(model)
    config: Any = copy.copy(decoder.config)
    config._attn_implementation = tap.TAP_NAME
    config.output_attentions = False
    config.output_hidden_states = False
    memo: dict[int, nn.Module] = {}
    # The decoder first: a multimodal model's own configuration is another object.
    _twin(decoder, decoder.config, config, memo)
    return _twin(model, decoder.config, config, memo)


def truncate_config(config: Any, depth: int) -> Any:
    """A copy of a model configuration for its first ``depth`` layers."""
    short = copy.copy(config)
    count = config.num_hidden_layers
    for name, value in vars(config).items():
        # Per-layer lists (layer_types, no_rope_layers, ...) have one entry a layer.
        if isinstance(value, (list, tuple)) and len(value) == count and count > depth:
            setattr(short, name, value[:depth])
    short.num_hidden_layers = depth
    return short


class _LastLayerProjection(nn.Module):
    """Stands in for a projection of the last layer: zeros where its result is not read."""

    def __init__(self, projection: nn.Module, when_reading: bool) -> None:
        super().__init__()
        self.projection = projection
        self.when_reading = when_reading

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The projection of ``hidden`` if it is read in this pass, else zeros of that shape."""
        if self.when_reading and tap.is_reading():
            result: torch.Tensor = self.projection(hidden)
            return result
        width: int = self.projection.out_features  # type: ignore[assignment]
        return hidden.new_zeros(1).expand(*hidden.shape[:-1], width)


def _twin(
    module: nn.Module,
    old_config: Any,
    new_config: Any,
    memo: dict[int, nn.Module],
    without: frozenset[str] | set[str] = frozenset(),
) -> nn.Module:
    """A structural copy of ``module`` and its children over the same tensors and hooks."""
    if id(module) in memo:
        return memo[id(module)]
    twin: nn.Module = type(module).__new__(type(module))
    state = dict(vars(module))
    state["_parameters"] = dict(module._parameters)
    state["_buffers"] = dict(module._buffers)
    state["_modules"] = {
        name: child if child is None else _twin(child, old_config, new_config, memo)
        for name, child in module._modules.items()
        if name not in without
    }
    state["training"] = False
    for name, value in state.items():
        if value is old_config:
            state[name] = new_config
        elif isinstance(value, types.MethodType) and value.__self__ is module:
            state[name] = types.MethodType(value.__func__, twin)
        elif isinstance(value, functools.partial) and any(a is module for a in value.args):
            # accelerate's device hooks bind the original module into `forward`.
            arguments = [twin if a is module else a for a in value.args]
            state[name] = functools.partial(value.func, *arguments, **value.keywords)
    vars(twin).update(state)
    memo[id(module)] = twin
    return twin
