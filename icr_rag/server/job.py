"""A job over many rows: cut into parts, which are done in any order and any number of times.

Beside the output ``OUT`` stands a folder ``OUT.parts`` while the job goes on: its description, and
one file per finished part. A part's file is written under another name and renamed, so that it is
there whole or not at all; a part that is ranked twice, because a worker died or seemed to, is the
same file twice. That makes a row appear exactly once without anybody counting. At the end all
parts are read again, their rows compared with those of the input, and put together.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from icr_rag.bounded import parse_json
from icr_rag.config import RerankerConfig
from icr_rag.errors import DataError, require
from icr_rag.files import replacing
from icr_rag.reranker import Reranker
from icr_rag.server.job_input import JobInput, Part, read_part
from icr_rag.server.job_rows import rank_rows

#: The description of a job in its folder.
_ABOUT = "job.json"
#: What two jobs must share for one to go on with the other's parts. Where weights are computed
#: changes scores in their last digits only.
_MAY_DIFFER = {"device", "device_map", "states_memory", "cache_dir", "local_files_only"}


@dataclass(frozen=True)
class Counts:
    """What a job came to.

    Attributes:
        rows: of the output, as many as of the input.
        failed: rows with an error instead of scores.
    """

    rows: int
    failed: int


@dataclass(frozen=True)
class Job:
    """Rows to rank, and where results go.

    Attributes:
        input: the rows.
        output: ``.jsonl`` or ``.parquet``; written at the end.
        config: settings of the reranker.
    """

    input: JobInput
    output: Path
    config: RerankerConfig

    @classmethod
    def begin(cls, source: Path, output: Path, config: RerankerConfig, part_rows: int = 64) -> Job:
        """A job, new or to go on with.

        Args:
            source: rows (`icr_rag.server.job_rows`), JSONL or Parquet.
            output: JSONL or Parquet.
            config: settings of the reranker.
            part_rows: rows per part; what a lost worker loses.

        Raises:
            DataError: if a file cannot be read or written, if ``output`` exists, or if its folder
                of parts is another job's.
        """
        if output.suffix not in (".jsonl", ".parquet"):
            raise DataError(f"{output}: allowed are .jsonl and .parquet")
        if output.exists():
            raise DataError(f"{output} exists; remove it, or choose another output")
        if part_rows < 1:
            raise DataError(f"part_rows={part_rows}; allowed are whole numbers from 1")
        if output.suffix == ".parquet":
            # Before hours of ranking, rather than after.
            require("pyarrow.parquet", "evaluation", "Parquet")
        job = cls(JobInput.of(source, part_rows), output, config)
        job._claim(part_rows)
        return job

    @property
    def folder(self) -> Path:
        """Where parts are kept until all are there."""
        return self.output.with_name(f"{self.output.name}.parts")

    def unfinished(self) -> list[Part]:
        """Parts that have no whole file yet, in order."""
        return [part for part in self.input.parts if not self._finished(part)]

    def finish(self) -> Counts:
        """Check that every row is there once, write the output, remove the folder of parts.

        Raises:
            DataError: if rows are missing, or the output cannot be written.
        """
        missing = self.unfinished()
        if missing:
            rows = sum(part.rows for part in missing)
            raise DataError(
                f"{rows} of {self.input.rows} rows have no result (parts "
                f"{', '.join(str(part.number) for part in missing[:5])}"
                f"{', ...' if len(missing) > 5 else ''}); run the same command again to go on"
            )
        try:
            failed = sum(result["error"] is not None for result in self._results())
            if self.output.suffix == ".jsonl":
                lines = (f"{_line(result)}\n" for result in self._results())
                _write(self.output, lines)
            else:
                self._write_parquet()
            for path in self.folder.iterdir():
                path.unlink()
            self.folder.rmdir()
        except OSError as error:
            raise DataError(f"cannot write {self.output}: {error.strerror}") from error
        return Counts(self.input.rows, failed)

    def part_file(self, part: Part) -> Path:
        """Where a finished part is."""
        return self.folder / f"part-{part.number:08d}.jsonl"

    def mark(self, name: str) -> tuple[Path, int]:
        """Leave a mark of this name for other processes, who may outlive this one.

        Returns:
            Its file, which may be removed, and how many marks of this name there are now.

        Raises:
            DataError: if it cannot be written.
        """
        own = self.folder / f"{name}.{uuid.uuid4().hex}.mark"
        try:
            own.touch(exist_ok=False)
            return own, len(list(self.folder.glob(f"{name}.*.mark")))
        except OSError as error:
            raise DataError(f"cannot write into {self.folder}: {error.strerror}") from error

    def _claim(self, part_rows: int) -> None:
        settings = self.config.to_dict()
        about = {
            "input": self.input.digest,
            "part_rows": part_rows,
            "settings": {k: v for k, v in settings.items() if k not in _MAY_DIFFER},
        }
        path = self.folder / _ABOUT
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                _write(path, [_line(about) + "\n"])
            for mark in self.folder.glob("*.mark"):
                mark.unlink(missing_ok=True)
            known = parse_json(path.read_bytes())
        except (OSError, ValueError) as error:
            raise DataError(f"cannot keep parts in {self.folder}: {error}") from error
        if known != parse_json(_line(about)):
            differ = sorted(
                k for k in about if not isinstance(known, dict) or known.get(k) != about[k]
            )
            raise DataError(
                f"{self.folder} holds parts of another job (other {', '.join(differ)}); remove "
                "that folder, or choose another output"
            )

    def _finished(self, part: Part) -> bool:
        """Whether the part's file has its rows and nothing else."""
        try:
            rows = [result["row"] for result in _read(self.part_file(part))]
        except (OSError, ValueError, KeyError):
            return False
        return rows == list(range(part.first, part.first + part.rows))

    def _results(self) -> Iterator[dict[str, object]]:
        for part in self.input.parts:
            yield from _read(self.part_file(part))

    def _write_parquet(self) -> None:
        arrow = require("pyarrow", "evaluation", "Parquet")
        parquet = require("pyarrow.parquet", "evaluation", "Parquet")
        text, whole = arrow.string(), arrow.int64()
        schema = arrow.schema(
            [("row", whole), ("id", text), ("ids", arrow.list_(text)),
             ("indices", arrow.list_(whole)), ("scores", arrow.list_(arrow.float64())),
             ("truncated", arrow.list_(whole)), ("degraded", text), ("error", text)]
        )  # fmt: skip
        with (
            replacing(self.output) as temporary,
            parquet.ParquetWriter(temporary, schema) as writer,
        ):
            for part in self.input.parts:
                rows = list(_read(self.part_file(part)))
                writer.write_table(arrow.Table.from_pylist(rows, schema))


def do_part(reranker: Reranker, job: Job, part: Part) -> None:
    """Rank a part's rows and keep the results; what every process of a job does.

    Raises:
        DataError: if the input cannot be read, or the part cannot be written.
        ICRError: for what is wrong with all rows, as `rank_rows`.
    """
    results = rank_rows(reranker, read_part(job.input.path, part))
    try:
        _write(job.part_file(part), (_line(result) + "\n" for result in results))
    except OSError as error:
        raise DataError(f"cannot write {job.part_file(part)}: {error.strerror}") from error


def do_here(job: Job) -> Iterator[Part]:
    """Do what is unfinished, in this process; each part is given when it is done."""
    unfinished = job.unfinished()
    if unfinished:
        with Reranker(job.config) as reranker:
            for part in unfinished:
                do_part(reranker, job, part)
                yield part


def _line(value: object) -> str:
    return json.dumps(value, allow_nan=False)


def _read(path: Path) -> Iterator[dict[str, object]]:
    with path.open("rb") as stream:
        for line in stream:
            value = parse_json(line)
            if not isinstance(value, dict):
                raise ValueError(f"{path} holds {type(value).__name__}")
            yield value


def _write(path: Path, lines: Iterator[str] | list[str]) -> None:
    """Whole, or not at all, and on the disk when this returns."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as out:
        out.writelines(lines)
        out.flush()
        os.fsync(out.fileno())
