"""A grid of evaluations, as it is written in one YAML file.

::

    data:
      - source: data/scifact            # BEIR folder, or another name of `sources`
        queries: {parity: odd, limit: 100}
    orders: [given, 1]                  # the first stage's, and shuffled with seed 1
    depths: [20]
    reranker: {model: smollm2-135m}     # settings that all systems share
    systems:
      icr: {layers: all}
      generation: {scoring: generation, framework: [listwise, setwise]}
    peers: [bm25, cross_encoder]
    baseline: icr

A list in a system stands for one system per value; several lists for all combinations. Paths are
relative to the working directory, as in every configuration.
"""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from icr_rag.config import RerankerConfig
from icr_rag.config_sources import read_config_file
from icr_rag.errors import ConfigError

#: Settings that would hide a failure or a document; an evaluation sets them itself.
FIXED = {
    "on_error": "raise",
    "score_threshold": None,
    "min_answerable": None,
    "near_duplicates": None,
    "top_n": None,
}

#: Fields whose values may themselves be lists.
_LISTS = ("layers", "heads")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class QuerySubset(_Strict):
    """Which of the judged queries count.

    Attributes:
        parity: only queries whose id is an even or odd number. An id that is no whole number goes
            by that of its SHA-256 digest. Halves of a data set for choosing and for reporting.
        limit: only the first so many of these, in file order.
    """

    parity: Literal["even", "odd"] | None = None
    limit: int | None = Field(None, ge=1)


class DataEntry(_Strict):
    """A data set.

    Attributes:
        source: a BEIR folder, or another name that `icr_rag.evaluation.sources` lists.
        name: what it is called in the report; None: the end of ``source``.
        split: which judgements.
        candidates: file of the first stage's run; None: the source's own, else BM25's.
        queries: which of them.
        document_words: cut documents to so many words; None: leave them whole.
        ignore_identical_ids: a document that has its query's id is no candidate, as in BEIR's
            evaluation.
    """

    source: str = Field(min_length=1)
    name: str | None = Field(None, min_length=1)
    split: str = "test"
    candidates: str | None = None
    queries: QuerySubset = QuerySubset()
    document_words: int | None = Field(None, ge=1)
    ignore_identical_ids: bool = True

    @property
    def label(self) -> str:
        """Its name in the report."""
        return Path(self.source).name if self.name is None else self.name


class PeerEntry(_Strict):
    """Something else to compare with: see `icr_rag.evaluation.peers`.

    Attributes:
        peer: "bm25", "cross_encoder", "rank_llm" or "module:factory".
        name: what it is called in the report; None: ``peer``.
        options: keyword arguments of its factory.
    """

    peer: str = Field(min_length=1)
    name: str | None = Field(None, min_length=1)
    options: dict[str, object] = {}

    @property
    def label(self) -> str:
        """Its name in the report."""
        return self.peer if self.name is None else self.name


class SignificanceEntry(_Strict):
    """The paired test of each system against the baseline.

    Attributes:
        measure: None: the first of ``measures``.
        method, samples, seed: as `icr_rag.evaluation.significance.paired_test` takes them.
    """

    measure: str | None = None
    method: Literal["randomization", "bootstrap"] = "randomization"
    samples: int = Field(10_000, ge=1)
    seed: int = 0


class Grid(_Strict):
    """The whole file.

    Attributes:
        data: data sets.
        orders: "given", or the seed of a shuffle, so that the first stage's order tells nothing.
        depths: how many candidates are re-ranked.
        measures: as ir-measures writes them; the first is the headline.
        reranker: fields of `RerankerConfig` that all systems share.
        systems: name -> fields of `RerankerConfig`, each a value or a list of values.
        peers: what else is compared, on the same candidates.
        baseline: name of the system or peer that the others are tested against.
        significance: how they are.
        skip_invalid: combinations of settings that do not go together become rows that say so;
            otherwise they are an error.

    Raises:
        ConfigError: from `load_grid` and `make_grid`.
    """

    data: tuple[DataEntry, ...] = Field(min_length=1)
    orders: tuple[Literal["given"] | int, ...] = Field(("given",), min_length=1)
    depths: tuple[int, ...] = Field((100,), min_length=1)
    measures: tuple[str, ...] = Field(("nDCG@10", "RR@10", "R@10"), min_length=1)
    reranker: dict[str, object] = {}
    systems: dict[str, dict[str, object]] = {}
    peers: tuple[PeerEntry, ...] = ()
    baseline: str | None = None
    significance: SignificanceEntry = SignificanceEntry()
    skip_invalid: bool = False

    @field_validator("data", "peers", mode="before")
    @classmethod
    def _expand_names(cls, value: object, info: ValidationInfo) -> object:
        """A data set or a peer may be written as its bare name."""
        key = "source" if info.field_name == "data" else "peer"
        if not isinstance(value, (list, tuple)):
            return value
        return [{key: item} if isinstance(item, str) else item for item in value]

    @field_validator("systems", mode="before")
    @classmethod
    def _allow_empty_systems(cls, value: object) -> object:
        """``icr:`` with nothing after it means the shared settings."""
        if not isinstance(value, dict):
            return value
        return {str(name): {} if fields is None else fields for name, fields in value.items()}

    @field_validator("depths")
    @classmethod
    def _check_depths(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if min(value) < 1:
            raise ValueError("a depth is a whole number from 1")
        return value

    @model_validator(mode="after")
    def _check_names(self) -> Grid:
        if not self.systems and not self.peers:
            raise ValueError("there is nothing to evaluate: give systems, peers or both")
        named: tuple[tuple[str, list[object]], ...] = (
            ("data", [entry.label for entry in self.data]),
            ("orders", list(self.orders)),
            ("depths", list(self.depths)),
            ("systems and peers", [*self.systems, *(entry.label for entry in self.peers)]),
        )
        for what, values in named:
            twice = [value for value in values if values.count(value) > 1]
            if twice:
                raise ValueError(f"{what}: {twice[0]!r} stands there twice; give it another name")
        for fields in (self.reranker, *self.systems.values()):
            fixed = sorted(set(fields) & set(FIXED))
            if fixed:
                raise ValueError(
                    f"{', '.join(fixed)} cannot be set in a grid: all documents must be ranked and "
                    "a failure must show"
                )
        measure = self.significance.measure
        if measure is not None and measure not in self.measures:
            raise ValueError(f"significance.measure={measure!r} is not one of {self.measures}")
        return self

    @property
    def headline(self) -> str:
        """The measure of tests and plots."""
        first = self.measures[0]
        return first if self.significance.measure is None else self.significance.measure


@dataclass(frozen=True)
class System:
    """One configuration of the grid.

    Attributes:
        name: of its entry, and of what varies there: ``setwise: sort=heap``.
        config: None if its settings do not go together.
        reason: why not.
    """

    name: str
    config: RerankerConfig | None
    reason: str | None = None


def load_grid(path: str | Path) -> Grid:
    """Read a grid from a YAML or TOML file.

    Raises:
        ConfigError: naming the key that is wrong and what it may be.
    """
    return make_grid(read_config_file(Path(path)), str(path))


def make_grid(values: Mapping[str, object], name: str = "the grid") -> Grid:
    """A checked grid from the values of a file; ``name`` is for messages. Raises as `load_grid`."""
    try:
        grid = Grid.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(f"{name}: {explain(error, Grid)}") from error
    names = [system.name for system in systems(grid)] + [entry.label for entry in grid.peers]
    if grid.baseline is not None and grid.baseline not in names:
        raise ConfigError(
            f"{name}: baseline={grid.baseline!r} is none of the systems: {', '.join(names)}"
        )
    return grid


def systems(grid: Grid) -> list[System]:
    """Every system of the grid, in file order.

    Raises:
        ConfigError: for a wrong setting; and, without ``skip_invalid``, for settings that do not
            go together, naming all such systems.
    """
    found = [system for name in grid.systems for system in _expand(grid, name)]
    wrong = [system for system in found if system.config is None]
    if wrong and not grid.skip_invalid:
        listed = "; ".join(f"{system.name}: {system.reason}" for system in wrong)
        raise ConfigError(
            f"systems that cannot be: {listed}. Take them out, or set skip_invalid: true to have "
            "them marked in the report"
        )
    return found


def _expand(grid: Grid, name: str) -> Iterator[System]:
    fields = {**grid.reranker, **grid.systems[name]}
    choices = {field: _choices(field, value) for field, value in fields.items()}
    varied = [field for field, values in choices.items() if len(values) > 1]
    for values in itertools.product(*choices.values()):
        settings = dict(zip(choices, values, strict=True))
        parts = ", ".join(f"{field}={_shown(settings[field])}" for field in varied)
        label = f"{name}: {parts}" if parts else name
        try:
            yield System(label, RerankerConfig(**{**settings, **FIXED}))
        except ConfigError as error:
            if not _is_combination(error):
                raise ConfigError(f"systems.{label}: {error}") from error
            yield System(label, None, str(error))


def _choices(field: str, value: object) -> list[object]:
    """The values that a field takes in turn."""
    if not isinstance(value, list):
        return [value]
    if field in _LISTS:
        # [10, 13] is one window and not two, where it can be read so.
        try:
            RerankerConfig(**{field: value})
        except ConfigError:
            pass
        else:
            return [value]
    if not value:
        raise ConfigError(f"{field}: an empty list leaves no value; give one, or leave it out")
    return value


def _is_combination(error: ConfigError) -> bool:
    """Whether each setting is allowed, but not all of them together."""
    cause = error.__cause__
    return isinstance(cause, ValidationError) and not any(item["loc"] for item in cause.errors())


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Pydantic's findings in one line: key, value received, what is allowed."""
    lines = []
    for item in error.errors():
        # A union's members stand in the place too; what is no key of a file is left out.
        key = ".".join(str(part) for part in item["loc"] if not str(part).startswith("literal["))
        if item["type"] == "extra_forbidden":
            close = difflib.get_close_matches(str(item["loc"][-1]), model.model_fields, n=1)
            hint = f"; did you mean {close[0]!r}?" if close and len(item["loc"]) == 1 else ""
            lines.append(f"unknown key {key!r}{hint}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            missing = item["type"] == "missing" or not key
            lines.append(
                f"{key}: {message}".removeprefix(": ")
                if missing
                else f"{key}={item['input']!r}: {message}"
            )
    return "; ".join(dict.fromkeys(lines))
