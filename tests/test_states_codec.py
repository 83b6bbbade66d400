"""Number formats of kept states: bounded loss, and nothing that was a number is lost."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from icr_rag.states.codec import DTYPES, decode, encode

NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)
ANYTHING = st.one_of(NUMBERS, st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0]))


@st.composite
def tensors(draw, numbers):
    """[key/value head, token, dimension], whole or a view with gaps or swapped axes."""
    shape = [draw(st.integers(1, 3)), draw(st.integers(0, 5)), draw(st.integers(1, 4))]
    size = math.prod(shape)
    flat = torch.tensor(draw(st.lists(numbers, min_size=size, max_size=size)))
    form = draw(st.sampled_from(["whole", "every other token", "swapped"]))
    plain = flat.reshape(shape)
    if form == "every other token":
        return plain.repeat_interleave(2, dim=1)[:, ::2]
    if form == "swapped":
        return plain.transpose(0, 1).contiguous().transpose(0, 1)
    return plain


def there_and_back(tensor, dtype, kind="k"):
    return decode(encode({f"{kind}.0": tensor}, dtype), tensor.dtype)[f"{kind}.0"]


@settings(max_examples=100)
@given(tensors(ANYTHING), st.sampled_from(DTYPES), st.sampled_from("kv"))
def test_shape_type_and_whatever_is_no_number_come_back(tensor, dtype, kind):
    before = tensor.clone()
    found = there_and_back(tensor, dtype, kind)
    assert found.shape == tensor.shape
    assert found.dtype == tensor.dtype
    assert torch.equal(found.isnan(), tensor.isnan())
    assert torch.equal(found.isinf(), tensor.isinf())
    assert torch.equal(tensor.nan_to_num(), before.nan_to_num())
    if dtype == "same":
        assert torch.equal(found.view(torch.int32), tensor.contiguous().view(torch.int32))


@settings(max_examples=100)
@given(tensors(NUMBERS), st.sampled_from("kv"))
@example(torch.tensor([[[2.2068e-38]]]), "k")  # its scale would be no normal number
@example(torch.tensor([[[7.4e-37]]]), "v")
def test_the_loss_is_bounded(tensor, kind):
    whole = tensor.double()
    for dtype, relative, smallest in (("float16", 2**-11, 2**-25), ("bfloat16", 2**-8, 0.0)):
        error = (there_and_back(tensor, dtype, kind).double() - whole).abs()
        assert bool((error <= relative * whole.abs() + smallest).all())
    if tensor.numel():
        largest = whole.abs().amax(dim=-2 if kind == "k" else -1, keepdim=True)
        error = (there_and_back(tensor, "int8", kind).double() - whole).abs()
        # Half a step; the product of scale and whole number is rounded once more.
        assert bool((error <= largest / 127 * 0.5001 + 2e-38).all())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8"])
@pytest.mark.parametrize("special", [math.nan, math.inf])
def test_one_bad_number_spoils_no_other(dtype, special):
    tensor = torch.ones(1, 4, 4)
    tensor[0, 1, 2] = special
    found = there_and_back(tensor, dtype)
    assert int(found.isfinite().sum()) == 15


def test_what_bfloat16_cannot_hold_is_kept_whole():
    large = torch.full((1, 1, 1), 3.4e38)
    assert torch.equal(there_and_back(large, "bfloat16"), large)
