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

#: Gives, for each list of documents, one row of values per document.
Run = Callable[[Sequence[Sequence[Ids]]], Sequence[torch.Tensor]]


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
        self, queries: Sequence[Ids], lists: Sequence[Sequence[Ids]], run: Run
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Per list the values of its documents, and the mean of those of the null documents.

        Args:
            queries: one per list: what ``run`` asks.
            lists: each of at least one document.
            run: is called once: for all lists, each with the null documents behind it unless what
                they give for its query is known, or comes with an earlier list.

        Returns:
            float64 [document, ...] and [...], per list.
        """
        keys = [tuple(query_ids) for query_ids in queries]
        with self._engine.lock:
            identity = self._engine.identity(whole=True)
            if identity != self._identity:
                self._known.clear()
                self._identity = identity
            nulls = {key: self._known[key] for key in keys if key in self._known}
            first = {key: place for place, key in reversed([*enumerate(keys)]) if key not in nulls}
            asks = set(first.values())
            found = run([[*own, *self.ids] if n in asks else own for n, own in enumerate(lists)])
            values = [own.double() for own in found]
            for key, place in first.items():
                nulls[key] = values[place][len(lists[place]) :].mean(dim=0)
            for key in keys:
                self._known[key] = nulls[key]
                self._known.move_to_end(key)
            while len(self._known) > MOST_QUERIES:
                self._known.popitem(last=False)
        return [
            (own[: len(documents)], nulls[key])
            for own, documents, key in zip(values, lists, keys, strict=True)
        ]


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
