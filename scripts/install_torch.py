"""Install torch into this interpreter's environment, and write down which build it is.

PyPI's Linux wheel of torch brings gigabytes of CUDA libraries, of no use without a GPU. The first
of these that applies is done:

1. This version of torch is installed already: nothing, whatever build it is.
2. Not Linux, or ``nvidia-smi`` finds a GPU: the ordinary wheel from the package index.
3. A CPU wheel is at hand in pip's find-links (PIP_FIND_LINKS or pip's configuration): that one.
4. PyTorch's own page of CPU wheels answers: from there.
5. Stop, and say what to do. The CUDA build is never taken instead.

Which version: the one in requirements/torch.txt, the same on any day.

Usage: ``python install_torch.py CONSTRAINTS``, a file that is given the line ``torch==VERSION``,
build label included, so that what is installed next cannot replace it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

#: "torch==VERSION"
REQUIREMENT = (
    (Path(__file__).resolve().parent.parent / "requirements" / "torch.txt")
    .read_text(encoding="utf-8")
    .strip()
)
CPU_WHEELS = "https://download.pytorch.org/whl/cpu/torch/"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"

ADVICE = f"""\
No CPU build of {REQUIREMENT} could be had, and the CUDA build (several GB) is not taken on a
machine without a GPU. Put one into this environment, then run the same command again:

    {sys.executable} -m pip install {REQUIREMENT} --index-url {CPU_INDEX}

or point PIP_FIND_LINKS to a folder with a wheel of it for Python {sys.version_info.major}.\
{sys.version_info.minor} (torch-...+cpu-...whl).
"""


def main(constraints: Path) -> int:
    """Return 0 if torch is installed afterwards."""
    if not is_wanted(torch_version()) and not install():
        sys.stderr.write(ADVICE)
        return 1
    constraints.write_text(f"torch=={torch_version()}\n", encoding="utf-8")
    return 0


def install() -> bool:
    """Install torch from the first source that serves; False if none does."""
    if not sys.platform.startswith("linux") or has_gpu():
        say("Installing torch from the package index")
        return pip("install", REQUIREMENT)
    say("Looking for a CPU build of torch at hand (pip's find-links)")
    if install_cpu_wheel():
        return True
    say(f"None there; trying {CPU_WHEELS}")
    return install_cpu_wheel("--find-links", CPU_WHEELS, "--timeout", "15", "--retries", "1")


def install_cpu_wheel(*source: str) -> bool:
    """Install the newest wheel from find-links, if it is a CPU build.

    Fetched first and judged by its file name: with --no-index no index, not even one that pip is
    configured to add, can slip the CUDA build in. Dependencies come with the project's own.
    Installed by name and not by path: `pip freeze` would show the temporary folder otherwise, and
    no two environments would read the same.
    """
    with tempfile.TemporaryDirectory() as folder:
        wanted = ["--no-index", "--no-deps", "--only-binary=:all:", "--dest", folder, *source]
        pip("download", "--quiet", *wanted, REQUIREMENT)
        wheels = [path.name for path in Path(folder).glob("torch-*.whl") if "+cpu" in path.name]
        if not wheels:
            return False
        version = wheels[0].split("-")[1]
        found = ("--no-index", "--no-deps", "--find-links", folder)
        return pip("install", "--quiet", *found, f"torch=={version}")


def is_wanted(version: str | None) -> bool:
    """Whether an installed version is the one that is asked for; builds of it are alike."""
    return version is not None and version.partition("+")[0] == REQUIREMENT.partition("==")[2]


def torch_version() -> str | None:
    """The installed version, build label included; None if torch is not installed."""
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None


def has_gpu() -> bool:
    """Whether nvidia-smi exists and finds a GPU."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return False
    try:
        outcome = subprocess.run([command, "-L"], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return outcome.returncode == 0 and b"GPU" in outcome.stdout


def pip(*arguments: str) -> bool:
    """Run pip in this environment; whether it succeeded. Its own words go to standard error."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, check=False).returncode == 0


def say(message: str) -> None:
    """One line of progress."""
    sys.stderr.write(f"{message}\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python install_torch.py CONSTRAINTS")
    sys.exit(main(Path(sys.argv[1])))
