"""BRIGHT (Su et al., arXiv 2407.12883): reasoning-intensive retrieval, in its published format.

``xlangai/BRIGHT`` on the Hugging Face hub has a folder per configuration and a file per domain::

    documents/biology-00000-of-00001.parquet        id, content
    long_documents/biology-00000-of-00001.parquet   the same, whole pages instead of passages
    examples/biology-00000-of-00001.parquet         id, query, gold_ids, gold_ids_long, excluded_ids
    gpt4_reason/biology-00000-of-00001.parquet      the same, queries with a model's reasoning

A local copy may hold JSON lines (``biology.jsonl``) instead.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from icr_rag.errors import DataError, require
from icr_rag.evaluation.datasets import put_once, put_query
from icr_rag.evaluation.files import read_json_lines
from icr_rag.evaluation.trec import as_id
from icr_rag.evaluation.unread_dataset import UnreadDataset
from icr_rag.types import Document

REPOSITORY = "xlangai/BRIGHT"
DOMAINS = (
    "biology",
    "earth_science",
    "economics",
    "psychology",
    "robotics",
    "stackoverflow",
    "sustainable_living",
    "leetcode",
    "pony",
    "aops",
    "theoremqa_questions",
    "theoremqa_theorems",
)

#: Stands in lists of ids for "none".
_NONE = "N/A"


@dataclass(frozen=True)
class Part:
    """One domain of BRIGHT.

    Attributes:
        domain: one of `DOMAINS`.
        long: whole pages as documents, and the judgements for these.
        queries: configuration of the queries: "examples", or "gpt4_reason" and its like.
    """

    domain: str
    long: bool = False
    queries: str = "examples"

    @property
    def name(self) -> str:
        """As `parse_part` reads it."""
        parts = [self.domain, *(["long"] if self.long else [])]
        return "/".join(parts + ([self.queries] if self.queries != "examples" else []))


def parse_part(text: str) -> Part:
    """``biology``, ``biology/long``, ``biology/gpt4_reason`` or ``biology/long/gpt4_reason``.

    Raises:
        DataError: for anything else.
    """
    domain, *rest = text.split("/")
    if domain not in DOMAINS:
        raise DataError(f"{domain!r} is no domain of BRIGHT; they are {', '.join(DOMAINS)}")
    long = rest[:1] == ["long"]
    rest = rest[long:]
    # Nothing but a folder of queries may be named here, above all no path.
    if len(rest) > 1 or not all(re.fullmatch(r"[\w.-]+_reason", name) for name in rest):
        raise DataError(
            f"{text!r} is no part of BRIGHT; after the domain there may be /long and then the name "
            "of rewritten queries, such as /gpt4_reason"
        )
    return Part(domain, long, *rest)


def open_bright_folder(folder: Path, part: Part) -> UnreadDataset:
    """A domain from a local copy of the repository. Queries are whole, however long.

    Raises:
        DataError: naming what is missing, malformed, or contradicts something else.
        MissingDependencyError: for parquet files, without pyarrow.
    """
    queries: dict[str, str] = {}
    judgements: dict[str, dict[str, int]] = {}
    excluded: dict[str, frozenset[str]] = {}
    gold_key = "gold_ids_long" if part.long else "gold_ids"
    for place, row in _rows(folder, part.queries, part.domain):
        query = as_id(row.get("id"), place)
        put_query(queries, query, _string(row, "query", place), place)
        gold = _ids(row, gold_key, place)
        banned = frozenset(_ids(row, "excluded_ids", place))
        both = sorted(banned.intersection(gold))
        if both:
            raise DataError(f"{place}: {both[0]!r} is both in {gold_key} and in excluded_ids")
        put_once(judgements, query, dict.fromkeys(gold, 1), place)
        put_once(excluded, query, banned, place)

    def read_documents(keep: Collection[str] | None) -> dict[str, Document]:
        documents: dict[str, Document] = {}
        config = "long_documents" if part.long else "documents"
        for place, row in _rows(folder, config, part.domain):
            name, text = as_id(row.get("id"), place), _string(row, "content", place)
            if keep is None or name in keep:
                put_once(documents, name, Document(text, id=name), place)
        return documents

    opened = UnreadDataset(part.name, queries, judgements, read_documents, excluded=excluded)
    opened.check(f"{folder / part.queries}, {part.domain}")
    return opened


def open_bright_hub(part: Part) -> UnreadDataset:
    """A domain from the Hugging Face hub, or from its cache on this machine.

    Raises:
        DataError: if it can be had from neither.
        MissingDependencyError: without huggingface_hub or pyarrow.
    """
    hub = require("huggingface_hub", "evaluation", "BRIGHT from the hub")
    require("pyarrow.parquet", "evaluation", "BRIGHT")
    documents = "long_documents" if part.long else "documents"
    wanted = [f"{config}/{part.domain}-*.parquet" for config in (documents, part.queries)]
    try:
        folder = hub.snapshot_download(REPOSITORY, repo_type="dataset", allow_patterns=wanted)
    # What the hub's errors derive from: no connection, not found, not in the cache.
    except (OSError, ValueError) as error:
        raise DataError(
            f"bright:{part.name} could not be had from the hub ({REPOSITORY}): {error}; check the "
            "connection, or give the folder of a local copy and the domain as split"
        ) from error
    return open_bright_folder(Path(folder), part)


def _rows(folder: Path, config: str, domain: str) -> Iterator[tuple[str, dict[str, object]]]:
    """Every row of a file, or of its numbered pieces, with its place for messages."""
    for path in _files(folder / config, domain):
        if path.suffix == ".parquet":
            yield from _parquet_rows(path)
            continue
        for place, row in read_json_lines(path):
            if not isinstance(row, dict):
                raise DataError(f"{place}: expected an object, got a {type(row).__name__}")
            yield place, row


def _files(folder: Path, domain: str) -> list[Path]:
    """The files of a domain, all of them, in order."""
    pattern = re.compile(rf"{domain}(-(\d+)-of-(\d+))?\.(parquet|jsonl)")
    listed = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [(path, match) for path in listed if (match := pattern.fullmatch(path.name))]
    if not found:
        raise DataError(
            f"{folder} holds neither {domain}-00000-of-00001.parquet nor {domain}.jsonl; BRIGHT "
            "has this configuration not for every domain"
        )
    kinds = {(match[3], match[4]) for _, match in found}
    if len(kinds) > 1:
        names = ", ".join(path.name for path, _ in found)
        raise DataError(f"{folder} holds {domain} several times: {names}; leave one")
    expected = int(found[0][1][3] or 1)
    if len(found) != expected:
        raise DataError(f"{folder} holds {len(found)} of the {expected} files of {domain}")
    return [path for path, _ in found]


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    parquet = require("pyarrow.parquet", "evaluation", f"Reading {path.name}")
    number = 0
    try:
        # In batches: long_documents hold whole web pages.
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    # pyarrow's own errors derive from these.
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _string(row: dict[str, object], key: str, place: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise DataError(f"{place}: {key!r} is {value!r}; it must be a string")
    return value


def _ids(row: dict[str, object], key: str, place: str) -> list[str]:
    """A list of ids, without what stands for none."""
    value = row.get(key)
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise DataError(f"{place}: {key!r} is {value!r}; it must be a list of strings")
    return [name for name in value if name != _NONE]
