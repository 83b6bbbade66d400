"""What weights are these? A digest that changes when any of them does."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import nn

#: Values of each tensor that go into the digest as they are.
_SAMPLE = 256


def weights_fingerprint(decoder: nn.Module, layers: int) -> str:
    """Digest of a decoder's configuration and of its weights up to a layer.

    Of each tensor the shape, the type, the exact sum of its bits as whole numbers, and a sample of
    values: states stored for other weights (another revision, a fine-tuned copy under the same
    name, a merged adapter) are never taken for these. It is no defence against weights that
    someone has built to collide. Costs one reading of the weights.

    Args:
        decoder: as `icr_rag.model.view.find_decoder` gives it.
        layers: how many of its layers count.
    """
    config: Any = decoder.config
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps(config.to_dict(), sort_keys=True, default=str).encode())
    from icr_rag.model.view import decoder_layers

    upper = {
        id(parameter)
        for layer in list(decoder_layers(decoder))[layers:]
        for parameter in layer.parameters()
    }
    for name, parameter in sorted(decoder.named_parameters()):
        if id(parameter) in upper:
            continue
        values = parameter.detach().contiguous().view(-1)
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        if not values.numel() or values.is_meta:
            continue
        bits = values.view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[
            values.element_size()
        ])  # fmt: skip
        digest.update(str(int(bits.sum(dtype=torch.int64))).encode())
        step = max(1, bits.numel() // _SAMPLE)
        digest.update(bits[::step].cpu().numpy().tobytes())
    return digest.hexdigest()
