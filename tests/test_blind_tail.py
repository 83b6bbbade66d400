"""A tail that never sees the documents reads what a masked pass over all of them reads."""

from __future__ import annotations

import pytest
import torch
from test_document_states import DOCUMENTS, QUERY, reranker
from tiny import FAMILIES

from icr_rag import RerankerConfig
from icr_rag.errors import ConfigError
from icr_rag.model import tap
from icr_rag.model.reading import DocumentReader, TokenReader
from icr_rag.states.blind_tail import run_blind_tail
from icr_rag.states.shared_tail import run_shared_tail

BLIND = {"document_states": "blind", "framework": "listwise", "fusion": "none"}
SOME = {"heads": ((1, 0), (2, 3), (3, 1)), "reading": "log_mass"}


def prompt_of(scorer, documents):
    prompts = scorer.prompts
    ids = prompts.encode_documents(documents)
    return prompts.build_independent([prompts.encode_query(QUERY)], ids)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("fields", [{"layers": (1, 3)}, SOME])
def test_equals_a_pass_over_everything_with_the_documents_hidden(name, fields, monkeypatch):
    blind = reranker(name, **BLIND, **fields).scorer
    full = reranker(name, **{**BLIND, **fields, "document_states": "independent"}).scorer
    prompt = prompt_of(blind, DOCUMENTS)
    heads, layers = blind.selection.heads, blind.layers
    found = [TokenReader(heads), DocumentReader(heads, [prompt.spans])]
    for reader in found:
        run_blind_tail(blind.engine, blind.states, prompt, layers, reader)

    kernel = tap._kernel

    def hide(current):
        plain = kernel(current)

        def run(module, query, key, value, mask, **kwargs):
            if current.reader is not None:
                mask = mask.clone()
                mask[..., len(prompt.head_ids) : prompt.length] = False
            return plain(module, query, key, value, mask, **kwargs)

        return run

    monkeypatch.setattr(tap, "_kernel", hide)
    expected = [TokenReader(heads), DocumentReader(heads, [prompt.spans])]
    for reader in expected:
        run_shared_tail(full.engine, full.states, prompt, layers, reader)
    for one, other in zip(found, expected, strict=True):
        for layer in layers:
            for a, b in zip(one.readings[layer], other.readings[layer], strict=True):
                torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_only_keys_that_are_read_are_kept():
    scorer = reranker(**BLIND, **SOME).scorer
    scorer.states.encode(scorer.bodies(scorer.prompts.encode_documents(["abc def"])))
    (kept,) = scorer.states.store._held.values()
    # Three layers, one of the two key/value heads of each.
    shapes = {name: tuple(tensor.shape[:1]) for name, tensor in kept.items() if name != "type"}
    assert shapes == {"k.0": (1,), "k.1": (1,), "k.2": (1,)}


def test_the_query_costs_its_own_tokens_and_order_changes_nothing():
    keeping = reranker(**BLIND, layers=(1, 2))
    done = keeping.encode(DOCUMENTS)
    first = keeping.rank(QUERY, DOCUMENTS)
    again = keeping.rank(QUERY, DOCUMENTS[::-1])
    assert again.scores == first.scores[::-1]
    assert first.usage.tokens == again.usage.tokens
    fresh = reranker(**BLIND, layers=(1, 2)).rank(QUERY, DOCUMENTS)
    assert fresh.scores == first.scores
    assert fresh.usage.tokens == first.usage.tokens + done.tokens


@pytest.mark.parametrize(
    "fields",
    [{"scoring": "likelihood"}, {"framework": "pointwise"}, {"scoring": "mixed"}],
)
def test_what_a_blind_tail_cannot_read(fields):
    with pytest.raises(ConfigError, match=r"it goes with attention \(listwise\)"):
        RerankerConfig(document_states="blind", **fields)
