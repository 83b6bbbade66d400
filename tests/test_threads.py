"""How many cores there are to use: both versions of control groups, affinity, advice."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_rag.model import threads
from icr_rag.model.threads import Cores, advice, cores, cpu_quota, usable_cores


def machine(root, membership, files):
    """A root folder with /proc/self/cgroup and files under /sys/fs/cgroup."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "cgroup").write_text(membership)
    for name, text in files.items():
        path = root / "sys" / "fs" / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V1_HALF = {"cpu.cfs_quota_us": "50000\n", "cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        # Version 2.
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2.0),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {}, None),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "300000 100000", "a/cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "50000 100000", "a/cpu.max": "150000 100000"}, 0.5),
        # Of a group that the process is not in.
        ("0::/a\n", {"b/cpu.max": "100000 100000", "a/c/cpu.max": "100000 100000"}, None),
        # The host's path, seen from inside a container; a path out of the namespace.
        ("0::/docker/4f\n", {"cpu.max": "400000 100000"}, 4.0),
        ("0::/../other\n", {"cpu.max": "400000 100000"}, 4.0),
        # Version 1, under both names of its mount, and beside version 2.
        ("3:cpu,cpuacct:/a\n", {f"cpu,cpuacct/a/{k}": v for k, v in V1_HALF.items()}, 0.5),
        ("3:cpu,cpuacct:/a\n", {f"cpu/a/{k}": v for k, v in V1_HALF.items()}, 0.5),
        ("1:cpu:/docker/4f\n0::/\n", {f"cpu/{k}": v for k, v in V1_HALF.items()}, 0.5),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "50000"}, None),
        ("2:cpuset:/\n3:cpuacct:/\n", {f"cpuset/{k}": v for k, v in V1_HALF.items()}, None),
        # What nobody should write.
        ("", {"cpu.max": "100000 100000"}, None),
        ("nonsense\n\n0::/\n", {"cpu.max": "100000 0"}, None),
        ("0::/\n", {"cpu.max": "\n"}, None),
        ("0::/\n", {"cpu.max": "a b c"}, None),
    ],
)
def test_the_strictest_group_around_the_process(tmp_path, membership, files, quota):
    assert cpu_quota(machine(tmp_path, membership, files)) == quota


def test_without_control_groups_there_is_no_quota(tmp_path):
    assert cpu_quota(tmp_path) is None
    assert usable_cores(tmp_path) == cores(tmp_path).allowed


@given(
    st.integers(1, 256),
    st.integers(1, 256),
    st.none() | st.floats(0.01, 300),
    st.integers(1, 300),
)
def test_advice_is_given_where_threads_do_not_fit(visible, allowed, quota, used):
    limits = Cores(visible, min(visible, allowed), quota)
    usable = limits.usable
    assert 1 <= usable <= limits.allowed
    assert quota is None or usable <= max(1, quota)
    # One more would be too many.
    assert usable + 1 > min(limits.allowed, math.inf if quota is None else max(1, quota))
    told = advice(used, limits)
    assert (told is None) == (used <= usable)
    if told is not None:
        for part in (f"uses {used} threads", f"OMP_NUM_THREADS={usable} ", str(visible)):
            assert part in told
        assert f"torch.set_num_threads({usable})" in told


def test_this_process(tmp_path, monkeypatch):
    limits = cores(machine(tmp_path, "0::/\n", {"cpu.max": "100000 100000"}))
    assert limits.visible == os.cpu_count()
    assert limits.quota == limits.usable == 1
    monkeypatch.setattr(threads, "cores", lambda: Cores(8, 4, None))
    assert advice(4) is None
    assert "4 of the cores (8 visible, 4 allowed by affinity, no quota)" in advice(5)


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")
def test_affinity_counts():
    script = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); import sys; "
        "from icr_rag.model.threads import usable_cores; "
        "print(usable_cores(), 'torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["1", "False"]
