"""What a scorer is: a base class, and one small protocol per thing that it can do.

A *scorer* judges documents by one mechanism. Its framework says which of these it is asked:

- `Pointwise.score_each`: one score per document, by itself;
- `Listwise.score`: one score per document of one window;
- `Setwise.pick`: per set, the place of its most relevant document;
- `Pairwise.prefer`: per pair, a margin, above 0 for the first.

All take token ids as the scorer's ``prompts`` encode them, give higher numbers to more relevant
documents, and add to a `Cost`. What a scorer can do beyond that, other protocols say.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from icr_rag.deadline import Pace
from icr_rag.prompts.layout import Ids

if TYPE_CHECKING:
    import torch

    from icr_rag.config import RerankerConfig
    from icr_rag.model.engine import Engine
    from icr_rag.prompts.passages import Splitter
    from icr_rag.scoring.judge import Judge
    from icr_rag.scoring.selection import Selection
    from icr_rag.states.document_states import DocumentStates

__all__ = [
    "ASKED",
    "AnswersTogether", "Cost", "Ids", "InParts", "KeepsStates", "Listwise", "Pairwise", "Pointwise",
    "Prompts", "ReadsAttention", "ReadsPairs", "Scorer", "Setwise", "evictions",
]  # fmt: skip


@dataclass
class Cost:
    """What one ranking cost so far; see `icr_rag.types.Usage`.

    Attributes:
        shared: seconds of ``seconds`` that were spent before the call, in passes that it shared
            with others.
    """

    tokens: int = 0
    windows: int = 0
    calls: int = 0
    generated_tokens: int = 0
    repairs: int = 0
    states_evicted: int = 0
    shared: float = 0.0
    seconds: dict[str, float] = field(
        default_factory=lambda: {"prompt": 0.0, "forward": 0.0, "score": 0.0}
    )

    def add_shared(self, other: Cost) -> None:
        """Add this call's share of what was spent before it."""
        self.tokens += other.tokens
        self.windows += other.windows
        self.calls += other.calls
        self.generated_tokens += other.generated_tokens
        self.repairs += other.repairs
        self.states_evicted += other.states_evicted
        for phase, seconds in other.seconds.items():
            self.seconds[phase] += seconds
            self.shared += seconds


class Prompts(Protocol):
    """How a scorer's prompts take up tokens."""

    def encode_query(self, query: str) -> list[int]:
        """Token ids of the query's text."""

    def encode_documents(self, contents: Sequence[str]) -> list[list[int]]:
        """Token ids of each document's text."""

    def overhead(self, query_ids: Ids) -> int:
        """Most tokens of a prompt that are not documents."""

    def document_cost(self, document_ids: Ids, count: int) -> int:
        """Tokens that a document takes up as one of ``count``."""


class Scorer:
    """The base of all scorers; a new one sets ``prompts`` and has its framework's method.

    Args:
        engine: the model.
        config: the settings, scoring="auto" replaced.
        framework: what it is for, "auto" replaced.

    Attributes:
        prompts: its prompts.
        layers: the layers whose attention is read, ascending; empty where none is.
        first_stage_weight: of the first stage's order beside its scores, as its profile has it; 0:
            none.
        scores_weight: of the first stage's scores likewise; None: the profile does not say.
        together: how many documents must fit in one prompt.
        reason: why this way of scoring, as a clause.
        judge: what its absolute scores mean; None: scores are relative to the list.
        least: fewest tokens of a document that must fit.
        capacity: most tokens of documents in one prompt, where they do not stand one after the
            other and so do not use up the model's context; None: the prompt's budget.
        pace: how long its work took so far; by it calls with a deadline choose what to begin.
    """

    prompts: Prompts
    first_stage_weight: float = 0.0
    scores_weight: float | None = None
    together: int = 1
    reason: str = ""
    judge: Judge | None = None
    least: int = 1
    capacity: int | None = None

    def __init__(self, engine: Engine, config: RerankerConfig, framework: str) -> None:
        self.engine = engine
        self.config = config
        self.framework = framework
        self.layers: list[int] = []
        self.pace = Pace()

    def basis(self) -> dict[str, str]:
        """What its explained scores depend on beside the model and the texts: a name -> how it is.
        A calibration is used where this is as it was when it was fitted."""
        return {}

    @cached_property
    def reach(self) -> int | None:
        """Most tokens of a prompt that the model takes and the layers that are read see; None: its
        configuration does not say."""
        from icr_rag.model.limits import reach

        known = (self.engine.context, reach(self.engine.text_config, self.layers))
        return min((n for n in known if n is not None), default=None)

    def learn_from(self, twin: Scorer) -> None:
        """Take over what is known to a scorer that differs in its instruction alone: how long work
        takes, and how documents are split."""
        self.pace = twin.pace
        if self.config.passages != "none":
            self.splitter = twin.splitter

    @cached_property
    def splitter(self) -> Splitter:
        """What makes passages of documents, measured as its prompts hold them.

        Raises:
            MissingDependencyError: if the library that finds sentences is not installed.
        """
        from icr_rag.prompts.passages import Splitter

        config = self.config
        encode = self.prompts.encode_documents
        return Splitter(encode, config.passage_tokens, config.passage_overlap)


@runtime_checkable
class Pointwise(Protocol):
    """Scores documents one by one."""

    def score_each(self, query_ids: Ids, documents: Sequence[Ids], cost: Cost) -> list[float]:
        """One score per document, higher is better."""


@runtime_checkable
class InParts(Protocol):
    """Scores documents one by one, and can read some of them now and others later.

    Without it a pointwise scorer is asked for all documents at once, or under a deadline for none.
    """

    def read_each(self, query_ids: Ids, documents: Sequence[Ids], cost: Cost) -> torch.Tensor:
        """[document, ...]: what does not depend on the other documents."""

    def scores_of(self, rows: Sequence[torch.Tensor]) -> list[float]:
        """What `Pointwise.score_each` gives for all documents whose rows these are, in order."""


@runtime_checkable
class ReadsPairs(InParts, Protocol):
    """Reads several lists of documents, each for a query of its own, in passes that they share."""

    def read_pairs(
        self, queries: Sequence[Ids], lists: Sequence[Sequence[Ids]], costs: Sequence[Cost]
    ) -> list[torch.Tensor]:
        """Per list what `InParts.read_each` gives of it.

        Args:
            queries: one per list; several may be the same.
            lists: at least one, each of at least one document.
            costs: one per list, to which its share is added.
        """


@runtime_checkable
class Listwise(Protocol):
    """Scores the documents of a window."""

    def score(self, query_ids: Ids, documents: Sequence[Ids], cost: Cost) -> list[float]:
        """One score per document, higher is better, comparable within this call only."""


@runtime_checkable
class Setwise(Protocol):
    """Picks the best of a few documents."""

    def pick(self, query_ids: Ids, sets: Sequence[Sequence[Ids]], cost: Cost) -> list[int]:
        """Per set, the place of its most relevant document."""


@runtime_checkable
class Pairwise(Protocol):
    """Compares two documents."""

    def prefer(self, query_ids: Ids, pairs: Sequence[tuple[Ids, Ids]], cost: Cost) -> list[float]:
        """Per pair, a margin: above 0 if the first is more relevant, below 0 if the second is."""


#: Framework -> what a scorer must be able to do for it.
ASKED: dict[str, type] = {
    "pointwise": Pointwise,
    "listwise": Listwise,
    "setwise": Setwise,
    "pairwise": Pairwise,
}


@runtime_checkable
class ReadsAttention(Protocol):
    """Reads attention, head by head."""

    selection: Selection

    def read_documents(
        self, query_ids: Ids, documents: Sequence[Ids], cost: Cost, needed: Collection[str]
    ) -> torch.Tensor:
        """float32 [document, layer and head, reading]: `icr_rag.model.reading.READINGS`, 0 where
        not ``needed``; (layer, head) pairs in ascending order of layers."""


@runtime_checkable
class KeepsStates(Protocol):
    """Can keep what it encoded of documents."""

    #: Where they are kept; None: its configuration keeps none.
    states: DocumentStates | None

    def bodies(self, documents: Sequence[Ids]) -> Sequence[Ids]:
        """What is kept of documents, as `DocumentStates` takes it."""


@runtime_checkable
class AnswersTogether(Protocol):
    """Scores the same documents for several queries in one pass."""

    def score_queries(
        self, queries: Sequence[Ids], documents: Sequence[Ids], cost: Cost
    ) -> list[list[float]]:
        """`Listwise.score` of each query."""


def evictions(scorer: Scorer) -> int:
    """How many documents' kept states had to make room so far; 0 where none are kept."""
    states = scorer.states if isinstance(scorer, KeepsStates) else None
    return 0 if states is None else states.evictions
