"""The lower layers of a model alone: what may be left out, and what must stay as it was.

A model is built with fewer layers, so that the upper ones are neither read from disk nor held.
That is right only if nothing else depends on how many there are. Some models scale their residuals
by the number of layers, pack inputs for all of them into one matrix, or let upper layers share
lower ones' keys by their count. So both are built without weights and compared, number for number.
"""

from __future__ import annotations

import copy
import gc
import logging
from typing import Any

import torch
from torch import nn

from icr_rag.model.view import (
    cut_names,
    decoder_layers,
    find_decoder,
    layer_list_name,
    truncate_config,
)

logger = logging.getLogger(__name__)


def truncated_config(whole: Any, text_config: Any, depth: int) -> Any:
    """A copy of a model's configuration for the first ``depth`` layers of its decoder."""
    short = truncate_config(text_config, depth)
    if text_config is whole:
        return short
    # A multimodal configuration holds the text one.
    whole = copy.copy(whole)
    for name, value in vars(whole).items():
        if value is text_config:
            setattr(whole, name, short)
    return whole


def cut_changes_nothing(whole: Any, text_config: Any, depth: int, loader: Any, **hub: Any) -> bool:
    """Whether the lower layers, built alone, are what they are in the whole model.

    Args:
        whole: the model's configuration. text_config: the part of it for text.
        depth: layers that are to be built.
        loader: AutoModel.
        **hub: its arguments about remote code.
    """
    if depth >= text_config.num_hidden_layers:
        return True
    try:
        with torch.device("meta"):
            full = loader.from_config(copy.deepcopy(whole), **hub)
            short = truncated_config(whole, text_config, depth)
            cut = loader.from_config(copy.deepcopy(short), **hub)
        wanted = _numbers_below(full, depth)
    # Configurations may refuse a depth, models may fail to be built with it: then it is not cut.
    except Exception as error:  # noqa: BLE001
        logger.debug("not cut to %d layers: %s", depth, error)
        return False
    return wanted == _numbers_below(cut, depth)


def _numbers_below(model: nn.Module, depth: int) -> dict[str, dict[str, Any]]:
    """Module's name -> what it was built with; without the decoder's layers from ``depth`` on."""
    layers = decoder_layers(find_decoder(model))
    upper = {id(module) for layer in list(layers)[depth:] for module in layer.modules()} - {
        id(module) for layer in list(layers)[:depth] for module in layer.modules()
    }
    return {
        name: _numbers(module) for name, module in model.named_modules() if id(module) not in upper
    }


_SIMPLE = (bool, int, float, str, type(None))


def _numbers(module: nn.Module) -> dict[str, Any]:
    """What a module was built with: its type, plain attributes, shapes of its tensors."""
    found: dict[str, Any] = {"": type(module)}
    for name, value in vars(module).items():
        if isinstance(value, _SIMPLE):
            found[name] = value
        elif isinstance(value, (list, tuple)) and all(isinstance(v, _SIMPLE) for v in value):
            found[name] = tuple(value)
        elif isinstance(value, torch.Tensor):
            found[name] = tuple(value.shape)
    for name, tensor in (*module._parameters.items(), *module._buffers.items()):
        found[name] = None if tensor is None else tuple(tensor.shape)
    return found


def drop_upper_layers(model: nn.Module, depth: int) -> None:
    """Let go of the layers above ``depth`` of a model that was loaded whole, and is ours."""
    decoder = find_decoder(model)
    name = layer_list_name(decoder)
    if name is None:
        return
    layers = getattr(decoder, name)
    if len(layers) > depth:
        setattr(decoder, name, nn.ModuleList(list(layers)[:depth]))
        gc.collect()


def restore_config(model: nn.Module, text_config: Any) -> None:
    """Give a model that was built cut, and is ours, the whole configuration back.

    What a forward pass computes from the number of layers is then what it was. The list of layers
    says by itself how many there are. What loading wrote into the configuration stays.
    """
    decoder = find_decoder(model)
    short: Any = decoder.config
    full = copy.copy(short)
    for name in cut_names(text_config):
        setattr(full, name, getattr(text_config, name))
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if value is short:
                setattr(module, name, full)
