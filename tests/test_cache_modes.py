"""Who may read what is kept in the cache folder: what the umask says, and nobody less."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import contextmanager

import pytest

from icr_rag.model import gguf
from icr_rag.model.cache_folder import build_folder

pytestmark = pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")

UMASKS = [0o000, 0o002, 0o022, 0o027, 0o077]


@contextmanager
def umask(value):
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def build(folder):
    """What a library may write: plain files, private ones that it renamed, the same of folders."""
    (folder / "plain").write_text("plain")
    (folder / "inner").mkdir()
    (folder / "inner" / "file").write_text("file")
    with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as out:
        out.write("private")
    os.replace(out.name, folder / "renamed")
    private = tempfile.mkdtemp(dir=folder)
    os.replace(private, folder / "private")
    (folder / "private" / "file").write_text("file")


@pytest.mark.parametrize("value", UMASKS)
def test_a_finished_folder_follows_the_umask(tmp_path, value):
    with umask(value):
        folder = build_folder(tmp_path / "cache" / "model", "seal", build)
    names = {str(path.relative_to(folder)): mode(path) for path in folder.rglob("*")}
    folders = {".": mode(folder), **{name: names.pop(name) for name in ("inner", "private")}}
    assert set(folders.values()) == {0o777 & ~value}
    assert len(names) == 5
    assert set(names.values()) == {0o666 & ~value}
    assert mode(folder.parent) == 0o777 & ~value


def test_what_a_link_points_at_is_left_alone(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("not ours")
    outside.chmod(0o600)
    with umask(0o022):
        build_folder(
            tmp_path / "model", "seal", lambda folder: (folder / "link").symlink_to(outside)
        )
    assert mode(outside) == 0o600


@pytest.mark.parametrize("value", UMASKS)
def test_the_note_of_a_files_hash_follows_the_umask(tmp_path, value):
    source = tmp_path / "model.gguf"
    source.write_text("weights")
    with umask(value):
        gguf._remember_hash(source, tmp_path / "cache", "digest")
    (note,) = (tmp_path / "cache" / "hashes").iterdir()
    assert note.read_text() == "digest"
    assert mode(note) == 0o666 & ~value


def test_building_does_not_touch_the_umask(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "umask", lambda value: pytest.fail("the umask is the process's own"))
    build_folder(tmp_path / "model", "seal", build)
