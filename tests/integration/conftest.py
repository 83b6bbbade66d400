"""Fixtures of the integration tests."""

from __future__ import annotations

import pytest
from tiny import byte_tokenizer, tiny_model


@pytest.fixture(scope="session")
def tiny_reranker():
    """One engine with random weights for all components."""
    from icr_rag import Reranker

    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), layers=(1, 2))


@pytest.fixture(scope="session")
def cross_encoder_folder(tmp_path_factory):
    """A tiny BERT with random weights, as sentence-transformers saves a cross-encoder."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
    words += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    (folder / "vocab.txt").write_text("\n".join(words))
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, num_labels=1,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    target = tmp_path_factory.mktemp("cross")
    sentence_transformers.CrossEncoder(str(folder), device="cpu").save_pretrained(str(target))
    return str(target)
