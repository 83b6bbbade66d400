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
        rates = measure_matmul_rates()
        text = ", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in rates.items())
        # float32 is exact; bfloat16 must be clearly faster to be worth its rounding.
        faster = rates["bfloat16"] > 1.3 * rates["float32"]
        return DtypeChoice("bfloat16" if faster else "float32", f"measured on this CPU: {text}")
    if checkpoint_dtype is not None:
        return DtypeChoice(checkpoint_dtype, "the checkpoint's own")
    return DtypeChoice("bfloat16" if device != "mps" else "float16", "usual for this device")


@functools.lru_cache(maxsize=1)
def measure_matmul_rates() -> dict[str, float]:
    """Matrix-product rate of this CPU in GFLOP/s for float32 and bfloat16 (about 0.1 s)."""
    import torch

    rows, inner, columns = 512, 1024, 1024
    rates = {}
    for name in ("float32", "bfloat16"):
        left = torch.ones(rows, inner, dtype=getattr(torch, name))
        right = torch.ones(inner, columns, dtype=getattr(torch, name))
        seconds = []
        for _ in range(6):
            start = time.perf_counter()
            torch.mm(left, right)
            seconds.append(time.perf_counter() - start)
        # The first product pays for set-up.
        rates[name] = 2 * rows * inner * columns / statistics.median(seconds[1:]) / 1e9
    return rates
