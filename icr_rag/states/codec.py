"""Number formats of kept states: as they are, in half precision, or in 8 bits.

8 bits follow KIVI (arXiv 2402.02750, section 3): keys have outliers in single channels, so that
each channel of a key has its own scale over the document's tokens; values have none, and each
token of a value has its own. Symmetric, without an offset; what the scale loses is measured in
docs/states.md.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

#: Storage types; "same" is the type of the weights.
DTYPES = ("same", "float16", "bfloat16", "int8")

_LARGEST = 127.0


def encode(tensors: Mapping[str, torch.Tensor], dtype: str) -> dict[str, torch.Tensor]:
    """Tensors as they are stored.

    Args:
        tensors: "k.0", "v.0", ...: [key/value head, token, dimension].
        dtype: one of `DTYPES`. A tensor that it cannot hold is stored as it is: numbers out of
            range, with "int8" any NaN or infinity, which would spoil a whole channel.

    Returns:
        The tensors, contiguous; with "int8" also their scales, "k.0.scale".
    """
    result: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if dtype == "same":
            result[name] = tensor.contiguous()
        elif dtype == "int8":
            if not tensor.numel():
                result[name] = tensor.contiguous()
                continue
            # Over the tokens of a channel, or over the channels of a token.
            over = -2 if name.startswith("k.") else -1
            # A scale below the normal numbers would be rounded, or flushed to zero by the device.
            scale = tensor.float().abs().amax(dim=over, keepdim=True) / _LARGEST
            scale = scale.clamp_min(torch.finfo(torch.float32).tiny)
            # What a scale multiplies back to: NaN and infinity show here, and so does an overflow.
            if not bool((scale * _LARGEST).isfinite().all()):
                result[name] = tensor.contiguous()
                continue
            whole = (tensor.float() / scale).round()
            result[name] = whole.clamp(-_LARGEST, _LARGEST).to(torch.int8).contiguous()
            result[f"{name}.scale"] = scale.contiguous()
        else:
            target: torch.dtype = getattr(torch, dtype)
            half = tensor.to(target)
            # Numbers just above the largest are rounded down to it; bfloat16 has an end as well.
            fits = bool(half.isfinite().all())
            result[name] = (half if fits else tensor).contiguous()
    return result


def decode(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Stored tensors in the type of the weights."""
    result = {}
    for name, tensor in tensors.items():
        if name.endswith(".scale"):
            continue
        scale = tensors.get(f"{name}.scale")
        restored = tensor.float() * scale if scale is not None else tensor
        result[name] = restored.to(dtype)
    return result
