"""Folders that do not do what is asked: the store goes on without them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from test_states_store import same, states, store

from icr_rag.states.store import StateStore, StoredStates


def refuse(*args, **kwargs):
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("dtype", ["same", "int8"])
def test_documents_without_tokens_can_be_kept(dtype):
    assert store(dtype=dtype).put("abc", states(tokens=0)).tokens == 0


def test_a_folder_of_somebody_elses_is_none(tmp_path, monkeypatch):
    store(tmp_path).put("abc", states())
    for name in ("is_file", "read_bytes", "mkdir"):
        monkeypatch.setattr(Path, name, refuse)
    monkeypatch.setattr("builtins.open", refuse)
    kept = store(tmp_path)
    assert kept.get("abc") is None
    assert "abc" not in kept
    assert same(kept.put("abc", states()), states())
    assert kept.disk.write_failures == 1


def test_a_damaged_file_that_cannot_be_removed_is_still_not_believed(tmp_path, monkeypatch):
    kept = store(tmp_path, memory_bytes=0)
    kept.put("abc", states())
    path = kept.disk.path("abc")
    path.write_bytes(path.read_bytes()[:-1])
    monkeypatch.setattr(Path, "unlink", refuse)
    assert kept.get("abc") is None
    assert kept.disk.rejected == 1


def test_files_are_for_their_owner_alone(tmp_path):
    previous = os.umask(0o022)
    try:
        StateStore("n", memory_bytes=0, folder=tmp_path, parts={"m": 1}).put("abc", states())
    finally:
        os.umask(previous)
    files = [path for path in (tmp_path / "n").rglob("*") if path.is_file()]
    assert len(files) == 2
    assert all(path.stat().st_mode & 0o077 == 0 for path in files)


def test_a_namespace_that_a_kill_left_without_description_gets_it(tmp_path):
    (tmp_path / "name" / "ab").mkdir(parents=True)
    store(tmp_path, parts={"model": "m"}).put("abc", states())
    assert '"model": "m"' in (tmp_path / "name" / "namespace.json").read_text()


def test_leftovers_go_also_where_all_folders_exist(tmp_path):
    store(tmp_path).put("abc", states())
    stale = tmp_path / "name" / "ab" / ".x.tmp"
    stale.write_bytes(b"half")
    os.utime(stale, (1, 1))
    store(tmp_path).put("abd", states())
    assert not stale.exists()


def test_a_row_of_a_batch_keeps_the_batch_from_being_freed_no_longer():
    batch = torch.randn(64, 2, 5, 4)
    kept = store()
    kept.put("abc", StoredStates((batch[0],), ()))
    held = kept.get("abc").keys[0]
    assert torch.equal(held, batch[0])
    assert held.untyped_storage().nbytes() == batch[0].nbytes
