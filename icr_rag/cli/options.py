"""The flags that set a `RerankerConfig`, made from its fields so that the two cannot drift.

A command takes them all by being decorated::

    @with_reranker_options(without=("top_n",))
    def rerank(config: RerankerConfig, query: str, ...) -> None: ...

typer then sees the command's own parameters, ``--config FILE`` and one flag per field, and the
command gets a checked configuration. Flags replace what the file says, the file replaces
defaults.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from icr_rag.config import RerankerConfig
from icr_rag.config_sources import read_config_file
from icr_rag.method import AUTO
from icr_rag.methods import SPECIAL, listed, scorings, using

_PANEL = "Reranker"
_SHORT = {"model": "-m"}
#: How these are written on the command line.
_HINTS = {
    "layers": "Write auto, all, or first-last: 10-13.",
    "heads": "Write auto, all, or layer-head pairs: 20-15,21-11.",
    "first_stage_weights": "Write names and weights with commas: order=0.3,embedder=1.",
    "rank_fields": "Write names with commas: title,year,text.",
}


def parse_layers(value: str) -> str | tuple[int, int]:
    """``auto``, ``all``, ``10-13`` or ``10,13``; a single number is a window of one layer.

    Raises:
        typer.BadParameter: for anything else.
    """
    value = value.strip()
    if value in ("auto", "all"):
        return value
    match = re.fullmatch(r"(\d+)(?:\s*[-,]\s*(\d+))?", value, re.ASCII)
    if match is None:
        raise _bad("layers", f"{value!r} is not a window of layers; allowed are auto, all, 10-13")
    first, last = match.groups()
    return int(first), int(first if last is None else last)


def parse_heads(value: str) -> str | tuple[tuple[int, int], ...]:
    """``auto``, ``all``, or ``20-15,21-11``: layer and head of each pair.

    Raises:
        typer.BadParameter: for anything else.
    """
    if value.strip() in ("auto", "all"):
        return value.strip()
    pairs = []
    for part in value.split(","):
        match = re.fullmatch(r"\s*(\d+)-(\d+)\s*", part, re.ASCII)
        if match is None:
            raise _bad("heads", f"{part!r} is not a head; write layer-head pairs: 20-15,21-11")
        pairs.append((int(match[1]), int(match[2])))
    return tuple(pairs)


def config_from_options(config_file: Path | None, **overrides: object) -> RerankerConfig:
    """The configuration of a file, or the defaults, with the overrides that are not None.

    Raises:
        ConfigError: if the file or a value is wrong.
        typer.BadParameter: if layers or heads cannot be parsed.
    """
    # Checked together: a file's setting may be for the method that a flag asks for.
    return RerankerConfig(**_given(config_file, overrides))


def _given(config_file: Path | None, overrides: Mapping[str, object]) -> dict[str, Any]:
    """The settings of a file and, before them, those on the command line; not checked yet."""
    base = {} if config_file is None else read_config_file(config_file)
    given = {name: value for name, value in overrides.items() if value is not None}
    layers, heads = given.get("layers"), given.get("heads")
    if isinstance(layers, str):
        given["layers"] = parse_layers(layers)
    if isinstance(heads, str):
        given["heads"] = parse_heads(heads)
    return {**base, **given}


def with_reranker_options(
    without: tuple[str, ...] = (),
    *,
    unchecked: Callable[[Mapping[str, object]], bool] = lambda values: False,
    **defaults: object,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command whose parameter ``config`` is a `RerankerConfig`.

    Args:
        without: fields that get no flag here.
        unchecked: given the command's own arguments, whether the flags belong to settings that
            stand elsewhere, and are checked with those.
        **defaults: values for this command where neither the flag nor ``--config`` is given.
    """
    fields = [name for name in RerankerConfig.model_fields if name not in without]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [
            # Keyword-only, because the flags follow parameters that may have defaults.
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in inspect.signature(command, eval_str=True).parameters.values()
            if parameter.name != "config"
        ]
        options = [_file_option(), *(_option(name) for name in fields)]

        @functools.wraps(command)
        def wrapped(*, config: Path | None, **values: object) -> None:
            chosen = {name: values.pop(name) for name in fields}
            if config is None:
                given = {name: value for name, value in chosen.items() if value is not None}
                chosen = {**defaults, **given}
            if unchecked(values):
                made = RerankerConfig.model_construct(**_given(config, chosen))
            else:
                made = config_from_options(config, **chosen)
            command(config=made, **values)

        # What typer looks at, instead of the command's own.
        wrapped.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
        wrapped.__annotations__ = {p.name: p.annotation for p in [*own, *options]}
        return wrapped

    return decorate


def _file_option() -> inspect.Parameter:
    option = typer.Option(
        "--config",
        metavar="FILE",
        help="YAML or TOML file with any of these settings; flags replace what it says.",
        rich_help_panel=_PANEL,
        show_default=False,
    )
    return _parameter("config", Path, option)


def _option(name: str) -> inspect.Parameter:
    """The flag of one field. Not given is None, so that a file's value can stand."""
    field = RerankerConfig.model_fields[name]
    flag = "--" + name.replace("_", "-")
    kind = _kind(field.annotation)
    names = [f"{flag}/--no-{flag[2:]}"] if kind is bool else [flag]
    if name in _SHORT:
        names.append(_SHORT[name])
    parts = [field.description, _HINTS.get(name)]
    choices = [AUTO, *scorings()] if name == "scoring" else _choices(field.annotation)
    if choices and name not in _HINTS:
        parts.append(f"One of {', '.join(choices)}.")
    if name in SPECIAL:
        parts.append(f"For {listed(using(name), short=True)}.")
    if field.default is not None:
        parts.append(_default(field.default))
    option = typer.Option(
        *names,
        # Short, because flags' names are cut where a narrow terminal leaves no room beside it.
        metavar={str: "TEXT", int: "N", float: "X"}.get(kind),
        help=" ".join(part for part in parts if part is not None),
        show_default=False,
        rich_help_panel=_PANEL,
    )
    return _parameter(name, kind, option)


def _parameter(name: str, kind: type, option: object) -> inspect.Parameter:
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )


def _kind(annotation: object) -> type:
    """bool, int and float as they are; the rest is text, which `RerankerConfig` checks."""
    members = (annotation, *get_args(annotation))
    return next((kind for kind in (bool, int, float) if kind in members), str)


def _choices(annotation: object) -> list[str]:
    """The values of a ``Literal``, or of one in a union."""
    literals = [a for a in (annotation, *get_args(annotation)) if get_origin(a) is Literal]
    return [str(value) for literal in literals for value in get_args(literal)]


def _default(value: object) -> str:
    shown = {True: "on", False: "off"}[value] if isinstance(value, bool) else value
    # A backslash, or rich takes the brackets for markup.
    return f"\\[default: {shown}]"


def _bad(name: str, message: str) -> typer.BadParameter:
    return typer.BadParameter(message, param_hint=f"--{name}")
