"""What a model turned out to be when it was tried; see `icr_rag.model.proof`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from icr_rag.errors import UnsupportedModelError

#: How several tails follow one prefix:
#: - packed: side by side in one pass over the prefix's states, each hidden from the others;
#: - copied: each in a pass of its own over a copy of these states (layers that keep a recurrent
#:   state can not be packed or padded);
#: - whole: each with the prefix run again (nothing that is kept can be continued).
Way = Literal["packed", "copied", "whole"]


@dataclass(frozen=True)
class Anatomy:
    """What was found by running a model, and is true of each of its passes.

    Attributes:
        name: class of the model, for messages.
        way: how tails follow a prefix.
        attention_layers: layers whose softmax attention comes by the tap, of those that were run.
        own_keys: layers of these whose keys are, as they are attended to, in the cache: not those
            that share another layer's, nor those that keep a compressed form.
    """

    name: str
    way: Way
    attention_layers: frozenset[int]
    own_keys: frozenset[int]

    @property
    def own_attention(self) -> bool:
        """Whether no layer attends by transformers' attention interface."""
        return not self.attention_layers

    def expected(self, last: int | None) -> frozenset[int]:
        """Layers whose attention must come by in a pass that ends in layer ``last``."""
        if last is None:
            return self.attention_layers
        return frozenset(layer for layer in self.attention_layers if layer <= last)

    def check_readable(self, layers: Sequence[int]) -> None:
        """Raise `UnsupportedModelError` unless the attention of all these layers can be read."""
        if self.own_attention:
            raise UnsupportedModelError(
                f"{self.name} attends with code of its own, which does not go through "
                "transformers' attention interface or does not say in which layer it is, so that "
                "its attention cannot be read; use scoring='likelihood' or another model"
            )
        missing = sorted(set(layers) - self.attention_layers)
        if missing:
            raise UnsupportedModelError(
                f"layers {missing} of {self.name} have no softmax attention to read; choose "
                f"layers among {sorted(self.attention_layers)}"
            )

    def check_keeps_documents(self) -> None:
        """Raise `UnsupportedModelError` unless documents' states can be put together."""
        if self.way != "packed":
            raise UnsupportedModelError(
                f"{self.name} keeps more of a text than keys and values (a recurrent state), "
                "which cannot be put together from several documents; set document_states='joint'"
            )

    def check_own_keys(self, layers: Iterable[int]) -> None:
        """Raise `UnsupportedModelError` unless all these layers' keys can be kept by themselves."""
        missing = sorted(set(layers) - self.own_keys)
        if missing:
            raise UnsupportedModelError(
                f"layers {missing} of {self.name} keep no keys of their own (shared with another "
                "layer, or compressed), which document_states='blind' needs; set 'independent'"
            )
