"""Install torch into the running interpreter's environment, as a CPU build where that will do.

PyPI's Linux wheel of torch brings several gigabytes of CUDA libraries. A machine without a GPU
has no use for them, so that there the first of these that works is taken:

1. torch is installed already: nothing to do, whatever build it is.
2. macOS, Windows, or a working ``nvidia-smi``: the ordinary wheel from the package index.
3. A ``+cpu`` wheel at hand: in a folder of pip's ``find-links`` or ``PIP_FIND_LINKS``.
4. PyTorch's own index of CPU builds.

If none works, this stops and says what to do. It never falls back to the CUDA build.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys

REQUIREMENT = "torch>=2.4"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def main() -> int:
    """Install torch; 0 if it is there afterwards."""
    if importlib.util.find_spec("torch") is not None:
        return 0
    if sys.platform != "linux" or has_gpu():
        say("installing torch from the package index")
        return pip("install", REQUIREMENT)

    local = f"{REQUIREMENT},=={newest_local_cpu_build()}" if newest_local_cpu_build() else None
    if local is not None:
        say(f"installing the CPU build of torch that is at hand ({local})")
        # Its dependencies are pure Python and come with the project's own.
        if pip("install", "--no-index", "--no-deps", local) == 0:
            return 0
    say(f"installing the CPU build of torch from {CPU_INDEX}")
    return 0
