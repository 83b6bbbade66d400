"""What the commands share about terminals: consoles, spinners, clean lines, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from icr_rag.model.embedded import EMBEDDED_MODELS, embedded_model_path

if TYPE_CHECKING:
    from icr_rag.config import RerankerConfig
    from icr_rag.reranker import Reranker

#: Columns of output that goes into a pipe or a file.
PIPE_WIDTH = 100


#: Standard error: progress, notes and errors, so that output can be piped.
messages = Console(stderr=True, highlight=False)


def output_console() -> Console:
    """Standard output; `PIPE_WIDTH` columns and no colours where it is not a terminal."""
    # Made anew each time, because the width depends on what sys.stdout is now.
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def note(message: str) -> None:
    """Tell something about the result on standard error, in one line."""
    messages.print(Text(f"note: {message}", style="yellow"), soft_wrap=True)


@contextmanager
def working(message: str) -> Iterator[None]:
    """A spinner on standard error while the block runs; nothing where that is not a terminal."""
    if messages.is_terminal:
        with messages.status(Text(message)):
            yield
    else:
        yield


def prepare(reranker: Reranker) -> None:
    """Load the reranker's model under a spinner that says what takes so long."""
    config = reranker.config
    first = _needs_preparation(config)
    message = "preparing the embedded model, once" if first else f"loading {config.model}"
    if first and not messages.is_terminal:
        # Half a minute of silence looks like a hang, in a log too.
        messages.print(f"{message} (half a minute)")
    with working(message):
        quiet_bars(config)
        _ = reranker.engine


def quiet_bars(config: RerankerConfig) -> None:
    """Switch transformers' own bars off, but not while weights may come over the network."""
    if config.model in EMBEDDED_MODELS or Path(config.model).expanduser().exists():
        from transformers.utils import logging

        logging.disable_progress_bar()


def _needs_preparation(config: RerankerConfig) -> bool:
    return (
        config.model in EMBEDDED_MODELS
        and embedded_model_path(config.model, config.cache_dir) is None
    )


def one_line(text: str) -> str:
    """``text`` without line breaks, tabs and control characters, which a document may hold."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)


def shown_layers(layers: Sequence[int]) -> str:
    """Ascending layers as "10-13", with a comma where some between them are left out."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def write(text: str) -> None:
    """Write to standard output exactly this, unwrapped and unstyled."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))


def write_json(value: object) -> None:
    """Write ``value`` as one JSON object, with an escape where the encoding lacks a character."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2)
    sys.stdout.write(text + "\n")
