"""What re-rankers are compared with, on the same candidates and, if it has any, the same weights.

- ``bm25``: the first stage's own order, whatever order the others are given. Costs nothing.
- ``cross_encoder``: `sentence_transformers.CrossEncoder` on a causal LM: the logit of "yes" minus
  that of "no" after a question about one document (its module `LogitScore`).
- ``rank_llm``: castorini/rank_llm's listwise generation (arXiv 2312.02724), which runs on vllm.
- ``module:factory``: anything of yours. The factory is called with the grid's shared settings (a
  `RerankerConfig`) and the entry's options, and returns an object whose ``rank(query, documents)``
  gives a `Ranking`, or input positions, best first.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, SupportsInt

from icr_rag.config import RerankerConfig
from icr_rag.errors import ConfigError, InputError
from icr_rag.evaluation.peer_base import NotRunHere, ranking_of
from icr_rag.types import Document, Ranking, Usage

__all__ = ["PEERS", "FirstStage", "NotRunHere", "Peer", "check_peer", "make_peer", "ranking_of"]

#: The setting's default, which goes with any fusion.
_WEIGHT = RerankerConfig.model_fields["fusion_weight"].default


class Inner(Protocol):
    """What a factory makes."""

    def rank(self, query: str, documents: Sequence[Document], /) -> Ranking | Iterable[SupportsInt]:
        """A ranking, or positions in ``documents``, best first."""


class Peer:
    """A peer as the harness wants it: it has a ``config``, and its ``rank`` gives a `Ranking`.

    Args:
        inner: has ``rank(query, documents)``; ``close()`` is called if there is one.
        config: the grid's shared settings.

    Raises:
        ConfigError: if ``inner`` has no ``rank``.
    """

    def __init__(self, inner: Inner, config: RerankerConfig) -> None:
        if not callable(getattr(inner, "rank", None)):
            raise ConfigError(f"{type(inner).__name__} has no method rank(query, documents)")
        self.inner = inner
        # A peer knows nothing of fusion with the first stage.
        self.config = config.replace(
            fusion="none", fusion_weight=_WEIGHT, first_stage_weights=None, embedder=None
        )

    def rank(
        self,
        query: str,
        documents: Sequence[Document],
        top_n: int | None = None,
        *,
        retrieval_scores: Sequence[float] | None = None,
    ) -> Ranking:
        """All documents, best first.

        Raises:
            InputError: if the peer lost, repeated or invented a document.
        """
        result = self.inner.rank(query, documents)
        if isinstance(result, Ranking):
            order, usage = [hit.index for hit in result], result.usage
        else:
            order, usage = [int(position) for position in result], Usage()
        if sorted(order) != list(range(len(documents))):
            raise InputError(
                f"{type(self.inner).__name__}.rank returned the positions {order} for "
                f"{len(documents)} documents; it must return each from 0 to {len(documents) - 1} "
                "once"
            )
        return ranking_of(order, documents, usage)

    def close(self) -> None:
        """Let go of the weights."""
        close = getattr(self.inner, "close", None)
        if close is not None:
            close()


class FirstStage:
    """The order as given: what the candidates are worth without any re-ranking."""

    def __init__(self, config: RerankerConfig) -> None:
        self.config = config

    def rank(self, query: str, documents: Sequence[Document]) -> list[int]:
        """The positions as they are."""
        return list(range(len(documents)))


def make_peer(name: str, config: RerankerConfig, options: Mapping[str, object]) -> Peer:
    """Make a peer; its weights may be loaded here.

    Args:
        name: "bm25", "cross_encoder", "rank_llm" or "module:factory".
        config: the grid's shared settings.
        options: keyword arguments of the factory.

    Raises:
        ConfigError: for a name that is none of these, or options that the factory does not take.
        NotRunHere: if this machine cannot run it.
    """
    factory = _factory(name)
    try:
        inner = factory(config, **options)
    except TypeError as error:
        raise ConfigError(f"peer {name!r} with options {dict(options)}: {error}") from error
    return Peer(inner, config)


def check_peer(name: str) -> None:
    """Raise `ConfigError` unless ``name`` is a peer's or has the form "module:factory"."""
    module, colon, attribute = name.partition(":")
    if name not in PEERS and not (colon and module and attribute):
        raise ConfigError(
            f"peer={name!r}; allowed are {', '.join(PEERS)} and 'module:factory' of your own"
        )


def _factory(name: str) -> Callable[..., Inner]:
    check_peer(name)
    if name in PEERS:
        return PEERS[name]
    module, _, attribute = name.partition(":")
    try:
        made: Callable[..., Inner] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"peer {name!r} cannot be imported: {error}") from error
    return made


def _cross_encoder(config: RerankerConfig, **options: object) -> Inner:
    from icr_rag.evaluation.peer_cross_encoder import CrossEncoderPeer

    # Which options there are, the constructor says.
    make: Callable[..., Inner] = CrossEncoderPeer
    return make(config, **options)


def _rank_llm(config: RerankerConfig, **options: object) -> Inner:
    from icr_rag.evaluation.peer_rank_llm import RankLLMPeer

    make: Callable[..., Inner] = RankLLMPeer
    return make(config, **options)


#: Name -> factory, called with the shared settings and the entry's options.
PEERS: dict[str, Callable[..., Inner]] = {
    "bm25": FirstStage,
    "cross_encoder": _cross_encoder,
    "rank_llm": _rank_llm,
}
