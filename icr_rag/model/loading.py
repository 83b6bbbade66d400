"""Load the lower layers of a model, share them, and free them.

Two rerankers with the same model settings share one `Engine`; it lives as long as one of them.
"""

from __future__ import annotations

import copy
import importlib.util
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from icr_rag.config import RerankerConfig
from icr_rag.deadline import Deadline
from icr_rag.errors import MissingDependencyError, ModelLoadError, UnsupportedModelError
from icr_rag.model.device import DtypeChoice, choose_dtype, resolve_device
from icr_rag.model.embedded import EMBEDDED_MODELS, ensure_embedded_model
from icr_rag.model.engine import Engine, default_chunk
from icr_rag.model.source import check_folder, hint, is_gguf, named_path
from icr_rag.model.turns import Turns, turn

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
#: What is loaded -> whose turn it is: one model does not hold up another.
_loading: dict[str, Turns] = {}
#: Held for look-ups only, never while something is loaded.
_lock = threading.Lock()


def resolve_source(config: RerankerConfig) -> str:
    """The hub name or local folder that transformers is to load.

    The embedded model is fetched and a GGUF file converted, once.

    Raises:
        ModelLoadError: if the setting names no model, or one whose files are not whole.
    """
    if config.model in EMBEDDED_MODELS:
        folder = ensure_embedded_model(
            config.model, cache_dir=config.cache_dir, local_files_only=config.local_files_only
        )
        return str(folder)
    path = named_path(config.model)
    if path is None:
        return config.model
    if is_gguf(path):
        from icr_rag.model.gguf import ensure_converted

        return str(ensure_converted(path, cache_dir=config.cache_dir))
    check_folder(config.model, path)
    return str(path)


class ModelConfig(NamedTuple):
    """A model's configuration, the part of it for text, and where both come from."""

    whole: Any
    text: Any
    source: str


def load_engine(
    config: RerankerConfig,
    found: ModelConfig,
    depth: int,
    *,
    lm_head: bool,
    due: Deadline | None = None,
) -> Engine:
    """The engine for these settings: one that is loaded already, or a new one.

    Args:
        config: the settings about loading; nothing else is looked at.
        found: as `load_config` gives it for them.
        depth: layers that are needed.
        lm_head: whether the LM head is.
        due: when who waits for another thread that loads the model gives up; None: never.

    Raises:
        OutOfTime: if another thread loads it for too long.
        ModelLoadError: if the model or its tokenizer cannot be loaded.
        ConfigError: if a setting does not fit the model or this machine.
    """
    settings = config.model_dump(include=set(_LOAD_FIELDS), mode="json")
    what = repr(sorted(settings.items()))
    with _lock:
        turns = _loading.setdefault(what, Turns())
    with turn(turns.lock, due):
        return _load_or_share(config, found, depth, lm_head, what)


def load_config(config: RerankerConfig) -> ModelConfig:
    """The configuration of the model that a setting names; no weight is loaded.

    Raises:
        ModelLoadError: if it cannot be had or is not that of a decoder-only model.
    """
    import transformers

    from icr_rag.model._transformers import check_attends
    from icr_rag.model.checks import check_config

    source = resolve_source(config)
    with _explained(config, source):
        whole = transformers.AutoConfig.from_pretrained(source, **_hub_arguments(config, source))
    if getattr(whole, "is_encoder_decoder", False):
        raise UnsupportedModelError(
            f"{config.model} is an encoder-decoder; a decoder-only LLM is needed"
        )
    text_config = whole.get_text_config(decoder=True)
    check_config(config.model, text_config)
    check_attends(text_config)
    return ModelConfig(whole, text_config, source)


def _hub_arguments(config: RerankerConfig, source: str) -> dict[str, Any]:
    values: dict[str, Any] = {
        "revision": config.revision,
        "cache_dir": config.cache_dir if source == config.model else None,
        "local_files_only": config.local_files_only,
        "trust_remote_code": config.trust_remote_code,
    }
    return {name: value for name, value in values.items() if value is not None}


def _load_or_share(
    config: RerankerConfig, found: ModelConfig, depth: int, lm_head: bool, what: str
) -> Engine:
    import transformers

    from icr_rag.model._transformers import bare_loader, without_leftovers
    from icr_rag.model.checks import (
        check_kernel,
        check_loaded_tokenizer,
        check_size,
        check_vocabulary,
    )
    from icr_rag.model.cut import (
        cut_changes_nothing,
        drop_upper_layers,
        restore_config,
        truncated_config,
    )

    whole, text_config, source = found
    hub = _hub_arguments(config, source)
    key = repr((what, depth, lm_head))
    with _lock:
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
    check_kernel(kernel)
    loader: Any = transformers.AutoModelForCausalLM if lm_head else bare_loader(whole)
    remote = {"trust_remote_code": True} if config.trust_remote_code else {}
    cut = lm_head or cut_changes_nothing(whole, text_config, depth, loader, **remote)
    arguments: dict[str, Any] = {
        "config": truncated_config(whole, text_config, depth) if cut else whole,
        "dtype": dtype.torch_dtype,
        "attn_implementation": "eager" if kernel == "sdpa" else kernel,
        "quantization_config": _quantization(config),
        # Pickled weights can run code.
        "use_safetensors": True,
        "device_map": config.device_map if config.device_map is not None else {"": device},
        **hub,
    }
    if Path(source).is_dir():
        check_size(config.model, Path(source), arguments["config"], loader, **remote)
    with _explained(config, source), without_leftovers():
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **hub)
        model, report = loader.from_pretrained(source, output_loading_info=True, **arguments)
    if report["missing_keys"] or report["mismatched_keys"]:
        wrong = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        raise ModelLoadError(
            f"{config.model} lacks weights that its configuration asks for: {wrong[:5]}"
            f"{' and more' if len(wrong) > 5 else ''}; the download may be incomplete"
        )
    from icr_rag.model.view import find_decoder

    model.eval().requires_grad_(False)
    if not cut:
        drop_upper_layers(model, depth)
    elif not lm_head:
        restore_config(model, text_config)
    decoder = find_decoder(model)
    check_loaded_tokenizer(config.model, tokenizer)
    check_vocabulary(f"model={config.model!r}", decoder, tokenizer)
    chunk = default_chunk(decoder)
    engine = Engine(decoder, own_tokenizer(tokenizer), text_config, kernel, dtype, chunk)
    engine.causal = model if lm_head else None
    with _lock:
        _engines[key] = engine
    return engine


def engine_from_model(model: Any, tokenizer: Any, kernel: str) -> Engine:
    """An engine around weights that are already loaded. Nothing is copied or changed.

    Rerankers on the same model and tokenizer share it.

    Raises:
        UnsupportedModelError: if it is not a decoder-only transformers model, or has an adapter
            that stands outside of the decoder.
        MissingDependencyError: if the kernel's package is not installed.
    """
    from icr_rag.model._transformers import check_attends
    from icr_rag.model.adapters import check_adapters
    from icr_rag.model.checks import check_kernel
    from icr_rag.model.view import config_of, find_decoder

    check_kernel(kernel)
    check_adapters(model)
    decoder = find_decoder(model)
    check_attends(config_of(decoder))
    causal = model if _has_lm_head(model) else None
    # What is given is kept alive by the engine, so that its address stays its own.
    key = id(decoder), id(causal), id(tokenizer), kernel
    with _lock:
        engine = _engines.get(key)
    if engine is not None:
        return engine
    parameter = next(decoder.parameters())
    dtype = DtypeChoice(str(parameter.dtype).removeprefix("torch."), "as the model was loaded")
    chunk = default_chunk(decoder)
    own = own_tokenizer(tokenizer)
    engine = Engine(decoder, own, decoder.config, kernel, dtype, chunk)
    engine.causal = causal
    engine.given = (model, tokenizer)
    with _lock:
        # One lock per model that was handed in, so that all rerankers on it take turns.
        for other in list(_engines.values()):
            if other.decoder is decoder:
                engine.lock = other.lock
        # Another thread may have been faster.
        return _engines.setdefault(key, engine)


def _has_lm_head(model: Any) -> bool:
    find = getattr(model, "get_output_embeddings", None)
    return callable(find) and find() is not None


def own_tokenizer(tokenizer: Any) -> Any:
    """A copy of a tokenizer that nobody else uses, with neither truncation nor padding.

    A fast tokenizer keeps both as state: whoever calls it with other ones changes them for all.
    """
    for attempt in range(_ATTEMPTS):
        try:
            own = copy.deepcopy(tokenizer)
            break
        # "Already borrowed": another thread is setting them at this moment.
        except RuntimeError as error:
            if attempt + 1 == _ATTEMPTS:
                raise ModelLoadError(
                    f"{type(tokenizer).__name__} cannot be copied: {error}"
                ) from error
            time.sleep(0.01 * (attempt + 1))
    backend = getattr(own, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    return own


_ATTEMPTS = 20


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
    # Of whatever kind: safetensors and tokenizers have their own, down to a bare Exception.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        advice = hint(reason)
        if len(reason) > 400:
            reason = reason[:400] + " ..."
        raise ModelLoadError(
            f"model={config.model!r} could not be loaded"
            f"{'' if source == config.model else f' from {source}'}: {reason} -- {advice}"
        ) from error
