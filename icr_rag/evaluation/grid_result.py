"""What a grid of evaluations found: one row per system, data set, order and depth."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Literal

from icr_rag.evaluation.grid_config import Grid
from icr_rag.evaluation.harness import Evaluation

#: "done"; "failed" with an error; "invalid": settings that do not go together; "not run": a peer
#: that this machine cannot run.
Status = Literal["done", "failed", "invalid", "not run"]


@dataclass(frozen=True)
class Slice:
    """Where systems can be compared: the same queries with the same candidates.

    Attributes:
        dataset: its name.
        order: "given", or "shuffled (seed N)".
        depth: how many candidates are re-ranked.
    """

    dataset: str
    order: str
    depth: int

    @property
    def title(self) -> str:
        """For headings."""
        order = "given order" if self.order == "given" else self.order
        return f"{self.dataset}, {order}, top {self.depth}"


@dataclass(frozen=True)
class Difference:
    """A system against the baseline, on the queries of one slice.

    Attributes:
        mean: mean difference of the measure; above 0, the system is better.
        low, high: 95 % confidence interval of the mean.
        p: of the paired test.
        p_holm: the same, corrected for the number of systems tested in this slice (Holm 1979).
    """

    mean: float
    low: float
    high: float
    p: float
    p_holm: float


@dataclass
class Row:
    """One system in one slice.

    Attributes:
        slice: where.
        system: its name.
        kind: "peer", or the mechanism: "attention", "likelihood", "generation", "mixed".
        status: see `Status`; ``reason`` says more where it is not "done".
        evaluation: what was measured; None unless done.
        difference: against the baseline, if there is one.
        traceback: of an error.
    """

    slice: Slice
    system: str
    kind: str
    status: Status
    reason: str | None = None
    evaluation: Evaluation | None = None
    difference: Difference | None = None
    traceback: str | None = None

    @property
    def slug(self) -> str:
        """A file name of its own."""
        parts = (self.slice.dataset, self.slice.order, str(self.slice.depth), self.system)
        return slug(*parts)

    @property
    def costs(self) -> dict[str, float]:
        """Per re-ranked query: median seconds; mean tokens, calls, generated tokens, repairs.

        Empty where there is nothing to tell: the first stage's order costs nothing here.
        """
        if self.evaluation is None or not self.evaluation.finished:
            return {}
        if self.evaluation.config.get("peer") == "bm25":
            return {}
        rows = list(self.evaluation.finished.values())
        return {
            "seconds": self.evaluation.seconds_per_query,
            "tokens": sum(row.tokens for row in rows) / len(rows),
            "calls": sum(row.calls for row in rows) / len(rows),
            "generated_tokens": sum(row.generated_tokens for row in rows) / len(rows),
            "repairs": sum(row.repairs for row in rows) / len(rows),
        }


@dataclass
class GridResult:
    """All rows, in the order of the file: data set by data set, order, depth, system.

    Attributes:
        grid: what was asked for.
        rows: what came of it.
        given: slice -> measure -> mean, of the candidates in the order that systems were given.
        notes: what a reader of the report should know besides.
    """

    grid: Grid
    rows: list[Row]
    given: dict[Slice, dict[str, float]]
    notes: list[str] = field(default_factory=list)

    @property
    def slices(self) -> list[Slice]:
        """In the order of the file."""
        return list(dict.fromkeys(row.slice for row in self.rows))

    def of(self, place: Slice) -> list[Row]:
        """The rows of a slice: done ones first, best first by the headline measure."""
        rows = [row for row in self.rows if row.slice == place]
        return sorted(rows, key=lambda row: -self.headline(row))

    def headline(self, row: Row) -> float:
        """The headline measure; -1 where nothing was measured."""
        return -1.0 if row.evaluation is None else row.evaluation.measures[self.grid.headline]

    @property
    def failed(self) -> list[Row]:
        """The rows with an error."""
        return [row for row in self.rows if row.status == "failed"]


def slug(*parts: object) -> str:
    """A file name that tells the parts, and a digest that keeps it unique."""
    text = "-".join(str(part) for part in parts)
    readable = re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.")[:80]
    # Names may differ in what no file name can hold.
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()
    return f"{readable}-{digest[:8]}"
