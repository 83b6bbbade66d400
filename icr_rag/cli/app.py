"""The commands together, and how errors reach the user."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.text import Text

from icr_rag import __version__
from icr_rag.calls import notices
from icr_rag.cli.config import config
from icr_rag.cli.console import messages, write
from icr_rag.cli.demo import demo
from icr_rag.cli.doctor import doctor
from icr_rag.cli.encode import encode
from icr_rag.cli.evaluate import evaluate
from icr_rag.cli.mcp import mcp
from icr_rag.cli.profile import profile
from icr_rag.cli.reproduce import reproduce
from icr_rag.cli.rerank import rerank
from icr_rag.cli.serve import serve
from icr_rag.errors import ICRError

#: What typer raises for wrong usage. It is its base's base in click, which newer versions of
#: typer carry inside themselves, so that it cannot be imported from one place.
_UsageError: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="icr-rag",
    help="Re-rank retrieved chunks with the attention of the LLM you already run.",
    epilog="Start with: icr-rag demo",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command()(demo)
app.command()(rerank)
app.command()(encode)
app.command()(evaluate)
app.command()(profile)
app.command()(reproduce)
app.command()(serve)
app.command()(mcp)
app.command()(doctor)
app.add_typer(config, name="config")


def _show_version(value: bool) -> None:
    if value:
        write(f"icr-rag {__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the whole traceback of an error.")
    ] = False,
) -> None:
    """Options of every command; `run` takes ``--debug`` out before they are parsed."""


def run(arguments: Sequence[str]) -> int:
    """Run the command line; return its exit code.

    An error is one line on standard error: exit code 1, or 2 for wrong usage. ``--debug``, which
    may stand anywhere, shows the traceback too.
    """
    arguments, debug = _without_debug(arguments)
    try:
        # Not app(...), which would replace sys.excepthook and show errors in boxes.
        with _own_words():
            code = typer.main.get_command(app)(
                arguments or ["--help"], prog_name="icr-rag", standalone_mode=False
            )
    except ICRError as error:
        return _fail(str(error), 1, debug)
    except _UsageError as error:
        return _fail(_usage_text(error), 2, debug)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 130, debug=False)
    return code if isinstance(code, int) else 0


@contextmanager
def _own_words() -> Iterator[None]:
    """Commands say themselves what was cut, once and not for each query.

    Python prints what no handler takes; with one that does nothing, only those see it who have set
    up logging.
    """
    handler = logging.NullHandler()
    notices.logger.addHandler(handler)
    try:
        yield
    finally:
        notices.logger.removeHandler(handler)


def _without_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """The arguments without ``--debug``, which one adds at the end after an error."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = [argument for argument in arguments[:end] if argument != "--debug"]
    return [*options, *arguments[end:]], len(options) < end


def _usage_text(error: Exception) -> str:
    message = " ".join(str(getattr(error, "format_message", error.__str__)()).split())
    context = getattr(error, "ctx", None)
    command = "icr-rag" if context is None else context.command_path
    return f"{message} (see {command} --help)"


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    line = Text("error: ", style="bold red").append(" ".join(message.split()), style="not bold red")
    messages.print(line, soft_wrap=True)
    return code
