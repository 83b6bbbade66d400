"""Which device a model runs on, and in which number format."""

from __future__ import annotations

import functools
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from icr_rag.errors import ConfigError

if TYPE_CHECKING:
    import torch


def resolve_device(name: str) -> str:
    """The device that ``name`` stands for; "auto" takes an accelerator where there is one.

    Raises:
        ConfigError: if the device named is not on this machine.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return "cuda:0"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    if name.startswith("cuda"):
        count = torch.cuda.device_count()
        number = int(name.partition(":")[2] or 0)
        if number >= count:
            raise ConfigError(
                f"device={name!r}, but torch {torch.__version__} sees {count} CUDA device(s) here; "
                "use device='auto' or 'cpu', or install a CUDA build of torch"
            )
        return f"cuda:{number}"
    if name == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device='mps', but this machine has no Metal device; use device='auto'")
    return name


#: How many times faster a bare layer must be in bfloat16 on a CPU for it to be chosen. A whole
#: model gains about half as much, and the choice must not flip with the noise of a measurement.
_WORTH_ROUNDING = 3.0


@dataclass(frozen=True)
class DtypeChoice:
    """A number format by its torch name ("float32", "bfloat16", ...) and why it was chosen."""

    dtype: str
    reason: str

    @property
    def torch_dtype(self) -> torch.dtype:
        """The same as torch names it."""
        import torch

        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype


def choose_dtype(device: str, requested: str, checkpoint_dtype: str | None) -> DtypeChoice:
    """Choose the format of the weights.

    Args:
        device: as `resolve_device` gives it.
        requested: "auto" or the name of a torch dtype, which is then taken.
        checkpoint_dtype: what the checkpoint is stored in, if it says so.
    """
    if requested != "auto":
        return DtypeChoice(requested, "set by the user")
    if device == "cpu":
        # Processors differ: with matrix units for bfloat16 it is several times faster, without
        # them slower than float32. So it is measured, once per process.
        seconds = measure_layer_seconds()
        ratio = seconds["float32"] / seconds["bfloat16"]
        text = f"a small layer takes {ratio:.1f} times as long in float32 as in bfloat16 here"
        # bfloat16 rounds scores in the third digit, which can change the order of near ties.
        if ratio >= _WORTH_ROUNDING:
            return DtypeChoice("bfloat16", f"measured on this CPU: {text}")
        return DtypeChoice(
            "float32", f"measured on this CPU: {text}, less than {_WORTH_ROUNDING:.0f}"
        )
    if checkpoint_dtype is not None:
        return DtypeChoice(checkpoint_dtype, "the checkpoint's own")
    return DtypeChoice("bfloat16" if device != "mps" else "float16", "usual for this device")


@functools.lru_cache(maxsize=1)
def measure_layer_seconds() -> dict[str, float]:
    """Seconds that a small decoder layer takes on this CPU per dtype (about 0.4 s in all).

    Whole layers and not matrix products alone: attention and the element-wise operations between
    the products gain much less from bfloat16 than the products do.
    """
    import torch
    from torch.nn import functional

    tokens, width, heads = 512, 768, 12
    seconds = {}
    for name in ("float32", "bfloat16"):
        dtype = getattr(torch, name)
        hidden = torch.full((1, tokens, width), 0.5, dtype=dtype)
        square = torch.full((width, width), 0.01, dtype=dtype)
        up = torch.full((4 * width, width), 0.01, dtype=dtype)
        down = torch.full((width, 4 * width), 0.01, dtype=dtype)
        runs = []
        with torch.inference_mode():
            for _ in range(5):
                start = time.perf_counter()
                parts = functional.linear(hidden, square).view(1, tokens, heads, -1).transpose(1, 2)
                mixed = functional.scaled_dot_product_attention(parts, parts, parts, is_causal=True)
                mixed = functional.linear(mixed.transpose(1, 2).reshape(hidden.shape), square)
                inner = functional.silu(functional.linear(hidden + mixed, up))
                functional.rms_norm(functional.linear(inner, down), (width,))
                runs.append(time.perf_counter() - start)
        # The first run pays for set-up.
        seconds[name] = statistics.median(runs[1:])
    return seconds


def release_cached_memory() -> None:
    """Give freed accelerator memory back to the device, if torch was ever imported."""
    import gc
    import sys

    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()
