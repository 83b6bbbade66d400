"""The flags that set `ServerSettings`, made from its fields so that the two cannot drift."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import Annotated, Any, get_args

import typer

from icr_rag.server.settings import ServerSettings

_PANEL = "Server"
#: Settings of a reranker without flags where calls come from outside: what leaves documents out,
#: counts the first stage, or answers with no ranking.
NOT_OF_CALLS = (
    "top_n", "score_threshold", "min_answerable", "near_duplicates", "on_error", "fusion",
    "fusion_weight", "first_stage_weights", "embedder",
)  # fmt: skip
#: The key that is set by the environment alone: a flag would show in the list of processes.
KEY_VARIABLE = "ICR_RAG_API_KEY"


def with_server_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command whose parameter ``settings`` is a `ServerSettings`.

    Stands below `icr_rag.cli.options.with_reranker_options`.
    """
    fields = [name for name in ServerSettings.model_fields if name != "api_key"]
    own = [
        parameter
        for parameter in inspect.signature(command, eval_str=True).parameters.values()
        if parameter.name != "settings"
    ]
    options = [_option(name) for name in fields]

    @functools.wraps(command)
    def wrapped(**values: object) -> None:
        chosen = {name: values.pop(name) for name in fields}
        given = {name: value for name, value in chosen.items() if value is not None}
        # Set to nothing is not set, as in shells.
        key = os.environ.get(KEY_VARIABLE) or None
        command(settings=ServerSettings(**given, api_key=key), **values)

    wrapped.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
    return wrapped


def _option(name: str) -> inspect.Parameter:
    """The flag of one setting. Not given is None."""
    field = ServerSettings.model_fields[name]
    flag = "--" + name.replace("_", "-")
    members = (field.annotation, *get_args(field.annotation))
    kind: type[Any] = next((one for one in (bool, int, float) if one in members), str)
    switch = f"{flag}/--no-{flag[2:]}" if field.default is True else flag
    default: object = field.default
    if isinstance(default, bool):
        default = "on" if default else None
    shown = "" if default is None else f" \\[default: {default}]"
    option = typer.Option(
        switch,
        metavar={str: "TEXT", int: "N", float: "X"}.get(kind),
        help=f"{field.description}{shown}",
        show_default=False,
        rich_help_panel=_PANEL,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )
