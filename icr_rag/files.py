"""Text files, written whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from icr_rag.errors import DataError


def write_whole(path: Path, lines: Iterable[str]) -> None:
    """Write the lines, each of which ends itself; ``path`` is replaced at the end, or untouched.

    Raises:
        DataError: if the file cannot be written.
    """
    try:
        with (
            replacing(path) as temporary,
            temporary.open("w", encoding="utf-8", newline="\n") as out,
        ):
            out.writelines(lines)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Another name beside ``path`` to write under: what is there takes its place at the end of the
    block, or is removed if that raises."""
    # Not the process's number alone: processes of several machines may write to one folder.
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{uuid.uuid4().hex[:12]}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
