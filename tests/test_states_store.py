"""The store of document states: what it gives back is right, or it gives back nothing."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from icr_rag.states import disk as disk_module
from icr_rag.states.codec import DTYPES, decode, encode
from icr_rag.states.store import StateStore, StoredStates, namespace, state_key


def states(seed=0, tokens=5, layers=3, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    keys = [torch.randn(2, tokens, 4, generator=generator).to(dtype) for _ in range(layers)]
    values = [torch.randn(2, tokens, 4, generator=generator).to(dtype) for _ in range(layers - 1)]
    return StoredStates(tuple(keys), tuple(values))


def same(first, second):
    return len(first.keys) == len(second.keys) and all(
        a.dtype == b.dtype and torch.equal(a, b)
        for a, b in zip(first.keys + first.values, second.keys + second.values, strict=True)
    )


def store(folder=None, **options):
    options = {"memory_bytes": 2**20, "folder": folder, **options}
    return StateStore("name", **options)


# --- number formats --------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens", [1, 7])
def test_formats_give_back_nearly_the_same_in_the_weights_type(weights, dtype, tokens):
    given_ = states(tokens=tokens, dtype=weights)
    tensors = {f"k.{i}": t for i, t in enumerate(given_.keys)}
    tensors |= {f"v.{i}": t for i, t in enumerate(given_.values)}
    found = decode(encode(tensors, dtype), weights)
    assert found.keys() == tensors.keys()
    tolerance = {"same": 0, "float16": 2e-3, "bfloat16": 2e-2, "int8": 4e-2}[dtype]
    for name, tensor in tensors.items():
        assert found[name].dtype == weights
        torch.testing.assert_close(found[name], tensor, atol=tolerance, rtol=tolerance)


def test_what_half_precision_cannot_hold_is_kept_whole():
    large = {"k.0": torch.tensor([[[1e6, 1.0]]])}
    assert encode(large, "float16")["k.0"].dtype == torch.float32
    zeros = {"v.0": torch.zeros(1, 3, 2)}
    assert torch.equal(decode(encode(zeros, "int8"), torch.float32)["v.0"], zeros["v.0"])


def test_int8_keeps_an_outlying_channel_from_spoiling_the_others():
    keys = torch.randn(1, 50, 8)
    keys[..., 3] *= 1000
    found = decode(encode({"k.0": keys}, "int8"), torch.float32)["k.0"]
    others = [0, 1, 2, 4, 5, 6, 7]
    assert (found - keys)[..., others].abs().max() < 0.02


# --- memory ----------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    budget=st.integers(0, 6),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 7)), max_size=40),
)
def test_the_least_recently_used_go_first(budget, steps):
    one = 4 * 2 * 5 * 4 * 5
    kept = store(memory_bytes=budget * one)
    obvious: list[str] = []
    for writes, number in steps:
        key = str(number)
        if writes:
            kept.put(key, states(number))
            obvious = [*(k for k in obvious if k != key), key][-budget:] if budget else []
        else:
            found = kept.get(key)
            assert (found is not None) == (key in obvious)
            if found is not None:
                assert same(found, states(number))
                obvious = [*(k for k in obvious if k != key), key]
    assert all((key in kept) == (key in obvious) for key in map(str, range(8)))
    assert kept.held_bytes <= budget * one


# --- disk ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_reloaded_states_are_the_same_bits(tmp_path, dtype):
    first = store(tmp_path, dtype=dtype)
    kept = first.put("abc", states())
    assert same(first.get("abc"), kept)
    again = store(tmp_path, dtype=dtype)
    assert "abc" in again
    assert same(again.get("abc"), kept)
    assert (again.stats.disk_hits, again.stats.memory_hits) == (1, 0)
    assert again.disk.size()[0] == 1
    if dtype == "same":
        assert same(kept, states())


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_files_are_never_believed(tmp_path, data):
    kept = store(tmp_path, memory_bytes=0)
    path = kept.disk.path("abc")
    kept.put("abc", states())
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(content))
    found = kept.get("abc")
    assert found is None or same(found, states())
    if found is None:
        assert not path.exists()
        assert same(kept.put("abc", states()), states())


def test_a_file_under_another_key_or_namespace_is_not_believed(tmp_path):
    kept = store(tmp_path, memory_bytes=0)
    kept.put("abc", states())
    other = kept.disk.path("abd")
    other.write_bytes(kept.disk.path("abc").read_bytes())
    assert kept.get("abd") is None
    moved = StateStore("else", memory_bytes=0, folder=tmp_path)
    moved.disk.path("abc").parent.mkdir(parents=True)
    moved.disk.path("abc").write_bytes(kept.disk.path("abc").read_bytes())
    assert moved.get("abc") is None


def test_a_full_disk_costs_nothing_but_the_file(tmp_path, monkeypatch, caplog, own_records):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk_module.os, "fsync", full)
    kept = store(tmp_path)
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            assert same(kept.put(str(number) * 3, states(number)), states(number))
    assert kept.disk.write_failures == 3
    assert len(own_records()) == 1
    assert [path for path in tmp_path.rglob("*") if path.suffix in (".tmp", ".safetensors")] == []
    assert same(kept.get("111"), states(1))


def test_folders_are_private_and_say_what_they_are(tmp_path):
    kept = StateStore("n", memory_bytes=0, folder=tmp_path, parts={"model": "m"})
    kept.put("abc", states())
    assert (tmp_path / "n").stat().st_mode & 0o077 == 0
    assert '"model": "m"' in (tmp_path / "n" / "namespace.json").read_text()


def test_what_killed_writers_left_is_removed(tmp_path):
    kept = store(tmp_path)
    kept.put("abc", states())
    stale = kept.disk.path("abc").with_name(".x.tmp")
    stale.write_bytes(b"half")
    os.utime(stale, (1, 1))
    kept.put("zzz", states())
    assert not stale.exists()


_WRITER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_states_store import states, store
kept = store(Path({folder!r}))
print("ready", flush=True)
for number in range({begin}, {begin} + {writes}):
    kept.put(f"{{number % {count}:04d}}", states(number % {count}, tokens=50))
    print(number, flush=True)
"""


def writer(folder, count, begin=0, writes=4000):
    """A process that writes; it says "ready", and then the number of each that it has written."""
    code = _WRITER.format(
        tests=str(Path(__file__).parent),
        folder=str(folder),
        count=count,
        begin=begin,
        writes=writes,
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)


def test_killed_writers_leave_whole_files_or_none(tmp_path):
    """A few kills here; ``benchmarks/states_crash.py`` does a hundred."""
    for kill in range(3):
        process = writer(tmp_path, 300, begin=kill * 100)
        for _ in range(1 + 4 * kill):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    kept = store(tmp_path, memory_bytes=0)
    found = [kept.get(f"{number:04d}") for number in range(300)]
    assert kept.disk.rejected == 0
    for number, item in enumerate(found):
        assert item is None or same(item, states(number, tokens=50))


def test_two_processes_store_each_document_once(tmp_path):
    both = [writer(tmp_path, 100, begin, writes=100) for begin in (0, 50)]
    for process in both:
        process.communicate()
        assert process.returncode == 0
    kept = store(tmp_path, memory_bytes=0)
    assert all(same(kept.get(f"{n:04d}"), states(n, tokens=50)) for n in range(100))
    assert kept.disk.size()[0] == 100


# --- names -----------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 99), max_size=5), st.lists(st.integers(0, 99), max_size=5))
def test_keys_differ_as_documents_do(first, second):
    assert (state_key(first) == state_key(second)) == (first == second)


def test_namespaces_differ_in_every_part():
    parts = {"weights": "w", "head": [1, 2], "layers": 3, "dtype": "float32"}
    assert namespace(parts) == namespace(dict(reversed(parts.items())))
    for name in parts:
        assert namespace({**parts, name: "other"}) != namespace(parts)
