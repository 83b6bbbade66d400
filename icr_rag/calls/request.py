"""One call of `Reranker.rank`, as it was given."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from icr_rag.arguments import (
    SCORES,
    RetrievalScores,
    check_columns,
    check_instruction,
    check_max_tokens,
    check_retrieval_scores,
    check_top_n,
    only_column,
)
from icr_rag.config import RerankerConfig
from icr_rag.config_scores import counts_first_stage
from icr_rag.deadline import Clock, Deadline
from icr_rag.errors import InputError
from icr_rag.fields import check_given
from icr_rag.types import Document, DocumentLike

if TYPE_CHECKING:
    from icr_rag.calls.embedder import Embedder
    from icr_rag.frameworks.evidence import Column

#: Weights by name that no list of scores is needed for.
WITHOUT_SCORES = ("order", "embedder")


@dataclass(frozen=True)
class FirstStage:
    """What there is of the first stage beside the order of the documents.

    Attributes:
        columns: its scores by name, checked, one per document.
        embedder: what makes scores where these have none that are alike to cosines; None: nothing.
    """

    columns: Mapping[str, Column] = field(default_factory=dict)
    embedder: Embedder | None = None


@dataclass(frozen=True)
class Request:
    """What a ranking is asked for.

    Attributes:
        query: may be wrong yet: it is checked where a failure may be passed through.
        documents: checked, in first-stage order.
        top_n: how many hits to return; None: all.
        retrieval_scores: the first stage's, unchecked.
        due: when the answer is; None: there is no deadline.
        clock: by which work is measured.
        given_up: whether there is no time left to even begin.
        instruction: checked; None: that of the settings.
        fields: what the model reads of each document where that is not the document as it is.
        composing: seconds that it took to check documents, and to compose what is read of them.
        max_tokens_per_doc: most tokens of a document that are read; None: as the settings say.
    """

    query: str
    documents: Sequence[Document]
    top_n: int | None = None
    retrieval_scores: RetrievalScores | None = None
    due: Deadline | None = None
    clock: Clock = time.perf_counter
    given_up: bool = False
    instruction: str | None = None
    fields: Sequence[Document] | None = None
    composing: float = 0.0
    max_tokens_per_doc: int | None = None

    @classmethod
    def of(
        cls,
        config: RerankerConfig,
        clock: Clock,
        query: str,
        documents: Sequence[DocumentLike],
        top_n: int | None,
        retrieval_scores: RetrievalScores | None,
        due: Deadline | None,
        instruction: str | None,
        max_tokens_per_doc: int | None,
    ) -> Request:
        """What a caller gave, and what the configuration says where nothing was.

        With ``rank_fields`` it may take long: what is read of documents is composed.

        Args:
            due: begun before, for the time that this takes counts.

        Raises:
            InputError: for documents, a ``top_n``, an ``instruction`` or a ``max_tokens_per_doc``
                that cannot be.
        """
        started = clock()
        given = check_given(documents, config.rank_fields, config.rank_fields_format)
        return cls(
            query,
            given.documents,
            check_top_n(top_n, config.top_n),
            retrieval_scores,
            due,
            clock,
            instruction=check_instruction(instruction),
            fields=given.read,
            composing=clock() - started,
            max_tokens_per_doc=check_max_tokens(max_tokens_per_doc),
        )

    @classmethod
    def to_warm_up(cls, config: RerankerConfig, clock: Clock) -> Request:
        """One that any configuration can rank."""
        documents = (Document("One document."), Document("Another document."))
        scores = [1.0, 0.0] if config.fusion == "weighted" else None
        return cls("warm-up", documents, None, scores, clock=clock)

    @property
    def busy(self) -> float:
        """Seconds by a clock that stands still while others are waited for."""
        return self.clock() - (0.0 if self.due is None else self.due.waited)

    @property
    def answered(self) -> bool:
        """Whether somebody was given another answer already, so that nobody sees this one."""
        return self.due is not None and self.due.abandoned and not self.given_up

    @property
    def read(self) -> Sequence[Document]:
        """What the model reads of each document."""
        return self.documents if self.fields is None else self.fields

    def first_stage(self, config: RerankerConfig) -> Mapping[str, Column]:
        """The first stage's scores by name; empty where there are none, or they do not count.

        Blank documents, which are not read, need none.

        Raises:
            InputError: for what are no scores of these documents, for several lists where one is
                asked for, and for weights of scores that are not among those given.
        """
        scores = self.retrieval_scores
        if scores is None or not counts_first_stage(config):
            return {}
        count = len(self.documents)
        if config.fusion != "auto":
            one = only_column(scores, config.fusion)
            blank = {n for n, own in enumerate(self.read) if not own.content.strip()}
            found = check_retrieval_scores(one, count, config.fusion != "weighted", blank)
            return {} if found is None else {SCORES: found}
        columns = check_columns(scores, count)
        for name, _ in config.first_stage_weights or ():
            if name not in columns and name not in WITHOUT_SCORES:
                raise InputError(
                    f"first_stage_weights has a weight of {name!r}, and the first stage's scores "
                    f"are {', '.join(map(repr, columns)) or 'none'}; give scores of that name in "
                    "retrieval_scores, or leave it out"
                )
        return columns
