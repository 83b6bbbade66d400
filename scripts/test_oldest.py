"""Run the tests with the oldest versions that pyproject.toml allows, in an environment of its own.

    make test-oldest          (or: python scripts/test_oldest.py .venv-oldest)

Pins transformers, llama-index-core, langchain-core and pydantic to their lower bounds; torch is
installed by install_torch.py, because CPU builds of old versions are rarely at hand. What needs
newer frameworks than those (the other re-rankers' own packages) is not installed, and its tests
skip themselves.
"""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PINNED = ("transformers", "llama-index-core", "langchain-core", "pydantic")
TOOLS = ("pytest", "pytest-asyncio", "hypothesis", "jsonschema")
TESTS = (
    "tests/test_equivalence.py",
    "tests/test_scoring.py",
    "tests/test_prompts.py",
    "tests/test_reranker.py",
    "tests/test_ranking.py",
    "tests/integration",
)


def lower_bounds() -> list[str]:
    """``name==version`` for each pinned package."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    pins = []
    for name in PINNED:
        found = re.search(rf'"{re.escape(name)}>=([\d.]+)', text)
        if found is None:
            raise SystemExit(f"pyproject.toml gives no lower bound for {name}")
        pins.append(f"{name}=={found[1]}")
    return pins


def main(folder: Path) -> int:
    """Return pytest's exit code."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    constraints = folder / "constraints.txt"

    def run(*command: str) -> int:
        return subprocess.run([str(python), *command], cwd=ROOT, check=False).returncode

    if run("scripts/install_torch.py", str(constraints)):
        return 1
    pins = lower_bounds()
    with constraints.open("a", encoding="utf-8") as out:
        out.writelines(f"{pin}\n" for pin in pins)
    extras = ".[llama-index,langchain,cli,gguf]"
    wanted = ["--constraint", str(constraints), "--editable", extras, *TOOLS]
    if run("-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted):
        return 1
    sys.stderr.write(f"testing with {', '.join(pins)}\n")
    return run("-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/test_oldest.py FOLDER")
    sys.exit(main(Path(sys.argv[1]).resolve()))
