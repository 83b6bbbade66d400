"""Make the profiles of several models in one command, on a GPU: every way of reading of each.

    python benchmarks/make_profiles.py DATA... --models Qwen/Qwen3-0.6B google/gemma-3-270m \\
        --calibrate LABELLED --out results/profiles --options "--limit 200 --device cuda"

Each profile is one call of `icr-rag profile`, in a process of its own, so that a model that does
not load, or runs out of memory, takes nothing down with it and leaves no memory behind. Per model:
heads for attention alone and for mixed, each document by itself; for one prompt with all documents;
for one tail over kept states, shared and blind. With --calibrate, labelled queries that taught
nothing, then come probabilities for the two that have absolute scores, and for query likelihood.

Files have the names of those that ship in icr_rag/profiles, MODEL.SCORING.FRAMEWORK[.STATES].json,
and lie in a folder for each model, with the readings beside them. A profile that is there already
is left alone, and readings go on where they were interrupted: the same command again does what is
missing. --options goes to every call, --teach to those that choose heads.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from icr_rag.errors import ConfigError
from icr_rag.profiles import Profile

#: Name -> what is made, as options of `icr-rag profile`.
HEADS = {
    "attention.pointwise": "--scoring attention --framework pointwise",
    "mixed.pointwise": "--scoring mixed --framework pointwise",
    "attention.listwise": "--scoring attention --framework listwise",
    "attention.listwise.independent":
        "--scoring attention --framework listwise --document-states independent",
    "attention.listwise.blind": "--scoring attention --framework listwise --document-states blind",
}  # fmt: skip
#: What has absolute scores, and is calibrated; the first two with the heads that were made.
CALIBRATED = {
    "attention.pointwise": HEADS["attention.pointwise"],
    "mixed.pointwise": HEADS["mixed.pointwise"],
    "likelihood.query": "--scoring likelihood",
}
_COMMAND = "import sys; from icr_rag.cli import main; sys.exit(main(sys.argv[1:]))"


@dataclass(frozen=True)
class Step:
    """One call of `icr-rag profile`.

    Attributes:
        path: the profile. arguments: of the call.
        needs: a profile that must be there; None: nothing. calibrates: whether it adds that.
    """

    path: Path
    arguments: list[str]
    needs: Path | None = None
    calibrates: bool = False

    def done(self) -> bool:
        """Whether its profile is there, with what this step adds."""
        try:
            made = Profile.load(self.path)
        except ConfigError:
            return False
        return not self.calibrates or made.calibration is not None


def steps_of(model: str, options: argparse.Namespace) -> list[Step]:
    """What is done for a model, in this order."""
    name = model.rstrip("/").rpartition("/")[2].lower()

    def path_of(purpose: str) -> Path:
        return options.out / name / f"{name}.{purpose}.json"

    def call(data: Sequence[Path], purpose: str, *parts: str) -> list[str]:
        own = [word for part in (options.options, *parts) for word in shlex.split(part)]
        own += ["--model", model, "--out", str(path_of(purpose))]
        return ["profile", *map(str, data), *own]

    steps = [
        Step(path_of(purpose), call(options.data, purpose, options.teach, HEADS[purpose]))
        for purpose in options.purposes
    ]
    for purpose, what in CALIBRATED.items() if options.calibrate else ():
        path = path_of(purpose)
        heads = path if purpose in HEADS else None
        if heads is not None and purpose not in options.purposes:
            continue
        made = call(options.calibrate, purpose, what, f"--calibrate {options.kind}")
        made += [] if heads is None else ["--method", "none", "--profile", str(heads)]
        steps.append(Step(path, made, heads, calibrates=True))
    return steps


def run(arguments: Sequence[str]) -> int:
    """Call `icr-rag` in a process of its own; its exit code."""
    return subprocess.run([sys.executable, "-c", _COMMAND, *arguments], check=False).returncode


def outcome(step: Step, *, dry_run: bool) -> str:
    """Do a step unless it is done; what came of it."""
    if step.done():
        return "there already"
    if dry_run:
        return shlex.join(["icr-rag", *step.arguments])
    if step.needs is not None and not step.needs.is_file():
        return f"FAILED: there is no {step.needs.name}"
    step.path.parent.mkdir(parents=True, exist_ok=True)
    code = run(step.arguments)
    if code == 130:
        raise KeyboardInterrupt
    # An exit code alone does not say that a file is whole.
    return "made" if code == 0 and step.done() else f"FAILED, exit code {code}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, nargs="+", help="what teaches, as for `icr-rag profile`")
    parser.add_argument("--models", nargs="+", required=True, help="hub names or folders")
    parser.add_argument("--out", type=Path, required=True, help="folder")
    parser.add_argument("--purposes", nargs="+", choices=list(HEADS), default=list(HEADS))
    parser.add_argument(
        "--calibrate", type=Path, nargs="+", metavar="DATA", help="labelled queries"
    )
    parser.add_argument("--kind", choices=["logistic", "isotonic"], default="logistic")
    parser.add_argument("--options", default="", help="options of `icr-rag profile`, as one string")
    parser.add_argument("--teach", default="", help="likewise, for the calls that choose heads")
    parser.add_argument("--dry-run", action="store_true", help="print the calls and do nothing")
    options = parser.parse_args(arguments)
    failed = 0
    for model in options.models:
        for step in steps_of(model, options):
            said = outcome(step, dry_run=options.dry_run)
            failed += said.startswith("FAILED")
            print(f"{step.path.name}: {said}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
