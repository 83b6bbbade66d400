"""Run the tests with the oldest or the newest versions that pyproject.toml allows.

    make test-oldest          (or: python scripts/test_versions.py oldest .venv-oldest)
    make test-newest          (or: python scripts/test_versions.py newest .venv-newest)

uv resolves, "oldest" with every direct dependency at its lower bound, and pip installs. torch is
the one of requirements/torch.txt in both, because CPU builds of other versions are rarely at hand.
What needs newer frameworks than the oldest (the other re-rankers' own packages) is not installed
there, and its tests skip themselves.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from make_lock import REQUIREMENTS, ROOT, UV, without_cuda

EXTRAS = ("llama-index", "langchain", "cli", "gguf")
TOOLS = "pytest>=8\npytest-asyncio>=0.24\nhypothesis>=6.100\njsonschema>=4.20\normsgpack>=1\n"
TESTS = (
    "tests/test_transformers_seam.py",
    "tests/test_equivalence.py",
    "tests/test_scoring.py",
    "tests/test_prompts.py",
    "tests/test_text_to_tokens.py",
    "tests/test_reranker.py",
    "tests/test_ranking.py",
    "tests/test_document_states.py",
    "tests/test_prompt_limits.py",
    "tests/test_cut.py",
    "tests/test_changed_weights.py",
    "tests/test_generation_scoring.py",
    "tests/integration",
)


def resolve(folder: Path, end: str) -> Path:
    """Versions for this interpreter, as a file for pip."""
    tools = folder / "tools.txt"
    tools.write_text(TOOLS, encoding="utf-8")
    extras = [part for extra in EXTRAS for part in ("--extra", extra)]
    command = [
        str(folder / "bin" / "uv"), "pip", "compile", "--quiet", "--no-header", "--no-annotate",
        "--no-config", "--only-binary", ":all:", "--python", str(folder / "bin" / "python"),
        "--resolution", "lowest-direct" if end == "oldest" else "highest",
        "--constraints", str(REQUIREMENTS / "torch.txt"), *extras,
        "pyproject.toml", str(REQUIREMENTS / "build.txt"),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    versions = folder / "versions.txt"
    versions.write_text(without_cuda(done.stdout), encoding="utf-8")
    return versions


def main(end: str, folder: Path) -> int:
    """Return pytest's exit code."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)

    def run(*command: str) -> int:
        return subprocess.run([str(python), *command], cwd=ROOT, check=False).returncode

    def install(*wanted: str) -> int:
        return run("-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted)

    if run("scripts/install_torch.py", str(folder / "torch.txt")) or install(UV):
        return 1
    versions = resolve(folder, end)
    own = ["--no-deps", "--no-build-isolation", "--editable", "."]
    if install("--no-deps", "--requirement", str(versions)) or install(*own):
        return 1
    # With what is installed by now as it is.
    frozen = folder / "frozen.txt"
    frozen.write_text(versions.read_text(encoding="utf-8"), encoding="utf-8")
    if install("--constraint", str(frozen), "--requirement", str(folder / "tools.txt")):
        return 1
    names = ("transformers", "llama-index-core", "langchain-core", "pydantic", "numpy")
    told = [line for line in versions.read_text().splitlines() if line.startswith(names)]
    sys.stderr.write(f"testing the {end}: {', '.join(told)}\n")
    return run("-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("oldest", "newest"):
        sys.exit("usage: python scripts/test_versions.py oldest|newest FOLDER")
    sys.exit(main(sys.argv[1], Path(sys.argv[2]).resolve()))
