"""What is asked of objects of transformers, as types. Nothing of it is imported to run."""

from __future__ import annotations

from typing import Protocol


class TextConfig(Protocol):
    """A transformers configuration of a decoder, as far as every model has it."""

    model_type: str
    num_hidden_layers: int
    hidden_size: int
    num_attention_heads: int
