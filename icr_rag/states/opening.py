"""The store that a configuration asks for, in the namespace of all that states depend on."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import icr_rag
from icr_rag.config import RerankerConfig
from icr_rag.model.engine import Engine
from icr_rag.states.blind_tail import DocumentKeys
from icr_rag.states.document_states import DocumentStates
from icr_rag.states.store import StateStore, namespace

#: Rerankers on the same weights share what is kept, as long as one of them lives.
_stores: weakref.WeakValueDictionary[Any, StateStore] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def keep_keys(
    engine: Engine,
    config: RerankerConfig,
    head_ids: Sequence[int],
    heads: Mapping[int, Sequence[int] | None],
) -> DocumentKeys:
    """Documents' keys for these heads alone; otherwise as `keep_states`."""
    what = {str(layer): chosen and list(chosen) for layer, chosen in sorted(heads.items())}
    opening = _opening(engine, config, head_ids, max(heads) + 1, {"keys of heads": what})
    return DocumentKeys(engine, head_ids, heads, opening)


def keep_states(
    engine: Engine, config: RerankerConfig, head_ids: Sequence[int], last: int | None
) -> DocumentStates:
    """Document states behind this head, kept as the configuration says.

    Args:
        engine: the model.
        config: states_memory, states_dir, states_dtype.
        head_ids: the beginning of all prompts.
        last: the last layer that is read; None: states of all layers.
    """
    depth = engine.text_config.num_hidden_layers if last is None else last + 1
    what = {"last layer": "keys and values" if last is None else "keys"}
    return DocumentStates(engine, head_ids, last, _opening(engine, config, head_ids, depth, what))


def _opening(
    engine: Engine,
    config: RerankerConfig,
    head_ids: Sequence[int],
    depth: int,
    what: Mapping[str, Any],
) -> Callable[[], StateStore]:
    """Opens the store for the weights as they are when it is called."""

    def open_store() -> StateStore:
        import torch
        import transformers

        parts = {
            "weights": engine.fingerprint(depth),
            "model": config.model,
            "head": list(head_ids),
            "layers": depth,
            **what,
            "dtype": engine.dtype.dtype,
            "storage": config.states_dtype,
            "kernel": engine.kernel,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "icr_rag": icr_rag.__version__,
        }
        name = namespace(parts)
        key = name, config.states_memory, config.states_dir
        with _lock:
            store = _stores.get(key)
            if store is None:
                folder = config.states_dir
                store = _stores[key] = StateStore(
                    name,
                    memory_bytes=config.states_memory * 2**20,
                    folder=None if folder is None else Path(folder).expanduser(),
                    dtype=config.states_dtype,
                    parts=parts,
                )
            return store

    return open_store
