"""Documents without content: what scores are measured from where they are to be absolute.

A query has a likelihood, and gets attention, whatever document stands before it: common words are
likely anyway. What documents without content give is what the query would have without any. They
are run beside a call's documents, as prompts like theirs, and what they give is kept per query: the
same query with other documents does not pay for them again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch

from icr_rag.config import RerankerConfig
from icr_rag.errors import ConfigError
from icr_rag.model.engine import Engine
from icr_rag.order import UNREAD
from icr_rag.scoring.base import Ids, Prompts

#: Several, because a single one has a liking for some queries.
NULL_DOCUMENTS = ("N/A", "...", "This is a passage.")

#: Queries whose values are kept, one number per weighted head at most; the least recently used
#: go first.
MOST_QUERIES = 256

#: Nats per token. A query that is certain without any document leaves nothing to explain; with
#: this a document that makes it less likely still has a finite score.
_LEAST_SURPRISE = 1e-6

#: Gives one row of values per document.
Run = Callable[[Sequence[Ids]], torch.Tensor]


class NullDocuments:
    """The null documents of one scorer, and what they gave for the latest queries.

    What is kept depends on the weights, which are looked at in each call, on the query's tokens,
    which are the key, and on the prompts and settings of the scorer, which do not change.

    Args:
        engine: the model.
        ids: token ids of each document.

    Attributes:
        ids: the same, without those that the tokenizer knows no character of.
        longest: tokens of the longest.
    """

    def __init__(self, engine: Engine, ids: Sequence[Ids]) -> None:
        self.ids = [list(own) for own in ids if own]
        if not self.ids:
            raise ConfigError(
                "absolute scores compare with documents without content, and the tokenizer "
                f"knows no character of {', '.join(map(repr, NULL_DOCUMENTS))}; choose another "
                "score_mode"
            )
        self.longest = max(map(len, self.ids))
        self._engine = engine
        self._identity = ""
        self._known: OrderedDict[tuple[int, ...], torch.Tensor] = OrderedDict()

    def run_beside(
        self, query_ids: Ids, documents: Sequence[Ids], run: Run
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Values of documents, and the mean of those of the null documents.

        Args:
            query_ids: what ``run`` asks.
            documents: at least one.
            run: is called once: for all of them, and behind these the null documents unless their
                values are known.

        Returns:
            float64 [document, ...] and [...].
        """
        key = tuple(query_ids)
        with self._engine.lock:
            identity = self._engine.identity(whole=True)
            if identity != self._identity:
                self._known.clear()
                self._identity = identity
            null = self._known.get(key)
            values = run(documents if null is not None else [*documents, *self.ids]).double()
            if null is None:
                null = values[len(documents) :].mean(dim=0)
                self._known[key] = null
                if len(self._known) > MOST_QUERIES:
                    self._known.popitem(last=False)
            self._known.move_to_end(key)
        return values[: len(documents)], null


def null_documents(
    engine: Engine, config: RerankerConfig, prompts: Prompts
) -> NullDocuments | None:
    """The null documents of a scorer; None where ``score_mode`` asks for none.

    The caller holds the engine's lock, as for everything that tokenises.
    """
    if not config.absolute:
        return None
    return NullDocuments(engine, prompts.encode_documents(NULL_DOCUMENTS))


def explained_share(values: torch.Tensor, null: torch.Tensor) -> torch.Tensor:
    """1 - surprise / surprise without a document: the share that a document explains.

    Args:
        values: mean log-probabilities, of tokens or of attention, in nats, at most 0;
            [document, ...].
        null: the same of null documents; [...].

    Returns:
        At most 1; 0 where the document explains as little as none, below 0 where it misleads.
    """
    return 1 - values / null.clamp(max=-_LEAST_SURPRISE)


def as_scores(values: torch.Tensor) -> list[float]:
    """Absolute scores, none of them below that of a document that is not read."""
    scores: list[float] = values.clamp(min=UNREAD).tolist()
    return scores
