"""Load the lower layers of a model, share them, and free them.

Two rerankers with the same model settings share one `Engine`; it lives as long as one of them.
"""

from __future__ import annotations

import importlib.util
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icr_rag.cascade import second_config
from icr_rag.config import RerankerConfig
from icr_rag.errors import MissingDependencyError, ModelLoadError
from icr_rag.model.device import DtypeChoice, choose_dtype, resolve_device
from icr_rag.model.embedded import EMBEDDED_MODELS, ensure_embedded_model
from icr_rag.scoring.registry import needs_lm_head
from icr_rag.selection import select_heads

#: Configuration fields that decide which weights are loaded, and how.
_LOAD_FIELDS = (
    "model",
    "revision",
    "device",
    "device_map",
    "dtype",
    "attn_implementation",
    "quantization",
    "trust_remote_code",
    "cache_dir",
    "local_files_only",
)

_engines: weakref.WeakValueDictionary[Any, Engine] = weakref.WeakValueDictionary()
_engines_lock = threading.Lock()


@dataclass
class Engine:
    """Weights in memory, with the lock that serialises their use.

    Attributes:
        decoder: the bare decoder, no LM head. Never modified.
        causal: the whole causal LM around it; None where only attention is read.
        tokenizer: its tokenizer.
        text_config: configuration of the *whole* model (all its layers).
        kernel: attention implementation underneath the tap.
        dtype: number format of the weights and why it was chosen.
        chunk: prefix tokens run at once; shrinks when an accelerator runs out of memory.
        lock: held while the model or the tokenizer is used.
    """

    decoder: Any
    tokenizer: Any
    text_config: Any
    kernel: str
    dtype: DtypeChoice
    chunk: int
    lock: threading.RLock = field(default_factory=threading.RLock)
    causal: Any = None

    @property
    def device(self) -> str:
        """Where the first weights are."""
        return str(next(self.decoder.parameters()).device)


def resolve_source(config: RerankerConfig) -> str:
    """The hub name or local folder that transformers is to load.

    The embedded model is fetched and a GGUF file converted, once.
    """
    if config.model in EMBEDDED_MODELS:
        folder = ensure_embedded_model(
            config.model, cache_dir=config.cache_dir, local_files_only=config.local_files_only
        )
        return str(folder)
    if config.model.endswith(".gguf"):
        from icr_rag.model.gguf import ensure_converted

        return str(ensure_converted(Path(config.model).expanduser(), cache_dir=config.cache_dir))
    path = Path(config.model).expanduser()
    return str(path) if path.is_dir() else config.model


def load_engine(config: RerankerConfig) -> Engine:
    """The engine for these settings: one that is loaded already, or a new one.

    Raises:
        ModelLoadError: if the model, its tokenizer or its configuration cannot be loaded.
        ConfigError: if a setting does not fit the model or this machine.
    """
    with _engines_lock:
        return _load_or_share(config)


def load_config(config: RerankerConfig) -> tuple[Any, Any, str]:
    """The model's configuration, the part of it for text, and where both come from.

    Raises:
        ModelLoadError: if it cannot be had or is not that of a decoder-only model.
    """
    import transformers

    source = resolve_source(config)
    with _explained(config, source):
        whole = transformers.AutoConfig.from_pretrained(source, **_hub_arguments(config, source))
    if getattr(whole, "is_encoder_decoder", False):
        raise ModelLoadError(f"{config.model} is an encoder-decoder; a decoder-only LLM is needed")
    return whole, whole.get_text_config(decoder=True), source


def _hub_arguments(config: RerankerConfig, source: str) -> dict[str, Any]:
    values: dict[str, Any] = {
        "revision": config.revision,
        "cache_dir": config.cache_dir if source == config.model else None,
        "local_files_only": config.local_files_only,
        "trust_remote_code": config.trust_remote_code,
    }
    return {name: value for name, value in values.items() if value is not None}


def _load_or_share(config: RerankerConfig) -> Engine:
    import transformers

    settings = config.model_dump(include=set(_LOAD_FIELDS), mode="json")
    whole, text_config, source = load_config(config)
    hub = _hub_arguments(config, source)
    # An LM head needs every layer; attention only those up to the last one read.
    whole_model = needs_lm_head(config.scoring)
    readings = [one for one in (config, second_config(config)) if one is not None]
    depth = (
        text_config.num_hidden_layers
        if whole_model
        else max(select_heads(one, text_config).layers[-1] for one in readings) + 1
    )

    key = repr((sorted(settings.items()), depth, whole_model))
    engine = _engines.get(key)
    if engine is not None:
        return engine

    device = "cpu" if config.device_map is not None else resolve_device(config.device)
    stored = getattr(text_config, "dtype", None)
    stored_name = None if stored is None else str(stored).removeprefix("torch.")
    # With a device map the accelerators' rule holds.
    dtype = choose_dtype(
        "cuda" if config.device_map is not None else device, config.dtype, stored_name
    )
    kernel = config.attn_implementation
    if kernel == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        raise MissingDependencyError(
            "attn_implementation='flash_attention_2' needs flash-attn: pip install flash-attn"
        )
    arguments: dict[str, Any] = {
        "config": truncated_config(whole, text_config, depth),
        "dtype": dtype.torch_dtype,
        "attn_implementation": "eager" if kernel == "sdpa" else kernel,
        "quantization_config": _quantization(config),
        "device_map": config.device_map if config.device_map is not None else {"": device},
        **hub,
    }
    with _explained(config, source), _quiet():
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **hub)
        loader: Any = transformers.AutoModelForCausalLM if whole_model else transformers.AutoModel
        model, report = loader.from_pretrained(source, output_loading_info=True, **arguments)
    if report["missing_keys"] or report["mismatched_keys"]:
        wrong = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        raise ModelLoadError(
            f"{config.model} lacks weights that its configuration asks for: {wrong[:5]}"
            f"{' and more' if len(wrong) > 5 else ''}; the download may be incomplete"
        )
    from icr_rag.model.view import find_decoder

    model.eval().requires_grad_(False)
    decoder = find_decoder(model)
    chunk = default_chunk(decoder)
    engine = Engine(decoder, tokenizer, text_config, kernel, dtype, chunk)
    engine.causal = model if whole_model else None
    _engines[key] = engine
    return engine


#: One lock per model that was handed in, so that all rerankers on it share it.
_foreign_locks: weakref.WeakKeyDictionary[Any, threading.RLock] = weakref.WeakKeyDictionary()


def engine_from_model(model: Any, tokenizer: Any, kernel: str) -> Engine:
    """An engine around weights that are already loaded. Nothing is copied or changed.

    Raises:
        UnsupportedModelError: if it is not a decoder-only transformers model.
    """
    from icr_rag.model.view import find_decoder

    decoder = find_decoder(model)
    parameter = next(decoder.parameters())
    dtype = DtypeChoice(str(parameter.dtype).removeprefix("torch."), "as the model was loaded")
    with _engines_lock:
        lock = _foreign_locks.setdefault(decoder, threading.RLock())
    chunk = default_chunk(decoder)
    engine = Engine(decoder, tokenizer, decoder.config, kernel, dtype, chunk, lock)
    engine.causal = model if _has_lm_head(model) else None
    return engine


def _has_lm_head(model: Any) -> bool:
    find = getattr(model, "get_output_embeddings", None)
    return callable(find) and find() is not None


def default_chunk(decoder: Any) -> int:
    """Prefix tokens run at once.

    The more, the fewer tokens are attended in vain above the diagonal; the bound is the memory
    of the largest activation, the MLP's, of which about three are alive at once.
    """
    parameter = next(decoder.parameters())
    budget = 3 * 2**22 if parameter.device.type == "cpu" else 2**27  # elements
    widest: int = max(
        getattr(decoder.config, "intermediate_size", None) or 0, 4 * decoder.config.hidden_size
    )
    return max(256, min(4096, budget // (3 * widest)))


def truncated_config(whole: Any, text_config: Any, depth: int) -> Any:
    """A copy of a model's configuration for the first ``depth`` layers of its decoder."""
    import copy

    from icr_rag.model.view import truncate_config

    short = truncate_config(text_config, depth)
    if text_config is whole:
        return short
    # A multimodal configuration holds the text one.
    whole = copy.copy(whole)
    for name, value in vars(whole).items():
        if value is text_config:
            setattr(whole, name, short)
    return whole


def _quantization(config: RerankerConfig) -> Any:
    if config.quantization is None:
        return None
    import transformers

    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingDependencyError(
            f"quantization={config.quantization!r} needs bitsandbytes: "
            "pip install 'icr-rag[quantization]'"
        )
    four = config.quantization == "4bit"
    return transformers.BitsAndBytesConfig(load_in_4bit=four, load_in_8bit=not four)


@contextmanager
def _explained(config: RerankerConfig, source: str) -> Iterator[None]:
    """Turn what transformers raises into one error that says what to do."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, TypeError) as error:
        reason = " ".join(str(error).split())
        if len(reason) > 400:
            reason = reason[:400] + " ..."
        raise ModelLoadError(
            f"model={config.model!r} could not be loaded"
            f"{'' if source == config.model else f' from {source}'}: {reason} -- `model` takes a "
            "hub name, a local Hugging Face folder, a .gguf file or 'smollm2-135m'"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from reporting the upper layers as weights left over.

    Leaving them out is the point; missing weights are checked and are an error.
    """
    import logging

    names = (
        "transformers.modeling_utils",
        "transformers.utils.loading_report",
        "transformers.distributed.tensor_parallel",
    )
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
