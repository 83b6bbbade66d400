"""Numbers that can be made again: each entry is a command, what it must give, and how nearly.

::

    entries:
      - name: first-stage/{set}
        matrix: {set: [scifact, theoremqa]}
        source: measured with BM25 (k1=0.9, b=0.4)
        command: [icr-rag, evaluate, benchmarks/first_stage.yaml, --data, "{data}", --out, "{out}"]
        result: "{out}/results.json"
        read: [means, "{set}/given/20", bm25, nDCG@10]
        expected: {first-stage/scifact: 0.676}
        tolerance: 0.001
        needs: {data: [scifact]}

``matrix`` stands for one entry per combination of its values; a value may itself be a mapping that
sets several names. ``{data}`` is the folder of data sets, ``{out}`` an empty folder. Entries with
the same command share one run of it.
"""

from __future__ import annotations

import importlib.util
import itertools
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from icr_rag.bounded import parse_json
from icr_rag.config_sources import read_config_file
from icr_rag.errors import ConfigError, DataError
from icr_rag.evaluation.grid_config import explain
from icr_rag.evaluation.grid_result import slug

#: What a command may begin with, and how that is run: with this Python, whatever is on the path.
_PROGRAMS = {
    "icr-rag": [sys.executable, "-c", "import sys; from icr_rag.cli import main; sys.exit(main())"],
    "python": [sys.executable],
}
#: Names in braces that the matrix may not set.
_RESERVED = ("data", "out")

#: "passed", "failed"; "measured": nothing is expected; "error": the command gave no number; "not
#: run": something that it needs is not here.
Status = Literal["passed", "failed", "measured", "error", "not run"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Needs(_Strict):
    """What an entry cannot run without.

    Attributes:
        gpu: an accelerator.
        hub: models or data from a hub; such entries run only where that is allowed.
        data: folders under the folder of data sets.
        packages: Python modules.
    """

    gpu: bool = False
    hub: bool = False
    data: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()


class Entry(_Strict):
    """One number, or with a ``matrix`` one per combination.

    Attributes:
        name: unique; with a matrix, its names stand in braces.
        source: where the expected value comes from.
        command: argument list; begins with "icr-rag" or "python".
        result: JSON file that the command writes.
        read: keys that lead to the number in it.
        expected: the number; or, with a matrix, expanded name -> number. None: nobody we can
            name has measured it, so that it is only reported.
        tolerance: how far from it a result may be.
        needs: what must be there.
        not_run_here: why there is no expected value.
        matrix: name -> values, or mappings of several names to values.
    """

    name: str = Field(min_length=1)
    source: str = Field(min_length=1)
    command: tuple[str, ...] = Field(min_length=1)
    result: str = "{out}/result.json"
    read: tuple[str, ...] = Field(min_length=1)
    expected: float | dict[str, float] | None = None
    tolerance: float = Field(0.0, ge=0, allow_inf_nan=False)
    needs: Needs = Needs()
    not_run_here: str | None = None
    matrix: dict[str, tuple[object, ...]] = {}

    @field_validator("command")
    @classmethod
    def _check_program(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value[0] not in _PROGRAMS:
            raise ValueError(f"a command begins with {' or '.join(_PROGRAMS)}")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Entry:
        if self.not_run_here is not None and self.expected not in (None, {}):
            raise ValueError(
                f"{self.name}: there is an expected value, and not_run_here says that nobody "
                "measured it; keep one of them"
            )
        if isinstance(self.expected, dict) and not self.matrix:
            raise ValueError(f"{self.name}: without a matrix, expected is one number")
        return self


class _File(_Strict):
    #: Anchors for YAML's own use.
    definitions: object = None
    entries: tuple[Entry, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Check:
    """One expanded entry: no names in braces are left but those of folders.

    Attributes:
        group: the entry's name as it is written, braces included.
        name, source, command, result, read, expected, tolerance, needs, not_run_here: as in
            `Entry`.
    """

    group: str
    name: str
    source: str
    command: tuple[str, ...]
    result: str
    read: tuple[str, ...]
    expected: float | None
    tolerance: float
    needs: Needs
    not_run_here: str | None


@dataclass(frozen=True)
class Outcome:
    """What came of a check.

    Attributes:
        check: which.
        status: see `Status`.
        value: the number, if there was one.
        reason: why there was none.
    """

    check: Check
    status: Status
    value: float | None = None
    reason: str | None = None


def load_checks(path: str | Path) -> list[Check]:
    """Read a file of entries and expand it.

    Raises:
        ConfigError: naming the key that is wrong, a name in braces that nothing sets, or a name
            that two entries share.
    """
    try:
        file = _File(**read_config_file(Path(path)))
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, _File)}") from error
    checks = [check for entry in file.entries for check in _expand(entry)]
    names = [check.name for check in checks]
    twice = (
        {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ()
    )
    if twice:
        raise ConfigError(f"{path}: two entries are called {min(twice)!r}; names must be unique")
    return checks


def select(checks: list[Check], pattern: str | None) -> list[Check]:
    """The checks whose name, or the name of whose entry, is or matches ``pattern`` (* and ?).

    Raises:
        ConfigError: if there are none.
    """
    if pattern is None:
        return checks
    chosen = [c for c in checks if pattern == c.group or fnmatchcase(c.name, pattern)]
    if not chosen:
        groups = ", ".join(dict.fromkeys(check.group for check in checks))
        raise ConfigError(f"no entry is called or matches {pattern!r}; there are {groups}")
    return chosen


def _expand(entry: Entry) -> Iterator[Check]:
    reserved = {name: f"{{{name}}}" for name in _RESERVED}
    names = set()
    for values in itertools.product(*entry.matrix.values()):
        variables: dict[str, object] = {}
        for key, value in zip(entry.matrix, values, strict=True):
            variables.update(value if isinstance(value, Mapping) else {key: value})
        clash = sorted(set(variables) & set(_RESERVED))
        if clash:
            raise ConfigError(f"{entry.name}: the matrix may not set {clash[0]!r}; rename it")
        variables.update(reserved)

        def fill(text: str, variables: dict[str, object] = variables) -> str:
            return _fill(text, variables, entry.name)

        name = fill(entry.name)
        names.add(name)
        expected = entry.expected
        yield Check(
            group=entry.name,
            name=name,
            source=fill(entry.source),
            command=tuple(fill(part) for part in entry.command),
            result=fill(entry.result),
            read=tuple(fill(part) for part in entry.read),
            expected=expected.get(name) if isinstance(expected, dict) else expected,
            tolerance=entry.tolerance,
            needs=entry.needs.model_copy(
                update={"data": tuple(fill(part) for part in entry.needs.data)}
            ),
            not_run_here=entry.not_run_here,
        )
    if isinstance(entry.expected, dict):
        unknown = sorted(set(entry.expected) - names)
        if unknown:
            raise ConfigError(
                f"{entry.name}: expected names {unknown[0]!r}, which the matrix does not lead to"
            )


def _fill(text: str, variables: Mapping[str, object], name: str) -> str:
    """``text`` with names in braces replaced; other braces stay."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in variables:
            raise ConfigError(
                f"{name}: nothing sets {{{match[1]}}}; known are {', '.join(variables)}"
            )
        return str(variables[match[1]])

    return re.sub(r"\{([A-Za-z_]\w*)\}", value, text)


# --- running --------------------------------------------------------------------------------


def missing(check: Check, data: Path | None, hub: bool) -> str | None:
    """What the check needs and is not here; None if it can run."""
    needs = check.needs
    lacks = []
    if needs.gpu and not _has_accelerator():
        lacks.append("an accelerator")
    if needs.hub and not hub:
        lacks.append("a hub (--hub allows it)")
    for module in needs.packages:
        if importlib.util.find_spec(module) is None:
            lacks.append(f"the package {module}")
    uses_folder = any("{data}" in part for part in (*check.command, check.result))
    if data is None and (needs.data or uses_folder):
        lacks.append("a folder of data sets (--data DIR)")
    elif data is not None:
        lacks += [f"{data / name}" for name in needs.data if not (data / name).is_dir()]
    return f"needs {' and '.join(lacks)}" if lacks else None


def _has_accelerator() -> bool:
    import torch

    return torch.cuda.is_available()


def run_checks(
    checks: list[Check],
    out: Path,
    *,
    data: Path | None = None,
    hub: bool = False,
    begin: Callable[[Check], object] | None = None,
) -> Iterator[Outcome]:
    """Run what can run, in order; each command once.

    Args:
        checks: which.
        out: folder; each command gets one of its own in it, and its output there.
        data: the folder of data sets.
        hub: whether entries that need a hub may run.
        begin: called before a check that can run.

    Raises:
        DataError: if ``out`` cannot be written.
    """
    finished: dict[tuple[str, ...], tuple[Path, str | None]] = {}
    for check in checks:
        lacks = missing(check, data, hub)
        if lacks is not None:
            yield Outcome(check, "not run", reason=lacks)
            continue
        if begin is not None:
            begin(check)
        if check.command not in finished:
            folder = out / slug(*check.command)
            finished[check.command] = folder, _run(check, folder, data)
        folder, error = finished[check.command]
        yield _judge(check, folder, data, error)


def _run(check: Check, folder: Path, data: Path | None) -> str | None:
    """Run the command; None, or why it failed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write to {folder}: {error.strerror}") from error
    program, *arguments = (
        _fill(part, _folders(folder, data), check.name) for part in check.command
    )
    log = folder / "output.txt"
    with log.open("wb") as output:
        # The programs are fixed above; what follows is the file's, as in any script that is run.
        code = subprocess.run(  # noqa: S603
            [*_PROGRAMS[program], *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    if code == 0:
        return None
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    said = f": {lines[-1]}" if lines else ""
    return f"exit code {code}{said}"


def _folders(folder: Path, data: Path | None) -> dict[str, str]:
    return {"out": str(folder), "data": str(data)}


def _judge(check: Check, folder: Path, data: Path | None, error: str | None) -> Outcome:
    if error is not None:
        return Outcome(check, "error", reason=error)
    path = Path(_fill(check.result, _folders(folder, data), check.name))
    try:
        found: object = parse_json(path.read_text("utf-8"))
    except (OSError, ValueError) as problem:
        return Outcome(check, "error", reason=f"{path} cannot be read: {problem}")
    for key in check.read:
        if not isinstance(found, Mapping) or key not in found:
            there = ", ".join(found) if isinstance(found, Mapping) else type(found).__name__
            return Outcome(check, "error", reason=f"{path}: no {key!r} there, only {there}")
        found = found[key]
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        return Outcome(check, "error", reason=f"{path}: {found!r} is no number")
    if check.expected is None:
        return Outcome(check, "measured", float(found))
    # Written numbers are decimal: 0.676 and 0.677 are 0.001 apart, whatever floats make of it.
    near = abs(found - check.expected) <= check.tolerance + 1e-9
    return Outcome(check, "passed" if near else "failed", float(found))
