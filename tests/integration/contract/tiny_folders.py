"""Folders with tiny models of random weights, for components that load a model by its path."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from tiny import VOCABULARY, byte_tokenizer, tiny_model


class Folders:
    """A causal model for our components and a cross-encoder for peers, saved on first use."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """Settings of a reranker on the tiny causal model."""
        folder = self.root / "causal"
        tiny_model("llama").save_pretrained(folder)
        byte_tokenizer().save_pretrained(folder)
        return {
            "model": str(folder),
            "layers": (1, 2),
            "device": "cpu",
            "dtype": "float32",
            "local_files_only": True,
        }

    @functools.cached_property
    def reranker(self) -> Any:
        """A loaded reranker with these settings; all others with them share its weights."""
        from icr_rag import Reranker

        return Reranker(**self.settings).warm_up()

    @functools.cached_property
    def cross_encoder(self) -> str:
        """The folder of a BERT classifier with one label."""
        import torch
        from transformers import BertConfig, BertForSequenceClassification

        folder = self.root / "cross_encoder"
        config = BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=48,
            max_position_embeddings=520,
            num_labels=1,
            pad_token_id=0,
            # Large weights keep the scores of different documents apart.
            initializer_range=0.3,
        )
        torch.manual_seed(0)
        BertForSequenceClassification(config).save_pretrained(folder)
        tokenizer = byte_tokenizer(chat=False)
        tokenizer.model_max_length = 512
        tokenizer.save_pretrained(folder)
        return str(folder)
