"""What an evaluation has finished, on disk, so that an interrupted one goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from icr_rag.bounded import parse_json
from icr_rag.errors import DataError
from icr_rag.files import write_whole


@dataclass(frozen=True)
class Finished:
    """One re-ranked query.

    Attributes:
        order: positions among the documents that the reranker was given, best first.
        seconds: wall clock for the whole call.
        tokens: run through the model.
        windows: forward passes.
        truncated: how many documents were cut.
        layers: that were read.
        device: where the weights were and their type, "cpu float32"; None if not known.
        calls: prompts that the model was given.
        generated_tokens: that the model wrote.
        repairs: mistakes in generated answers that were mended.
        degraded: whether a deadline left something out, or was missed.
    """

    order: list[int]
    seconds: float
    tokens: int
    windows: int
    truncated: int
    layers: list[int]
    device: str | None
    calls: int = 0
    generated_tokens: int = 0
    repairs: int = 0
    degraded: bool = False


class State:
    """Finished queries: in memory and, with a path, one JSON line each in a file.

    The file's first line holds the fingerprint of everything that the rankings depend on. Lines
    under another fingerprint are never used: the file is begun anew.

    Args:
        path: the file; None: memory only.
        fingerprint: of this evaluation.

    Raises:
        DataError: if the file cannot be read or written.
    """

    def __init__(self, path: Path | None, fingerprint: str) -> None:
        self.path = path
        self.rows: dict[str, Finished] = {}
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = path.read_bytes().split(b"\n") if path.exists() else []
        except OSError as error:
            raise DataError(f"cannot use the state file {path}: {error.strerror}") from error
        header = _line({"fingerprint": fingerprint})
        if lines and lines[0] + b"\n" == header.encode():
            self.rows.update(_read_rows(lines[1:]))
        # Written anew, without the line that a killed process left half done: the next line
        # would otherwise be glued to it.
        write_whole(path, [header, *(_row_line(*item) for item in self.rows.items())])

    def __contains__(self, query: str) -> bool:
        return query in self.rows

    def __getitem__(self, query: str) -> Finished:
        return self.rows[query]

    def add(self, query: str, row: Finished) -> None:
        """Remember a finished query."""
        self.rows[query] = row
        if self.path is None:
            return
        try:
            with self.path.open("a", encoding="utf-8", newline="\n") as out:
                out.write(_row_line(query, row))
        except OSError as error:
            raise DataError(f"cannot write the state file {self.path}: {error.strerror}") from error


def _read_rows(lines: list[bytes]) -> Iterator[tuple[str, Finished]]:
    for line in lines:
        try:
            values = parse_json(line)
            if not isinstance(values, dict):
                continue
            yield values.pop("query"), Finished(**values)
        except (ValueError, KeyError, TypeError):
            # Half of a line, or none: that query is simply ranked again.
            continue


def _row_line(query: str, row: Finished) -> str:
    return _line({"query": query, **asdict(row)})


def _line(value: dict[str, object]) -> str:
    return json.dumps(value) + "\n"
