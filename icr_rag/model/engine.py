"""Weights in memory, and what must be known of them to run them right."""

from __future__ import annotations

import functools
import logging
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from icr_rag.deadline import timed
from icr_rag.model.anatomy import Anatomy
from icr_rag.model.device import DtypeChoice
from icr_rag.model.forking import hold
from icr_rag.model.limits import context_length
from icr_rag.model.threads import advice

logger = logging.getLogger(__name__)


#: What was found of a model, for as long as it lives: rerankers come and go on it.
_proven: weakref.WeakKeyDictionary[Any, dict[Any, Anatomy]] = weakref.WeakKeyDictionary()


@functools.cache
def _advise(threads: int) -> None:
    """Say once that torch's threads are more than there are cores for them."""
    told = advice(threads)
    if told is not None:
        logger.warning("%s", told)


@dataclass(eq=False)
class Engine:
    """Weights in memory, with the lock that serialises their use.

    Attributes:
        decoder: the bare decoder, no LM head. Never modified.
        causal: the whole causal LM around it; None where only attention is read.
        tokenizer: a copy of its own, so that neither its users' truncation nor padding is ours.
        text_config: configuration of the *whole* model (all its layers).
        kernel: attention implementation underneath the tap.
        dtype: number format of the weights and why it was chosen.
        chunk: prefix tokens run at once; shrinks when an accelerator runs out of memory.
        lock: held while the model or the tokenizer is used.
        given: what a caller handed in (model, tokenizer), kept alive; None: loaded here.
    """

    decoder: Any
    tokenizer: Any
    text_config: Any
    kernel: str
    dtype: DtypeChoice
    chunk: int
    lock: threading.RLock = field(default_factory=threading.RLock)
    causal: Any = None
    given: Any = None
    _identity: str = ""
    _settled: str | None = None
    _fingerprints: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        hold(self)
        if self.device == "cpu":
            _advise(torch.get_num_threads())

    @functools.cached_property
    def context(self) -> int | None:
        """Most tokens of a prompt; None: the configuration does not say."""
        return context_length(self.text_config)

    @property
    def device(self) -> str:
        """Where the first weights are."""
        return str(next(self.decoder.parameters()).device)

    def anatomy(self, last: int | None) -> Anatomy:
        """How the model runs up to a layer: proven on first use, which costs a few short passes.

        Args:
            last: the last layer that is read; None: the whole causal LM, or, without one, all
                layers there are.

        Raises:
            UnsupportedModelError: if it does not give here what it gives by itself.
        """
        from icr_rag.model.proof import prove
        from icr_rag.model.view import decoder_layers

        loaded = len(decoder_layers(self.decoder))
        whole = last is None and self.causal is not None
        # Of weights that were loaded here all are used; of a caller's only the lower layers.
        depth = loaded if last is None or self.given is None else last + 1
        # Adapters that are put in afterwards add modules.
        key = whole, depth, self.kernel, sum(1 for _ in self.decoder.modules())
        with self.lock:
            proven = _proven.setdefault(self.decoder, {})
            known = proven.get(key)
            if known is None:
                model = self.causal if whole else self.decoder
                # A part of loading: it is done once, and half of it is worth nothing.
                with timed(None):
                    known = proven[key] = prove(model, depth, self.kernel, whole=whole)
            return known

    def identity(self, *, whole: bool = False) -> str:
        """Changes whenever the weights, or an adapter on them, have; see `weights_identity`.

        Args:
            whole: whether all that there is counts, the LM head too.
        """
        from icr_rag.model.fingerprint import weights_identity

        with self.lock:
            if whole and self.causal is not None:
                return self.identity_at_a_glance()
            found = self._settled or weights_identity(self.decoder)
            if found != self._identity:
                self._identity = found
                self._fingerprints.clear()
            return found

    def identity_at_a_glance(self) -> str:
        """As `identity` of all that there is, without waiting for a call that is under way."""
        from icr_rag.model.fingerprint import weights_identity

        return weights_identity(self.decoder if self.causal is None else self.causal)

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Hold the lock, and look once inside the block whether the weights have changed."""
        with self.lock:
            outer = self._settled
            self._settled = self.identity()
            try:
                yield
            finally:
                self._settled = outer

    def fingerprint(self, layers: int) -> str:
        """Digest of the weights as they are now; read again only after a change."""
        from icr_rag.model.fingerprint import weights_fingerprint

        with self.lock:
            self.identity()
            if layers not in self._fingerprints:
                self._fingerprints[layers] = weights_fingerprint(self.decoder, layers)
            return self._fingerprints[layers]


def default_chunk(decoder: Any) -> int:
    """Prefix tokens run at once.

    The more, the fewer tokens are attended in vain above the diagonal; the bound is the memory
    of the largest activation, the MLP's, of which about three are alive at once.
    """
    parameter = next(decoder.parameters())
    budget = 3 * 2**22 if parameter.device.type == "cpu" else 2**27  # elements
    config = decoder.config
    inner = getattr(config, "intermediate_size", None) or 0
    # One number, or one per layer.
    widest = max([*inner] if isinstance(inner, (list, tuple)) else [inner])
    widest = max(widest, 4 * config.hidden_size)
    chunk: int = max(256, min(4096, budget // (3 * widest)))
    return chunk
