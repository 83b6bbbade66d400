"""Which build of torch `make` installs: never the CUDA build on a machine without a GPU."""

from __future__ import annotations

import importlib.util
import types
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "install_torch.py"
spec = importlib.util.spec_from_file_location("install_torch", SCRIPT)
install_torch = importlib.util.module_from_spec(spec)
spec.loader.exec_module(install_torch)


class Machine:
    """Answers for pip, and keeps what it was asked for.

    Args:
        at_hand: the wheel in pip's find-links; online: the one on PyTorch's page.
    """

    def __init__(self, monkeypatch, gpu=False, at_hand=None, online=None):
        self.at_hand, self.online, self.calls = at_hand, online, []
        monkeypatch.setattr(install_torch, "REQUIREMENT", "torch==2.9.0")
        monkeypatch.setattr(install_torch.sys, "platform", "linux")
        monkeypatch.setattr(install_torch, "has_gpu", lambda: gpu)
        monkeypatch.setattr(install_torch, "torch_version", lambda: None)
        monkeypatch.setattr(install_torch, "pip", self.pip)

    def pip(self, command, *arguments):
        self.calls.append((command, *arguments))
        if command == "download":
            # An index could give the CUDA build; it must not be asked.
            assert "--no-index" in arguments
            assert "--no-deps" in arguments
            page = install_torch.CPU_WHEELS in arguments
            wheel = self.online if page else self.at_hand
            if wheel is None:
                return False
            Path(arguments[arguments.index("--dest") + 1], wheel).touch()
        return True

    @property
    def installed(self):
        return [call[-1] for call in self.calls if call[0] == "install"]


LOCKED = (SCRIPT.parent.parent / "requirements" / "torch.txt").read_text().strip()
CPU = "torch-2.9.0+cpu-cp311-cp311-linux_x86_64.whl"
CPU_BUILD = "torch==2.9.0+cpu"
CUDA = "torch-2.9.0-cp311-cp311-linux_x86_64.whl"


@pytest.mark.parametrize(
    ("machine", "installed"),
    [
        ({"at_hand": CPU}, [CPU_BUILD]),
        ({"at_hand": CPU, "online": "torch-2.9.1+cpu-x.whl"}, [CPU_BUILD]),
        ({"online": CPU}, [CPU_BUILD]),
        # What is at hand may be the CUDA build: passed over.
        ({"at_hand": CUDA, "online": CPU}, [CPU_BUILD]),
        ({"gpu": True, "at_hand": CPU}, ["torch==2.9.0"]),
    ],
)
def test_what_is_installed(monkeypatch, machine, installed):
    machine = Machine(monkeypatch, **machine)
    assert install_torch.install()
    assert machine.installed == installed


@pytest.mark.parametrize("at_hand", [None, CUDA])
def test_without_a_cpu_build_it_stops_and_says_what_to_do(monkeypatch, tmp_path, capfd, at_hand):
    machine = Machine(monkeypatch, at_hand=at_hand)
    assert install_torch.main(tmp_path / "constraints") == 1
    assert machine.installed == []
    assert not (tmp_path / "constraints").exists()
    told = f"-m pip install {LOCKED} --index-url https://download.pytorch"
    assert told in capfd.readouterr().err


def test_elsewhere_than_on_linux_the_ordinary_wheel_is_the_cpu_build(monkeypatch):
    machine = Machine(monkeypatch, at_hand=CPU)
    monkeypatch.setattr(install_torch.sys, "platform", "darwin")
    assert install_torch.install()
    assert machine.installed == ["torch==2.9.0"]


def test_what_is_installed_already_is_kept_and_held(monkeypatch, tmp_path):
    machine = Machine(monkeypatch)
    monkeypatch.setattr(install_torch, "torch_version", lambda: "2.9.0+cpu")
    assert install_torch.main(tmp_path / "constraints") == 0
    assert machine.calls == []
    assert (tmp_path / "constraints").read_text() == "torch==2.9.0+cpu\n"


def test_another_version_is_replaced(monkeypatch, tmp_path):
    machine = Machine(monkeypatch, at_hand=CPU)
    monkeypatch.setattr(install_torch, "torch_version", lambda: "2.8.0+cpu")
    install_torch.main(tmp_path / "constraints")
    assert machine.installed == [CPU_BUILD]


def test_torch_version_is_the_installed_one():
    torch = pytest.importorskip("torch")
    assert install_torch.torch_version() == torch.__version__


@pytest.mark.parametrize(
    ("found", "code", "output", "expected"),
    [
        (None, 0, b"", False),
        ("/usr/bin/nvidia-smi", 0, b"GPU 0: NVIDIA H200 (UUID: ...)", True),
        ("/usr/bin/nvidia-smi", 0, b"No devices were found", False),
        ("/usr/bin/nvidia-smi", 9, b"GPU 0", False),
    ],
)
def test_a_gpu_is_one_that_the_driver_finds(monkeypatch, found, code, output, expected):
    monkeypatch.setattr(install_torch.shutil, "which", lambda name: found)
    answer = types.SimpleNamespace(returncode=code, stdout=output)
    monkeypatch.setattr(install_torch.subprocess, "run", lambda *a, **k: answer)
    assert install_torch.has_gpu() is expected


def test_the_wheel_is_installed_by_name_from_where_it_was_fetched(monkeypatch):
    """By path, `pip freeze` would show a temporary folder, another one in each environment."""
    machine = Machine(monkeypatch, at_hand=CPU)
    assert install_torch.install()
    download, install = machine.calls
    fetched = download[download.index("--dest") + 1]
    assert install[install.index("--find-links") + 1] == fetched
    assert {"--no-index", "--no-deps"} <= set(install)
    assert fetched not in install[-1]
