"""A job's input, cut into parts that any process can read by itself: JSONL by bytes, Parquet by
rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from icr_rag.bounded import parse_json
from icr_rag.errors import DataError, require

_COLUMNS = ("id", "query", "documents", "retrieval_scores")


@dataclass(frozen=True)
class Part:
    """Some rows of the input, one after the other.

    Attributes:
        number: of the part, from 0.
        first: number of its first row, from 0.
        rows: how many it has.
        offset: of a JSONL file, the byte at which it begins.
        size: of a JSONL file, its bytes.
    """

    number: int
    first: int
    rows: int
    offset: int = 0
    size: int = 0


@dataclass(frozen=True)
class JobInput:
    """A file of rows, and what stands where in it.

    Attributes:
        path: ``.jsonl``, one object a line, blank lines not counted; or ``.parquet``.
        digest: SHA-256 of the file.
        parts: all rows, in order.
    """

    path: Path
    digest: str
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, path: Path, part_rows: int) -> JobInput:
        """Read the file once to see where its rows are; nothing of it is kept.

        Raises:
            DataError: if it cannot be read, or is of another kind.
            MissingDependencyError: for Parquet without pyarrow.
        """
        if path.suffix not in (".jsonl", ".parquet"):
            raise DataError(f"{path}: allowed are rows in .jsonl and .parquet files")
        try:
            if path.suffix == ".jsonl":
                return _jsonl(path, part_rows)
            rows = _open_parquet(path).metadata.num_rows
            digest = hashlib.sha256()
            with path.open("rb") as stream:
                while block := stream.read(2**20):
                    digest.update(block)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
        starts = range(0, rows, part_rows)
        parts = [Part(n, s, min(part_rows, rows - s)) for n, s in enumerate(starts)]
        return cls(path, digest.hexdigest(), tuple(parts))

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(part.rows for part in self.parts)


def read_part(path: Path, part: Part) -> list[tuple[int, object]]:
    """Number and content of each row of a part; a `DataError` for one that is no JSON.

    Raises:
        DataError: if the file cannot be read, or is not what it was when it was cut into parts.
    """
    try:
        values = list(_lines(path, part) if path.suffix == ".jsonl" else _table(path, part))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(values) != part.rows:
        raise DataError(f"{path} was changed during the job; put it back, or begin anew")
    return list(enumerate(values, part.first))


def _jsonl(path: Path, part_rows: int) -> JobInput:
    parts: list[Part] = []
    digest = hashlib.sha256()
    first = rows = offset = place = 0
    with path.open("rb") as stream:
        for line in stream:
            digest.update(line)
            place += len(line)
            rows += bool(line.strip())
            if rows == part_rows:
                parts.append(Part(len(parts), first, rows, offset, place - offset))
                first, rows, offset = first + rows, 0, place
    if rows:
        parts.append(Part(len(parts), first, rows, offset, place - offset))
    return JobInput(path, digest.hexdigest(), tuple(parts))


def _lines(path: Path, part: Part) -> Iterator[object]:
    with path.open("rb") as stream:
        stream.seek(part.offset)
        content = stream.read(part.size)
    for line in content.split(b"\n"):
        if line.strip():
            try:
                yield parse_json(line.decode("utf-8-sig" if part.offset == 0 else "utf-8"))
            except ValueError as error:
                yield DataError(f"the row is not JSON ({error})")


def _table(path: Path, part: Part) -> Iterator[object]:
    file = _open_parquet(path)
    first = part.first
    wanted = [name for name in _COLUMNS if name in file.schema_arrow.names]
    begin = 0
    for group in range(file.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        start, stop = max(first, begin), min(part.first + part.rows, begin + count)
        if start < stop:
            table = file.read_row_group(group, columns=wanted).slice(start - begin, stop - start)
            yield from table.to_pylist()
        begin += count


def _open_parquet(path: Path):  # type: ignore[no-untyped-def]  # pyarrow has no types
    """The file, with the columns it must have."""
    parquet = require("pyarrow.parquet", "evaluation", "Parquet")
    try:
        file = parquet.ParquetFile(path)
    except ValueError as error:  # pyarrow's errors are ValueErrors.
        raise DataError(f"{path} is not Parquet: {error}") from error
    missing = {"query", "documents"} - set(file.schema_arrow.names)
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(sorted(missing))}; its columns are "
            f"{', '.join(file.schema_arrow.names)}"
        )
    return file
