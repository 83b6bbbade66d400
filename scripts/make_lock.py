"""Resolve pyproject.toml into requirements/*.lock: every version, with hashes, for all Pythons.

    make lock          (or: python scripts/make_lock.py .venv-lock)

uv resolves once for all interpreters and systems ("universal"), which pip-tools does not; pip
installs, so that nobody needs uv who does not renew the locks. torch and the CUDA libraries that
PyPI's Linux build of it asks for are left out: scripts/install_torch.py installs the CPU build of
the version in requirements/torch.txt.
"""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
UV = "uv==0.13.9"
OLDEST_PYTHON = "3.10"
#: Brought by torch's CUDA build alone.
LEFT_OUT = re.compile(r"(torch|triton|(nvidia|cuda)-[\w.-]+)==")
HEADER = "# Made by `make lock` from pyproject.toml; not edited by hand. torch is in torch.txt.\n"


def without_cuda(compiled: str) -> str:
    """A compiled requirements file without torch and what its CUDA build brings."""
    blocks = re.split(r"(?m)^(?=\S)", compiled)
    kept = [block for block in blocks if block and not LEFT_OUT.match(block)]
    return HEADER + "".join(kept)


def names_and_versions(lock: str) -> str:
    """A lock as constraints: without hashes."""
    lines = (line.rstrip(" \\") for line in lock.splitlines() if re.match(r"\w", line))
    return "".join(f"{line}\n" for line in lines)


def main(folder: Path) -> int:
    """Return 0 if both locks were written."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    quiet = ["--quiet", "--disable-pip-version-check"]
    subprocess.run([str(python), "-m", "pip", "install", *quiet, UV], check=True)
    constraints = folder / "constraints.txt"
    constraints.write_text("", encoding="utf-8")
    # The runtime's versions are the development environment's.
    for name, extra in (("dev", "dev"), ("runtime", "all")):
        command = [
            str(folder / "bin" / "uv"), "pip", "compile", "--quiet", "--universal",
            "--python-version", OLDEST_PYTHON, "--generate-hashes", "--no-header", "--no-annotate",
            "--no-config", "--extra", extra, "--constraints", str(REQUIREMENTS / "torch.txt"),
            "--constraints", str(constraints), "pyproject.toml", str(REQUIREMENTS / "build.txt"),
        ]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        (REQUIREMENTS / f"{name}.lock").write_text(without_cuda(done.stdout), encoding="utf-8")
        constraints.write_text(names_and_versions(without_cuda(done.stdout)), encoding="utf-8")
        sys.stderr.write(f"wrote requirements/{name}.lock\n")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/make_lock.py FOLDER")
    sys.exit(main(Path(sys.argv[1]).resolve()))
