"""How `make` comes by torch: never the CUDA build on a machine without a GPU."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location(
    "install_torch", ROOT / "scripts" / "install_torch.py"
)
install_torch = importlib.util.module_from_spec(spec)
spec.loader.exec_module(install_torch)


class Machine:
    """Records commands; ``wheel``: what pip finds locally; ``index``: whether it answers."""

    def __init__(self, wheel=None, index=False):
        self.wheel, self.index, self.commands = wheel, index, []

    def probe(self, command):
        if self.wheel is None:
            return False
        folder = Path(command[command.index("--dest") + 1])
        (folder / self.wheel).write_bytes(b"")
        return True

    def run(self, command):
        self.commands.append(" ".join(command))
        return self.index if "--index-url" in command else True


CPU = "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"
CUDA = "torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl"


def install(machine, installed=False, ordinary=False):
    return install_torch.install(installed, ordinary, machine.run, machine.probe)


def test_nothing_to_do():
    machine = Machine()
    assert install(machine, installed=True) is None
    assert machine.commands == []


def test_a_gpu_gets_the_ordinary_build():
    machine = Machine(wheel=CPU)
    assert install(machine, ordinary=True) is None
    assert len(machine.commands) == 1
    assert "--index-url" not in machine.commands[0]


def test_a_local_cpu_build_is_taken():
    machine = Machine(wheel=CPU)
    assert install(machine) is None
    assert len(machine.commands) == 1
    assert machine.commands[0].endswith(CPU)


def test_a_local_cuda_build_is_not():
    machine = Machine(wheel=CUDA, index=True)
    assert install(machine) is None
    assert len(machine.commands) == 1
    assert install_torch.CPU_INDEX in machine.commands[0]


def test_without_either_it_stops_and_says_what_to_do():
    machine = Machine()
    assert "pip install torch" in install(machine)
    assert all("--index-url" in command for command in machine.commands)


def test_no_gpu_without_a_driver(monkeypatch):
    monkeypatch.setattr(install_torch.shutil, "which", lambda name: None)
    assert not install_torch.has_gpu(lambda command: True)
    monkeypatch.setattr(install_torch.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert not install_torch.has_gpu(lambda command: False)
    assert install_torch.has_gpu(lambda command: True)


def test_the_requirement_is_the_projects():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(rf'"{re.escape(install_torch.REQUIREMENT)}",', text)
