"""Text files, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from icr_rag.errors import DataError


def write_whole(path: Path, lines: Iterable[str]) -> None:
    """Write the lines, each of which ends itself; ``path`` is replaced at the end, or untouched.

    Raises:
        DataError: if the file cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with temporary.open("w", encoding="utf-8", newline="\n") as out:
                out.writelines(lines)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error
