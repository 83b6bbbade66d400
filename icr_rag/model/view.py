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
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from icr_rag.errors import UnsupportedModelError
from icr_rag.model import tap
from icr_rag.model._transformers import with_implementation

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


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
    # Text parts of multimodal models stand one or two levels down.
    candidates += [child for _, child in model.named_modules() if _names_text_model(child)]
    for candidate in candidates:
        if layer_list_name(candidate) is not None:
            return candidate
    count = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    inside = [
        type(module).__name__
        for module in model.modules()
        if any(isinstance(c, nn.ModuleList) and len(c) == count for c in module.children())
    ]
    where = f" beside its embeddings (its layers stand in {inside[-1]})" if inside else ""
    raise UnsupportedModelError(
        f"{type(model).__name__} has no list of decoder layers{where}; pass a decoder-only "
        "transformers model such as AutoModelForCausalLM gives"
    )


def _names_text_model(module: nn.Module) -> bool:
    config = getattr(module, "config", None)
    return config is not None and callable(getattr(module, "get_input_embeddings", None))


def decoder_layers(decoder: nn.Module) -> nn.ModuleList:
    """The decoder's list of layers."""
    name = layer_list_name(decoder)
    if name is None:
        raise UnsupportedModelError(f"{type(decoder).__name__} has no list of decoder layers")
    layers: nn.ModuleList = getattr(decoder, name)
    return layers


def layer_list_name(module: nn.Module) -> str | None:
    """Name of the child list of decoder layers: as many as the configuration says, or, where
    only the lower ones are loaded, the longest whose modules know which layer they are."""
    count = getattr(getattr(module, "config", None), "num_hidden_layers", None)
    if count is None:
        return None
    lists = {n: c for n, c in module.named_children() if isinstance(c, nn.ModuleList)}
    for name, child in lists.items():
        if len(child) == count:
            return name
    numbered = {
        name: len(child)
        for name, child in lists.items()
        if len(child) < count and any("layer_idx" in vars(m) for m in child.modules())
    }
    return max(numbered, key=lambda name: numbered[name], default=None)


def make_view(decoder: nn.Module, depth: int, *, last_is_read: bool = True) -> nn.Module:
    """A twin of ``decoder`` with its first ``depth`` layers and the attention tap.

    The twin is in evaluation mode. Its configuration is the whole model's, so that whatever a
    layer computes from the number of layers stays what it was.

    Args:
        last_is_read: nothing above the last layer's attention logits is needed: projections whose
            result nobody reads (queries of prefix tokens, all values) are skipped there; see
            `_LastLayerProjection`.
    """
    view = twin_of_depth(decoder, depth, tap.TAP_NAME)
    if not last_is_read:
        return view
    last = list(decoder_layers(view).children())[-1]
    for module in list(last.modules()):
        if not hasattr(module, "layer_idx"):
            continue
        for projection, when_reading in (("q_proj", True), ("v_proj", False)):
            child = module._modules.get(projection)
            if child is not None and isinstance(getattr(child, "out_features", None), int):
                module._modules[projection] = _LastLayerProjection(child, when_reading)
    return view


def twin_of_depth(decoder: nn.Module, depth: int, implementation: str) -> nn.Module:
    """A twin of ``decoder`` with its first ``depth`` layers and an attention implementation."""
    original: Any = decoder.config
    config = with_implementation(original, implementation)
    layers = decoder_layers(decoder)
    upper = {str(number) for number in range(depth, len(layers))}
    configs = {id(original): config}
    memo: dict[int, nn.Module] = {}
    memo[id(layers)] = _twin(layers, configs, memo, without=upper)
    return _twin(decoder, configs, memo)


def make_causal_view(model: nn.Module, implementation: str = tap.TAP_NAME) -> nn.Module:
    """A twin of a whole causal LM, LM head and all layers, with the attention tap.

    Args:
        model: as AutoModelForCausalLM gives it; not changed.
        implementation: another one than the tap, to compare with.
    """
    text: Any = find_decoder(model).config
    configs = {id(text): with_implementation(text, implementation)}
    for module in model.modules():
        whole = vars(module).get("config")
        if whole is None or id(whole) in configs:
            continue
        # A multimodal model makes its masks by the text configuration inside its own.
        holding = [name for name, value in vars(whole).items() if value is text]
        if holding:
            configs[id(whole)] = with_implementation(whole, implementation)
            for name in holding:
                setattr(configs[id(whole)], name, configs[id(text)])
    return _twin(model, configs, {})


def config_of(decoder: nn.Module) -> PreTrainedConfig:
    """The configuration that a decoder has."""
    config: Any = decoder.config
    found: PreTrainedConfig = config
    return found


def cut_names(config: Any) -> list[str]:
    """What of a model configuration depends on how many layers are built."""
    count = config.num_hidden_layers
    # Per-layer lists (layer_types, no_rope_layers, ...) have one entry a layer.
    lists = [
        name
        for name, value in vars(config).items()
        if isinstance(value, (list, tuple)) and len(value) == count
    ]
    return [*lists, "num_hidden_layers"]


def truncate_config(config: Any, depth: int) -> Any:
    """A copy of a model configuration for its first ``depth`` layers."""
    short = copy.copy(config)
    *lists, number = cut_names(config)
    if config.num_hidden_layers > depth:
        for name in lists:
            setattr(short, name, getattr(config, name)[:depth])
    setattr(short, number, depth)
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
        if self.when_reading:
            # Queries are normalised, rotated, viewed as complex numbers: they must be real rows.
            return hidden.new_zeros(*hidden.shape[:-1], width)
        return hidden.new_zeros(1).expand(*hidden.shape[:-1], width)


def _own_buffers(module: nn.Module) -> dict[str, torch.Tensor | None]:
    """The module's buffers; those that a forward pass may write to, copied.

    Rotary embeddings whose factors depend on the length keep them in a buffer that is written in
    place, and the original may be in use in another thread.
    """
    passing = module._non_persistent_buffers_set
    return {
        name: buffer.clone()
        if buffer is not None and name in passing and buffer.dim() < 2
        else buffer
        for name, buffer in module._buffers.items()
    }


def _twin(
    module: nn.Module,
    configs: Mapping[int, Any],
    memo: dict[int, nn.Module],
    without: frozenset[str] | set[str] = frozenset(),
) -> nn.Module:
    """A structural copy of ``module`` and its children over the same tensors and hooks.

    Args:
        configs: id of a configuration -> the one to put in its place.
    """
    if id(module) in memo:
        return memo[id(module)]
    twin: nn.Module = type(module).__new__(type(module))
    state = dict(vars(module))
    state["_parameters"] = dict(module._parameters)
    state["_buffers"] = _own_buffers(module)
    state["_modules"] = {
        name: child if child is None else _twin(child, configs, memo)
        for name, child in module._modules.items()
        if name not in without
    }
    state["training"] = False
    for name, value in state.items():
        if id(value) in configs:
            state[name] = configs[id(value)]
        elif isinstance(value, types.MethodType) and value.__self__ is module:
            state[name] = types.MethodType(value.__func__, twin)
        elif isinstance(value, functools.partial) and any(a is module for a in value.args):
            # accelerate's device hooks bind the original module into `forward`.
            arguments = [twin if a is module else a for a in value.args]
            state[name] = functools.partial(value.func, *arguments, **value.keywords)
    vars(twin).update(state)
    memo[id(module)] = twin
    return twin
