"""What pydantic found wrong with settings, in plain words."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from pydantic import ValidationError


def explain(error: ValidationError, known: Collection[str]) -> str:
    """Its findings, one after the other: setting, value received, what is allowed.

    Args:
        error: as pydantic raised it.
        known: names of all settings.
    """
    lines = []
    for item in error.errors():
        name = str(item["loc"][0]) if item["loc"] else ""
        if item["type"] == "extra_forbidden":
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "known are " + ", ".join(known)
            lines.append(f"unknown setting {name!r}; {hint}")
            continue
        message = item["msg"].removeprefix("Value error, ")
        lines.append(f"{name}={item['input']!r}: {message}" if name else message)
    return "; ".join(dict.fromkeys(lines))
