"""Where settings come from besides code: YAML and TOML files, environment variables."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from icr_rag.bounded import parse_yaml, read_text
from icr_rag.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from pydantic import BaseModel

#: Size of the largest configuration file; a long one has some kilobytes.
_MOST_BYTES = 2**20

#: Variables with the usual prefix that are no settings of a reranker.
_OTHER_VARIABLES = {"ICR_RAG_API_KEY", "ICR_RAG_CACHE"}


def read_config_file(path: Path) -> dict[str, Any]:
    """The fields in a YAML (.yaml, .yml) or TOML (.toml) file, not checked yet.

    Raises:
        ConfigError: if the file cannot be read or parsed, or holds no fields.
    """
    if path.suffix not in (".yaml", ".yml", ".toml"):
        raise ConfigError(f"{path}: allowed are .yaml, .yml and .toml")
    try:
        text = read_text(path, _MOST_BYTES)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read configuration {path}: {error}") from error
    try:
        values: object = tomllib.loads(text) if path.suffix == ".toml" else parse_yaml(text)
    except RecursionError as error:
        raise ConfigError(f"{path} cannot be parsed: it is nested too deep") from error
    # Wrong TOML, and numbers with more digits than Python turns into one.
    except ValueError as error:
        raise ConfigError(f"{path} cannot be parsed: {error}") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold fields and values, not a {type(values).__name__}")
    return {str(name): value for name, value in values.items()}


def read_environment(
    model: type[BaseModel], prefix: str, environment: Mapping[str, str] | None
) -> dict[str, Any]:
    """The fields of ``model`` that are set in the environment, not checked yet.

    Text stays text (``null``: None, where a field allows it). Fields that are not text are read
    as YAML: ``true``, ``5``, ``null``, ``[[20, 15]]``.

    Raises:
        ConfigError: for a name with this prefix that is no field, or a value that is no YAML.
    """
    variables = os.environ if environment is None else environment
    known = {prefix + name.upper(): name for name in model.model_fields}
    values: dict[str, Any] = {}
    for variable, text in variables.items():
        if not variable.startswith(prefix) or variable in _OTHER_VARIABLES:
            continue
        if variable not in known:
            close = difflib.get_close_matches(variable, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
            raise ConfigError(f"unknown environment variable {variable}; {hint}")
        name = known[variable]
        text_only, optional = _is_text(model.model_fields[name].annotation)
        if text_only or (name == "layers" and not text.strip().startswith("[")):
            values[name] = None if optional and text == "null" else text
            continue
        try:
            values[name] = parse_yaml(text)
        except ValueError as error:
            raise ConfigError(f"{variable}={text!r} cannot be read: {error}") from error
    return values


def _is_text(annotation: Any) -> tuple[bool, bool]:
    """Whether a field takes only strings besides None, and whether it takes None."""
    members = get_args(annotation) or (annotation,)
    others = [member for member in members if member is not type(None)]
    text_only = all(member is str or isinstance(member, str) for member in others)
    return text_only, len(others) < len(members)
