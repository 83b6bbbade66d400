"""``icr-rag config``: the JSON schema of a configuration file, and a check of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from icr_rag import RerankerConfig
from icr_rag.cli.console import output_console, write_json
from icr_rag.files import write_whole

config = typer.Typer(
    help="Check a configuration file, or write the JSON schema of one.", no_args_is_help=True
)


@config.command()
def schema(
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write it to this file.", show_default=False),
    ] = None,
) -> None:
    """Write the JSON schema of a configuration, for editors and other programs.

    icr-rag config schema --output reranker.schema.json
    """
    if output is None:
        write_json(RerankerConfig.json_schema())
    else:
        write_whole(output, [json.dumps(RerankerConfig.json_schema(), indent=2) + "\n"])


@config.command()
def check(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A YAML or TOML file.", show_default=False),
    ],
) -> None:
    """Check a configuration file and show every setting that it leads to.

    Loads no model: whether the model is there, icr-rag doctor --config FILE tells.

    icr-rag config check reranker.yaml
    """
    checked = RerankerConfig.from_file(file)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, field in RerankerConfig.model_fields.items():
        value = getattr(checked, name)
        # What the file changes stands out from the defaults.
        style = "dim" if value == field.default else "bold"
        table.add_row(Text(name, style=style), Text(json.dumps(value), style=style))
    out = output_console()
    out.print(table)
    out.print(Text(f"{file} is valid", style="green"))
