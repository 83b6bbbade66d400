"""Run the tests with the oldest or the newest versions that pyproject.toml allows.

    make test-oldest          (or: python scripts/test_versions.py oldest .venv-oldest)
    make test-newest          (or: python scripts/test_versions.py newest .venv-newest)

uv resolves, "oldest" with every direct dependency at its lower bound, and pip installs. torch is
the one of requirements/torch.txt in both, because CPU builds of other versions are rarely at hand.
What needs newer frameworks than the oldest (the other re-rankers' own packages) is not installed
there, and its tests skip themselves.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from make_lock import REQUIREMENTS, ROOT, UV, without_cuda

#: Every extra that users install, save what needs a GPU or a cluster.
EXTRAS = (
    "llama-index", "langchain", "cli", "gguf", "passages", "embedder", "haystack", "rerankers",
    "pyterrier", "evaluation", "plot", "server", "redis", "otel", "mcp",
)  # fmt: skip
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
    "tests/test_architectures.py",
    "tests/test_masks.py",
    "tests/test_processes_and_threads.py",
    "tests/test_flash_attention.py",
    "tests/test_changed_weights.py",
    "tests/test_generation_scoring.py",
    "tests/test_gguf.py",
    "tests/test_states_store.py",
    "tests/test_first_stage.py",
    "tests/test_sources.py",
    "tests/test_bright.py",
    "tests/test_report.py",
    "tests/test_cli.py",
    "tests/test_cli_evaluate.py",
    "tests/test_cli_grid.py",
    "tests/test_cli_profile.py",
    "tests/test_server_app.py",
    "tests/test_server_engine.py",
    "tests/test_server_replayed.py",
    "tests/test_score_cache.py",
    "tests/test_traces.py",
    "tests/test_mcp.py",
    "tests/integration",
)
#: At the old end, dependencies warn of what newer packages below them deprecate. What we call that
#: is deprecated comes to light at the new end.
IGNORED = ("-W", "ignore::DeprecationWarning", "-W", "ignore::SyntaxWarning")
TOO_LOW = """\
pyproject.toml declares versions that cannot be had, or not with the rest, on Python {python}:
{lines}
Raise these bounds, or try an older Python: make test-oldest PYTHON=python3.11
"""


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


def above_bounds(versions: str) -> list[str]:
    """What pyproject.toml asks for and was resolved above its lower bound, one line each.

    uv takes the lowest version that has a wheel and fits the rest, without a word where that is not
    the bound.
    """
    # Tools of ours have bounds too, and are not what is tested here.
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("\ndev = [")[0]
    lines = []
    for name, version in re.findall(r"(?m)^([\w.-]+)==([\w.]+)", versions):
        bound = re.search(rf'"{re.escape(name)}>=([\d.]+)', text, flags=re.IGNORECASE)
        if bound and release(bound[1]) != release(version):
            lines.append(f"    {name}: the lower bound is {bound[1]}, the oldest is {version}")
    return lines


def release(version: str) -> str:
    """A version without the zeros at its end: 5.0 and 5.0.0 are the same."""
    return re.sub(r"(\.0)+$", "", version)


def main(end: str, folder: Path) -> int:
    """Return pytest's exit code."""
    python = folder / "bin" / "python"
    # Anew each time: what an earlier run installed and this one does not want would stay.
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)

    def run(*command: str) -> int:
        return subprocess.run([str(python), *command], cwd=ROOT, check=False).returncode

    def install(*wanted: str) -> int:
        return run("-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted)

    if run("scripts/install_torch.py", str(folder / "torch.txt")) or install(UV):
        return 1
    versions = resolve(folder, end)
    if end == "oldest" and (above := above_bounds(versions.read_text(encoding="utf-8"))):
        sys.stderr.write(TOO_LOW.format(python=sys.version.split()[0], lines="\n".join(above)))
        return 1
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
    ignored = IGNORED if end == "oldest" else ()
    return run("-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *ignored, *TESTS)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("oldest", "newest"):
        sys.exit("usage: python scripts/test_versions.py oldest|newest FOLDER")
    sys.exit(main(sys.argv[1], Path(sys.argv[2]).resolve()))
