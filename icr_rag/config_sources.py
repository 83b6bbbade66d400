"""Where settings come from besides code: YAML and TOML files, environment variables."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import yaml

from icr_rag.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from pydantic import BaseModel

#: Variables with the usual prefix that are no settings of a reranker.
_OTHER_VARIABLES = {"ICR_RAG_CACHE"}


def read_config_file(path: Path) -> dict[str, Any]:
    """The fields in a YAML (.yaml, .yml) or TOML (.toml) file, not checked yet.

    Raises:
        ConfigError: if the file cannot be read or parsed, or holds no fields.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read configuration {path}: {error}") from error
    try:
        if path.suffix in (".yaml", ".yml"):
            values = yaml.safe_load(text)
        elif path.suffix == ".toml":
            values = tomllib.loads(text)
        else:
            raise ConfigError(f"{path}: allowed are .yaml, .yml and .toml")
    except (yaml.YAMLError, tomllib.TOMLDecodeError) as error:
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
            values[name] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{variable}={text!r} cannot be read: {error}") from error
    return values


def _is_text(annotation: Any) -> tuple[bool, bool]:
    """Whether a field takes only strings besides None, and whether it takes None."""
    members = get_args(annotation) or (annotation,)
    others = [member for member in members if member is not type(None)]
    text_only = all(member is str or isinstance(member, str) for member in others)
    return text_only, len(others) < len(members)
