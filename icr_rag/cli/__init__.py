"""The command line, ``icr-rag``. Needs the ``cli`` extra, which is checked when it is started."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from icr_rag.errors import MissingDependencyError, require


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``icr-rag`` with these arguments (None: those of the process); return its exit code.

    0: done; 1: an error, told in one line; 2: wrong usage; 130: interrupted.
    """
    try:
        for module in ("typer", "rich"):
            require(module, "cli", "The command line")
    except MissingDependencyError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    from icr_rag.cli.app import run

    return run(sys.argv[1:] if arguments is None else arguments)
