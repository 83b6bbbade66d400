"""Masks in the forms in which models give them, and keys that a layer selects for each row."""

from __future__ import annotations

import pytest
import torch
from architectures import names, tiny_causal_lm, tiny_config
from hypothesis import given
from hypothesis import strategies as st

from icr_rag.errors import UnsupportedModelError
from icr_rag.model.masks import selected_alone, visible
from icr_rag.model.proof import prove

SPARSE = [
    name
    for name in ("deepseek_v32", "glm_moe_dsa", "hy_v4", "axk2", "dots3_note_text")
    if name in names()
]


@given(
    tokens=st.integers(1, 12),
    rows=st.integers(1, 5),
    data=st.data(),
)
def test_a_row_sees_what_it_may_and_has_selected(tokens, rows, data):
    seen = [[data.draw(st.booleans()) for _ in range(tokens)] for _ in range(rows)]
    count = data.draw(st.integers(1, tokens))
    chosen = [data.draw(st.permutations(range(tokens)))[:count] for _ in range(rows)]
    mask = torch.tensor(seen)[None, None]
    settings = {"indices": torch.tensor(chosen, dtype=torch.int32)[None], "scaling": 0.5}
    found = selected_alone(torch.nn.Linear(1, 1), mask, settings, tokens)
    assert settings == {"scaling": 0.5}
    wanted = [
        [seen[row][token] and token in chosen[row] for token in range(tokens)]
        for row in range(rows)
    ]
    assert found[0, 0].tolist() == wanted


def test_without_a_selection_the_mask_stays_itself():
    mask = torch.ones(1, 1, 2, 3, dtype=torch.bool)
    settings = {"indices": None, "position_ids": torch.arange(2), "softcap": 3.0}
    assert selected_alone(torch.nn.Linear(1, 1), mask, settings, 3) is mask


@pytest.mark.parametrize("name", ["block_indices", "position_bias", "something_new"])
def test_what_else_may_decide_who_sees_whom_is_refused(name):
    with pytest.raises(UnsupportedModelError, match=f"hands {name!r} to its attention"):
        selected_alone(torch.nn.Linear(1, 1), None, {name: torch.zeros(1)}, 1)


def test_a_selection_without_a_mask_is_refused():
    settings = {"indices": torch.zeros(1, 1, 1)}
    with pytest.raises(UnsupportedModelError, match="no attention mask"):
        selected_alone(torch.nn.Linear(1, 1), None, settings, 1)


def test_additive_masks_that_only_hide_are_bool_masks():
    mask = torch.tensor([[0.0, -3e38], [0.0, 0.0]])
    assert visible(torch.nn.Linear(1, 1), mask).tolist() == [[True, False], [True, True]]
    with pytest.raises(UnsupportedModelError, match="adds a bias"):
        visible(torch.nn.Linear(1, 1), mask + 0.5)


@pytest.mark.parametrize("name", SPARSE)
def test_sparse_attention_is_proven_where_it_is_sparse(name):
    assert tiny_config(name).index_topk < 23  # tokens of the proof
    model = tiny_causal_lm(name)
    assert prove(model, 4, "sdpa", whole=True).attention_layers == {0, 1, 2, 3}


@pytest.mark.parametrize("name", SPARSE)
def test_a_lost_selection_is_found_by_the_proof(name, monkeypatch):
    from icr_rag.model import tap

    monkeypatch.setattr(tap, "selected_alone", lambda module, mask, settings, tokens: mask)
    with pytest.raises(UnsupportedModelError, match="scores would be wrong"):
        prove(tiny_causal_lm(name), 4, "sdpa", whole=True)


@pytest.mark.skipif("minimax_m3_vl_text" not in names(), reason="not in this version")
def test_blocks_selected_head_by_head_are_refused():
    with pytest.raises(UnsupportedModelError, match="'block_indices'"):
        prove(tiny_causal_lm("minimax_m3_vl_text"), 4, "sdpa", whole=True)
