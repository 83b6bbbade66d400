"""How many cores this process may use, and whether torch's threads fit on them.

torch starts one thread per core that it sees. Where a container's quota or other processes leave
fewer, threads wait for each other at every matrix product and burn the quota while they wait. The
number of threads is the process's own affair: here is advice, and nothing is set.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

#: Where the kernel tells about a process and mounts its control groups.
_ROOT = Path("/")


@dataclass(frozen=True)
class Cores:
    """What limits this process.

    Attributes:
        visible: cores of the machine.
        allowed: those that the process may run on: its affinity, or a cpuset.
        quota: seconds of processor time per second, of the strictest control group; None: no limit.
    """

    visible: int
    allowed: int
    quota: float | None

    @property
    def usable(self) -> int:
        """How many threads can run at a time without being held back; at least 1."""
        if self.quota is None:
            return self.allowed
        return max(1, min(self.allowed, int(self.quota)))

    def __str__(self) -> str:
        parts = [f"{self.visible} visible"]
        if self.allowed != self.visible:
            parts.append(f"{self.allowed} allowed by affinity")
        parts.append("no quota" if self.quota is None else f"a quota of {self.quota:g}")
        return ", ".join(parts)


def cores(root: Path = _ROOT) -> Cores:
    """What this process has; ``root`` stands in for / where the control groups are read."""
    visible = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else visible
    return Cores(visible, allowed, cpu_quota(root))


def usable_cores(root: Path = _ROOT) -> int:
    """How many threads of this process can run at a time; at least 1."""
    return cores(root).usable


def advice(torch_threads: int, limits: Cores | None = None) -> str | None:
    """What to do about too many threads; None where they fit.

    Args:
        torch_threads: ``torch.get_num_threads()``.
        limits: None: this process's.
    """
    limits = cores() if limits is None else limits
    usable = limits.usable
    if torch_threads <= usable:
        return None
    return (
        f"torch uses {torch_threads} threads, but this process can use {usable} of the cores "
        f"({limits}), and threads that wait for each other make ranking slow. Set "
        f"OMP_NUM_THREADS={usable} before Python starts, or call torch.set_num_threads({usable})"
    )


def cpu_quota(root: Path = _ROOT) -> float | None:
    """The least quota of the control groups around this process, in cores; None: no limit.

    Args:
        root: stands in for /: proc/self/cgroup and sys/fs/cgroup are read in it.
    """
    return min(_quotas(root), default=None)


def _quotas(root: Path) -> Iterator[float]:
    """The quotas of all groups that hold the process, of both versions of control groups."""
    mounts = root / "sys" / "fs" / "cgroup"
    for line in _read(root / "proc" / "self" / "cgroup").splitlines():
        # hierarchy:controllers:path; version 2 has no controllers there.
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            for group in _groups(mounts, path):
                yield from _quota(_read(group / "cpu.max").split())
        elif "cpu" in controllers.split(","):
            for mount in {controllers, "cpu"}:
                for group in _groups(mounts / mount, path):
                    quota = _read(group / "cpu.cfs_quota_us").split()
                    yield from _quota(quota + _read(group / "cpu.cfs_period_us").split())


def _groups(mount: Path, path: str) -> Iterator[Path]:
    """The folders of a group and of all around it.

    In a container the path may be the host's, which is not there; what is mounted at the top is
    then the container's own group.
    """
    inside = PurePosixPath("/") / path
    if ".." not in inside.parts:
        for group in (inside, *inside.parents):
            yield mount / group.relative_to("/")
    else:
        yield mount


def _quota(numbers: list[str]) -> Iterator[float]:
    """From microseconds allowed and the period; nothing for "max" and -1, which are no limit."""
    if len(numbers) == 2 and all(number.isdecimal() for number in numbers):
        allowed, period = map(int, numbers)
        if allowed > 0 and period > 0:
            yield allowed / period


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
