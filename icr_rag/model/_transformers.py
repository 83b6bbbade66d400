"""The one seam to transformers: every name of it that is private, or that has changed, is here.

Each entry says which versions it holds for. What the installed version offers decides, never its
number. tests/test_transformers_seam.py asserts that each entry exists and behaves.

Imported only when a model is loaded, because it imports torch and transformers.
"""

from __future__ import annotations

import copy
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from icr_rag.errors import UnsupportedModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


AttentionFunction = Callable[..., tuple[torch.Tensor, torch.Tensor | None]]

# --- states of earlier tokens ----------------------------------------------------------------

#: Names of the argument that earlier tokens' states are passed by: ``cache`` from 5.24,
#: ``past_key_values`` in all before it (from 5.24 it warns, and goes in 5.40).
CACHE_ARGUMENTS = ("cache", "past_key_values")


def cache_argument(model: nn.Module) -> str:
    """The name of the argument by which ``model`` takes earlier tokens' states.

    Raises:
        UnsupportedModelError: if its forward pass takes none.
    """
    return _cache_argument(_told_by(model))


def _told_by(model: nn.Module) -> Any:
    """The type whose forward pass says what it takes: wrappers (adapters) hand on whatever they
    are given."""
    while "input_ids" not in inspect.signature(type(model).forward).parameters:
        inner = next(model.children(), None)
        if inner is None:
            break
        model = inner
    return type(model)


@functools.cache
def _cache_argument(kind: Any) -> str:
    names = inspect.signature(kind.forward).parameters
    for name in CACHE_ARGUMENTS:
        if name in names:
            return name
    raise UnsupportedModelError(
        f"{kind.__name__} keeps no keys and values of earlier tokens (its forward pass takes "
        f"neither {' nor '.join(CACHE_ARGUMENTS)}); a decoder-only LLM that does is needed"
    )


def takes_positions(model: nn.Module) -> bool:
    """Whether the forward pass of ``model`` takes ``position_ids``; others count by themselves."""
    return _takes_positions(_told_by(model))


@functools.cache
def _takes_positions(kind: Any) -> bool:
    parameters = inspect.signature(kind.forward).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return anything or "position_ids" in parameters


def logits_to_keep(model: nn.Module, rows: torch.Tensor) -> tuple[bool, dict[str, Any]]:
    """Whether the forward pass of ``model`` can be told which rows' logits to make, and the
    argument that tells it. All of 5.x, but not every model."""
    if _keeps_logits(_told_by(model)):
        return True, {"logits_to_keep": rows}
    return False, {}


@functools.cache
def _keeps_logits(kind: Any) -> bool:
    return "logits_to_keep" in inspect.signature(kind.forward).parameters


def with_cache(model: nn.Module, cache: Any) -> dict[str, Any]:
    """Keyword arguments that make ``model`` continue ``cache`` and add to it."""
    return {cache_argument(model): cache, "use_cache": True}


def empty_cache(config: PreTrainedConfig, plain_layer: Callable[[], DynamicLayer]) -> Cache:
    """A cache with one layer per layer of the model: ``plain_layer`` where only keys and values
    are kept, transformers' own kind where there is more (recurrent states, index keys).

    ``DynamicCache(config=...)`` knows the kinds; 5.0 knows attention only, later ones add to it.

    Args:
        config: of the text decoder.
        plain_layer: makes a layer that keeps every token's keys and values.
    """
    kinds = DynamicCache(config=config).layers
    if all(_is_plain(layer) for layer in kinds):
        # Layers are added as they come: models that share keys between layers have fewer.
        return Cache(layer_class_to_replicate=plain_layer)  # type: ignore[arg-type]
    return Cache(layers=[plain_layer() if _is_plain(layer) else layer for layer in kinds])


def attention_layers(config: PreTrainedConfig) -> list[int]:
    """Layers that have attention, by what they keep: not those with a recurrent state alone, nor
    those that keep nothing.

    Args:
        config: of the text decoder.
    """
    kinds = [type(layer).__name__ for layer in DynamicCache(config=config).layers]
    # Layers that attend to images alone are passed over where there are none.
    images = set(getattr(config, "cross_attention_layers", None) or ())
    if not kinds:
        return [layer for layer in range(config.num_hidden_layers) if layer not in images]
    shared = getattr(config, "kv_sharing_modes", None) or [None] * len(kinds)
    return [
        number
        for number, (kind, sharing) in enumerate(zip(kinds, shared, strict=False))
        if kind != "LinearAttentionLayer"
        and (kind != "DummyLayer" or sharing == "reuse")
        and number not in images
    ]


def _attention_heads(config: PreTrainedConfig) -> int | None:
    """None for models that have none; raises where layers differ in it."""
    try:
        heads: int = config.num_attention_heads
    except AttributeError as error:
        if "has no attribute" in str(error):
            return None
        raise
    return heads


def check_attends(config: PreTrainedConfig) -> None:
    """Raise `UnsupportedModelError` for a model that has no attention at all.

    Args:
        config: of the text decoder.
    """
    # Configurations may refuse to be asked, where layers differ.
    try:
        heads = _attention_heads(config)
        layers = attention_layers(config) if heads is not None else []
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UnsupportedModelError(
            f"{config.model_type} models do not say how many attention heads each layer has "
            f"({reason}); re-ranking needs softmax attention in layers of one shape"
        ) from error
    if not layers or not isinstance(heads, int) or heads < 1:
        raise UnsupportedModelError(
            f"{config.model_type} models have no softmax attention (they keep a recurrent state "
            "instead), which re-ranking reads or continues; use a transformer or a hybrid"
        )


def keeps_only_keys_and_values(config: PreTrainedConfig) -> bool:
    """Whether all that a model's layers keep of earlier tokens is keys and values, or nothing."""
    return all(_is_plain(layer) for layer in DynamicCache(config=config).layers)


#: Cache layers of attention that keep keys and values alone: by their whole type, for kinds that
#: keep more derive from these. ``DummyLayer``, which keeps nothing, from 5.20.
_PLAIN = ("DynamicLayer", "DynamicSlidingWindowLayer", "DummyLayer")


def _is_plain(layer: Any) -> bool:
    return type(layer).__name__ in _PLAIN


def bare_loader(config: PreTrainedConfig) -> Any:
    """The class that loads a model without its LM head: AutoModel; or, for text parts that it
    does not know, and for types of which it would build the encoder too, the one that loads the
    decoder with its head. All of 5.x."""
    import transformers

    kind = type(config)
    encodes = (transformers.AutoModelForSeq2SeqLM, transformers.AutoModelForSpeechSeq2Seq)
    known = kind in transformers.AutoModel._model_mapping
    bare = known and not any(kind in auto._model_mapping for auto in encodes)
    return transformers.AutoModel if bare else transformers.AutoModelForCausalLM


# --- attention -------------------------------------------------------------------------------


def register_attention(name: str, attention: AttentionFunction, mask: Callable[..., Any]) -> None:
    """Make an attention function and its mask function known under ``name``. All of 5.x.

    Without a mask function of the same name transformers passes no mask at all, and every token
    would see the future.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, mask)


def attention_function(name: str) -> AttentionFunction:
    """transformers' own attention function: "sdpa", "flash_attention_2". All of 5.x."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    function: AttentionFunction = ALL_ATTENTION_FUNCTIONS[name]
    return function


def mask_function(name: str) -> Callable[..., Any]:
    """transformers' own mask function for a kernel. All of 5.x."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    function: Callable[..., Any] = ALL_MASK_ATTENTION_FUNCTIONS[name]
    return function


def eager_attention(module: nn.Module) -> AttentionFunction | None:
    """The eager attention of a module's own architecture; None if it has none. All of 5.x."""
    modeling = sys.modules.get(type(module).__module__)
    function: AttentionFunction | None = getattr(modeling, "eager_attention_forward", None)
    return function


def implementation(config: PreTrainedConfig) -> str | None:
    """The attention implementation that a configuration names. All of 5.x."""
    name: str | None = getattr(config, "_attn_implementation", None)
    return name


def with_implementation(config: PreTrainedConfig, name: str) -> PreTrainedConfig:
    """A copy of a configuration that names another attention implementation. All of 5.x.

    The public property would set the sub-configurations too, which a copy shares with its
    original.
    """
    changed = copy.copy(config)
    changed._attn_implementation_internal = name
    # Asking for all maps or states would bring back memory that grows with tokens squared.
    changed.output_attentions = False
    changed.output_hidden_states = False
    return changed


#: The name under which transformers registers flash attention (all 5.x).
FLASH_ATTENTION = "flash_attention_2"


class _Overlay:
    """An object as it is, except for the attributes given; the object itself is not changed."""

    def __init__(self, base: Any, **attributes: Any) -> None:
        self._base = base
        vars(self).update(attributes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._base, name)


def flash_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """transformers' flash attention for a module whose configuration names another attention.

    It looks its kernel up by ``module.config._attn_implementation`` (all 5.x), where our views
    hold the tap's name. It is shown the module with that one name replaced.

    Args:
        module: the attention module.
        query, key, value: [batch, head, token, dimension].
        attention_mask: bool [batch, token], False where a token is padding; None: no padding.
        kwargs: as the model passes them.

    Raises:
        UnsupportedModelError: for attention with learned sinks, which flash attention 2 does not
            know and transformers would leave out without a word.
    """
    if kwargs.get("s_aux") is not None:
        raise UnsupportedModelError(
            f"{type(module).__name__} has learned sinks, which attn_implementation="
            f"{FLASH_ATTENTION!r} does not know; use 'sdpa' or 'eager'"
        )
    # By positions that do not rise by one it would take a prompt for several packed ones.
    kwargs.pop("position_ids", None)
    config = _Overlay(module.config, _attn_implementation=FLASH_ATTENTION)
    shown: Any = _Overlay(module, config=config)
    return attention_function(FLASH_ATTENTION)(shown, query, key, value, attention_mask, **kwargs)


# --- hooks of accelerate ---------------------------------------------------------------------


def execution_device(module: nn.Module) -> torch.device | None:
    """Where accelerate runs a module whose weights may be elsewhere; None: it has no hook."""
    where = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
    return None if where is None else torch.device(where)


# --- its words on the way --------------------------------------------------------------------

#: Loggers that report the upper layers' weights as left over. The first in all of 5.x, the
#: others from 5.3.
_LOADERS = (
    "transformers.modeling_utils",
    "transformers.utils.loading_report",
    "transformers.distributed.tensor_parallel",
)


@contextmanager
def without_leftovers() -> Iterator[None]:
    """Keep transformers from reporting in this thread that weights were left over.

    Leaving them out is the point; missing weights are checked and are an error. Levels and
    handlers stay as they are; other threads' words pass.
    """
    import logging
    import threading

    own = threading.get_ident()

    def passes(record: logging.LogRecord) -> bool:
        return record.thread != own or record.levelno >= logging.ERROR

    loggers = [logging.getLogger(name) for name in _LOADERS]
    for logger in loggers:
        logger.addFilter(passes)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(passes)


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """No bars of transformers while a file is converted: three bars say less than one line."""
    import importlib

    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    # The GGUF reader's bar does not listen to that switch.
    reader: Any = None
    with suppress(ModuleNotFoundError):
        reader = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    bar = getattr(reader, "tqdm", None)
    if bar is not None:
        reader.tqdm = functools.partial(bar, disable=True)
    try:
        yield
    finally:
        if bar is not None:
            reader.tqdm = bar
        if shown:
            transformers_logging.enable_progress_bar()
