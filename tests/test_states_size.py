"""What doctor says of kept states is what a store holds."""

from __future__ import annotations

import pytest
from test_document_states import reranker

from icr_rag.states.size import bytes_per_token

CONTENT = "some words of no meaning " * 9
WAYS = [
    {"document_states": "independent", "framework": "listwise", "layers": (1, 2)},
    {"document_states": "independent", "framework": "pointwise", "layers": (1, 2)},
    {"document_states": "independent", "scoring": "likelihood"},
    {"document_states": "independent", "scoring": "mixed"},
    {"document_states": "blind", "layers": (1, 2)},
    {"document_states": "blind", "heads": ((0, 1), (3, 0)), "reading": "log_mass"},
]


@pytest.mark.parametrize("name", ["llama", "gemma3"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stored", ["same", "float16", "int8"])
def test_size_of_a_token(name, way, stored):
    keeping = reranker(name, **way, states_dtype=stored)
    keeping.encode([CONTENT])
    scorer = keeping.scorer
    (held,) = scorer.states.store._held.values()
    tokens = held["k.0"].shape[-2]
    key_scales = sum(t.nbytes for n, t in held.items() if n.startswith("k.") and "scale" in n)
    selection = getattr(scorer, "selection", None)
    heads = {} if selection is None else selection.heads
    expected = bytes_per_token(keeping.config, scorer.engine.text_config, heads, 4)
    assert scorer.states.store.held_bytes - key_scales == tokens * expected
