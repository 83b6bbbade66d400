"""What weights are these? A cheap answer at each call, and a digest when it has changed."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import nn

from icr_rag.model.view import decoder_layers

#: Values of each tensor that go into the digest as they are, and that are looked at each call.
_SAMPLE, _GLANCE = 256, 8

_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

#: What every module keeps for itself, and no output depends on.
_BOOKKEEPING = frozenset(vars(nn.Module())) | {"training"}


def weights_identity(decoder: nn.Module) -> str:
    """Changes whenever an output of ``decoder`` may have changed; costs a few milliseconds.

    Of every tensor, wherever a module keeps it, the place, the version that torch counts up with
    each change in place, and a few values, because changes through ``.data`` are not counted; of
    every module its plain attributes, which say what adapters are active, how strongly, and
    whether they are merged or disabled.

    It holds within one process; `weights_fingerprint` is what is written to disk.
    """
    digest = hashlib.blake2b(digest_size=16)
    glances: defaultdict[tuple[torch.dtype, torch.device], list[torch.Tensor]] = defaultdict(list)
    for name, module in decoder.named_modules():
        digest.update(f"{name}:{type(module).__qualname__}:{_plain(vars(module))};".encode())
        for own, tensor in _tensors(module):
            digest.update(f"{own} {_place(tensor)};".encode())
            values = _glance(tensor)
            if values is not None:
                glances[values.dtype, values.device].append(values)
    for parts in glances.values():
        digest.update(_bits(torch.cat(parts)).cpu().numpy().tobytes())
    return digest.hexdigest()


def _tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The module's own tensors: parameters, buffers, and what it keeps as plain attributes."""
    moving = _rescales(module)
    for name, tensor in (*module._parameters.items(), *module._buffers.items()):
        if tensor is not None and not (moving and name in module._non_persistent_buffers_set):
            yield name, tensor
    for name, value in vars(module).items():
        if isinstance(value, torch.Tensor) and not moving:
            yield name, value
        elif isinstance(value, dict) and name not in _BOOKKEEPING:
            yield from ((f"{name}.{k}", v) for k, v in value.items() if isinstance(v, torch.Tensor))


def _rescales(module: nn.Module) -> bool:
    """Rotary embeddings that choose their factors anew in each pass: nothing kept depends on what
    the last pass chose."""
    kinds = vars(module).get("rope_type")
    kinds = kinds.values() if isinstance(kinds, dict) else [kinds]
    return any(kind in ("longrope", "dynamic") for kind in kinds)


def _place(tensor: torch.Tensor) -> str:
    if tensor.is_meta:
        return f"meta {tuple(tensor.shape)}"
    # Tensors made in inference mode have no version; then every value is looked at.
    version = _sum(tensor) if tensor.is_inference() else tensor._version
    return f"{tensor.data_ptr()} {version} {tensor.device}"


def _glance(tensor: torch.Tensor) -> torch.Tensor | None:
    if tensor.is_meta or not tensor.numel() or not tensor.is_contiguous():
        return None
    flat = tensor.detach().view(-1)
    return flat[:: max(1, flat.numel() // _GLANCE)]


def _plain(attributes: dict[str, Any]) -> str:
    """Plain attributes, nested ones included, as text."""
    found = {
        name: _in_order(value)
        for name, value in attributes.items()
        if name not in _BOOKKEEPING and _is_plain(value)
    }
    return repr(found)


def _in_order(value: Any) -> Any:
    """Sets come in another order in each process."""
    return sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value


def _is_plain(value: Any) -> bool:
    if value is None or isinstance(value, (bool, int, float, str)):
        return True
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_plain, value))
    return isinstance(value, dict) and all(map(_is_plain, value.values()))


def weights_fingerprint(decoder: nn.Module, layers: int) -> str:
    """Digest of a decoder's configuration and of its weights up to a layer.

    Of each tensor the shape, the type, the exact sum of its bits as whole numbers, and a sample of
    values; of each module its plain attributes: states stored for other weights (another revision,
    a fine-tuned copy under the same name, a merged or active adapter) are never taken for these.
    It is no defence against weights that someone has built to collide. Costs one reading of the
    weights.

    Args:
        decoder: as `icr_rag.model.view.find_decoder` gives it.
        layers: how many of its layers count.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(_configured(decoder))
    stack = list(decoder_layers(decoder))
    lower = {id(module) for layer in stack[:layers] for module in layer.modules()}
    upper = {id(module) for layer in stack[layers:] for module in layer.modules()} - lower
    _take_in(digest, decoder, upper)
    return digest.hexdigest()


def head_fingerprint(causal: nn.Module, decoder: nn.Module) -> str:
    """As `weights_fingerprint`, of what a whole model has beside its decoder: the LM head.

    Args:
        causal: the model around the decoder.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(_configured(causal))
    _take_in(digest, causal, {id(module) for module in decoder.modules()})
    return digest.hexdigest()


def _configured(module: nn.Module) -> bytes:
    config: Any = module.config
    told = {k: v for k, v in config.to_dict().items() if k != "num_hidden_layers"}
    return json.dumps(told, sort_keys=True, default=str).encode()


def _take_in(digest: hashlib.blake2b, whole: nn.Module, without: Collection[int]) -> None:
    """Add the modules of a model but those with these ids."""
    for name, module in sorted(whole.named_modules()):
        if id(module) in without:
            continue
        digest.update(f"{name} {_plain(vars(module))}".encode())
        for own, tensor in _tensors(module):
            digest.update(f"{own} {tuple(tensor.shape)} {tensor.dtype}".encode())
            if not tensor.numel() or tensor.is_meta:
                continue
            bits = _bits(tensor)
            digest.update(str(int(bits.sum(dtype=torch.int64))).encode())
            step = max(1, bits.numel() // _SAMPLE)
            digest.update(bits[::step].cpu().numpy().tobytes())


def _sum(tensor: torch.Tensor) -> int:
    return int(_bits(tensor).sum(dtype=torch.int64)) if tensor.numel() else 0


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    values = tensor.detach().contiguous().view(-1)
    if values.dtype == torch.bool:
        return values.to(torch.uint8)
    if values.is_complex():
        values = torch.view_as_real(values).contiguous().view(-1)
    return values.view(_WHOLE[values.element_size()])
