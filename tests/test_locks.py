"""The locked versions are in step with pyproject.toml."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TORCH = (ROOT / "requirements" / "torch.txt").read_text(encoding="utf-8").strip()

spec = importlib.util.spec_from_file_location("make_lock", ROOT / "scripts" / "make_lock.py")
make_lock = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_lock)


def direct(extra, seen=()):
    """Requirements of an extra, those of extras that it names included."""
    for text in PROJECT["optional-dependencies"][extra]:
        requirement = Requirement(text)
        if canonicalize_name(requirement.name) != "icr-rag":
            yield requirement
        for inner in requirement.extras if requirement.name == "icr-rag" else ():
            if inner not in seen:
                yield from direct(inner, (*seen, inner))


def locked(name):
    """Package -> the versions that the lock has for it, each with its marker."""
    text = (ROOT / "requirements" / f"{name}.lock").read_text(encoding="utf-8")
    versions = {}
    for line in make_lock.names_and_versions(text).splitlines():
        requirement = Requirement(line)
        versions.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return versions


@pytest.mark.parametrize(("lock", "extra"), [("runtime", "all"), ("dev", "dev")])
def test_every_direct_dependency_is_locked_within_its_range(lock, extra):
    versions = locked(lock)
    own = [Requirement(text) for text in PROJECT["dependencies"]]
    build = (ROOT / "requirements" / "build.txt").read_text(encoding="utf-8").split()
    for requirement in [*own, *direct(extra), *map(Requirement, build)]:
        if requirement.name == "torch":
            assert requirement.specifier.contains(TORCH.partition("==")[2])
            continue
        found = versions.get(canonicalize_name(requirement.name))
        assert found, f"{requirement.name} is not in requirements/{lock}.lock: make lock"
        for one in found:
            exact = str(one.specifier).removeprefix("==")
            assert requirement.specifier.contains(exact), f"{one} is outside {requirement}"


def test_every_file_has_a_hash_and_torch_is_left_out():
    for name in ("runtime", "dev"):
        text = (ROOT / "requirements" / f"{name}.lock").read_text(encoding="utf-8")
        assert not re.search(r"(?m)^(torch|triton|nvidia-|cuda-)", text)
        for block in re.split(r"(?m)^(?=\w)", text)[1:]:
            assert "--hash=sha256:" in block


def test_the_runtime_is_part_of_what_is_developed_with():
    dev = {str(one) for versions in locked("dev").values() for one in versions}
    runtime = {str(one) for versions in locked("runtime").values() for one in versions}
    assert {one.partition(";")[0].strip() for one in runtime} <= {
        one.partition(";")[0].strip() for one in dev
    }


def test_what_cuda_brings_is_left_out():
    compiled = (
        "numpy==2.0 \\\n    --hash=sha256:1\nnvidia-cublas==13.1 ; sys_platform == 'linux' \\\n"
        "    --hash=sha256:2\ntorch==2.13.0 \\\n    --hash=sha256:3\ntorchmetrics==1.0 \\\n"
        "    --hash=sha256:4\n"
    )
    kept = make_lock.without_cuda(compiled)
    assert re.findall(r"(?m)^(\w[\w-]*)==", kept) == ["numpy", "torchmetrics"]
    assert make_lock.names_and_versions(kept) == "numpy==2.0\ntorchmetrics==1.0\n"
