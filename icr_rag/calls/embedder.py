"""An embedding model of the caller's, which scores candidates where their first stage did not.

A lexical stage says little of how far apart documents are. An embedding model, which many have at
hand, does, and makes other mistakes than the model that re-ranks. It is known by its methods, and
never changed; its vectors are kept by text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar

from icr_rag.calls.embedding_models import Batch, EmbedderLike, Embedding, Named, methods_of
from icr_rag.config import RerankerConfig
from icr_rag.config_scores import counts_first_stage
from icr_rag.deadline import check, step
from icr_rag.errors import ConfigError, EmbedderError, brief, shown
from icr_rag.frameworks.evidence import EMBEDDER, Column, counts_by_scores
from icr_rag.model.turns import Turns
from icr_rag.scoring.base import Cost
from icr_rag.types import Document

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vector = npt.NDArray[np.float32]

#: Vectors that are kept; of 1,000 numbers each, they take 32 MB.
MOST_KEPT = 8192
#: What is measured: embedding, by characters.
_EMBED = "embed"


class Embedder:
    """Cosines of a query and documents by an embedding model. Safe under threads if that is.

    Args:
        given: the caller's object; None: there is none.
        config: names a model where none is given; it is loaded when it is first needed.

    Attributes:
        given: as above. named: how the other one is loaded.
        model: which of them it is; None: it is not loaded yet.
    """

    def __init__(
        self, given: Embedding | None = None, config: RerankerConfig | None = None
    ) -> None:
        self.given = given
        self.named = None if config is None else Named.of(config)
        self.model = given
        self._making = Turns()
        self._turns = Turns()
        #: (whether it is a query, text) -> its vector, of length 1, the latest last.
        self._kept: dict[tuple[bool, str], Vector] = {}

    def column(
        self,
        query: str,
        documents: Sequence[Document],
        columns: Mapping[str, Column],
        config: RerankerConfig,
        cost: Cost,
    ) -> dict[str, Column]:
        """Scores of all documents under the name "embedder"; nothing where the first stage's own
        scores are as good: see `icr_rag.frameworks.evidence.weigh`.

        Args:
            query: not blank.
            documents: as the model reads them; blank ones get no score.
            columns: what the first stage has.
            config: its weights by name.
            cost: told how long it took.

        Raises:
            EmbedderError: if the embedding model fails or gives no vectors that compare.
            ModelLoadError: if it cannot be loaded.
            OutOfTime: if it would take too long.
        """
        asked = dict(config.first_stage_weights or ())
        wanted = asked.get(EMBEDDER) != 0
        if not wanted or any(counts_by_scores(*item, asked) for item in columns.items()):
            return {}
        started = time.perf_counter()
        found = self.cosines(query, [document.content for document in documents])
        cost.seconds["embed"] = time.perf_counter() - started
        return {EMBEDDER: found}

    def cosines(self, query: str, texts: Sequence[str]) -> list[float | None]:
        """The cosine of each text with the query, -1 to 1; None for a blank text."""
        readable = list(dict.fromkeys(text for text in texts if text.strip()))
        if not readable:
            return [None] * len(texts)
        own = [(True, query)]
        keys = [(False, text) for text in readable]
        with self._turns.lock:
            kept = {key: self._kept[key] for key in (*own, *keys) if key in self._kept}
        new = [text for text in readable if (False, text) not in kept]
        # A query that is known costs nothing either.
        characters = sum(map(len, new)) + (0 if own[0] in kept else len(query))
        if characters:
            check(_EMBED, characters)
            # What loading takes says nothing of how long embedding does.
            methods = self._methods()
            with step(_EMBED, characters):
                made = self._embed(methods, query, new, queries=own[0] not in kept)
            self._keep(made)
            kept |= made
        asked = kept[own[0]]
        cosine = {}
        for key in keys:
            if kept[key].shape != asked.shape:
                raise self._wrong(
                    f"vectors of {kept[key].size} numbers for documents and {asked.size} for a "
                    "query, which do not compare"
                )
            cosine[key[1]] = float(kept[key] @ asked)
        return [cosine.get(text) for text in texts]

    def _embed(
        self, methods: tuple[Batch, Batch], query: str, texts: list[str], *, queries: bool
    ) -> dict[tuple[bool, str], Vector]:
        """Vectors of what is not known yet."""
        embed_query, embed_documents = methods
        asked = [(True, embed_query, [query])] if queries else []
        asked += [(False, embed_documents, texts)] if texts else []
        made: dict[tuple[bool, str], Vector] = {}
        for is_query, embed, own in asked:
            try:
                found = embed(list(own))
            except Exception as error:
                raise EmbedderError(
                    f"the embedder ({self._name}) failed: {type(error).__name__}: "
                    f"{brief(str(error))}; see to it, leave out embedder=, or set fusion='none'"
                ) from error
            # At once: it may write its next answer over this one.
            vectors = self._vectors(found, len(own))
            made.update(zip([(is_query, text) for text in own], vectors, strict=True))
        return made

    def _vectors(self, found: object, count: int) -> list[Vector]:
        """Vectors of length 1, checked. One of zeros stays so: it is like nothing."""
        import numpy as np

        try:
            matrix = np.asarray(found, dtype=np.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            what = f"a {type(found).__name__}, of which no matrix can be made"
            raise self._wrong(what) from error
        if matrix.ndim != 2 or len(matrix) != count or not matrix.shape[1]:
            raise self._wrong(f"an array of the shape {matrix.shape} for {count} texts")
        if not np.isfinite(matrix).all():
            raise self._wrong("numbers that are infinite or NaN")
        # Divided first by the largest: no square of what is left is too large.
        largest = np.abs(matrix).max(axis=1, keepdims=True)
        matrix = matrix / np.where(largest == 0, 1, largest)
        length = np.linalg.norm(matrix, axis=1, keepdims=True)
        return list((matrix / np.where(length == 0, 1, length)).astype(np.float32))

    def _keep(self, made: Mapping[tuple[bool, str], Vector]) -> None:
        with self._turns.lock:
            self._kept |= made
            for key in list(self._kept)[: max(0, len(self._kept) - MOST_KEPT)]:
                del self._kept[key]

    def _methods(self) -> tuple[Batch, Batch]:
        """What embeds queries, and what embeds documents: each a list of texts."""
        with self._making.lock:
            if self.model is None and self.named is not None:
                self.model = self.named.load()
        return methods_of(self.model)

    @property
    def _name(self) -> str:
        return type(self.model).__name__

    def _wrong(self, what: str) -> EmbedderError:
        return EmbedderError(
            f"the embedder ({self._name}) gave {what}; it must give one vector of finite numbers "
            "per text, all of one length"
        )


def apart(fields: Mapping[str, object]) -> tuple[dict[str, object], dict[str, Any]]:
    """Settings, and apart from them an embedder that is an object and so no setting."""
    settings = dict(fields)
    given = isinstance(settings.get("embedder"), (str, Path, NoneType))
    return settings, {} if given else {"embedder": settings.pop("embedder")}


def replaced(config: RerankerConfig, changes: Mapping[str, object]) -> RerankerConfig:
    """Settings without the name of an embedder, where changes have another one, or none."""
    return config.replace(embedder=None) if "embedder" in changes else config


def switched(config: RerankerConfig, changes: Mapping[str, object]) -> dict[str, Any]:
    """What to make a reranker of: `RerankerConfig.switched`, with an embedder among the changes."""
    settings, given = apart(changes)
    return {"config": replaced(config, changes).switched(**settings), **given}


def with_embedder(
    base: RerankerConfig, embedder: EmbedderLike | None, fields: Mapping[str, Any]
) -> tuple[RerankerConfig, Embedder | None]:
    """Settings of a reranker, and its embedder; None: it has none. Loads nothing.

    Args:
        base: settings.
        embedder: the caller's object; or a name or folder, which is a setting.
        fields: settings that replace those of ``base``.

    Raises:
        ConfigError: if it is no embedding model, or means nothing beside other settings.
    """
    named = isinstance(embedder, (str, Path))
    changes = {**fields, "embedder": embedder} if named else fields
    config = base.replace(**changes) if changes else base
    if embedder is None or isinstance(embedder, (str, Path)):
        return config, None if config.embedder is None else Embedder(config=config)
    if config.embedder is not None:
        raise ConfigError(
            f"embedder={shown(embedder)} and the setting embedder={config.embedder!r} both say "
            "what embeds; leave out one of them"
        )
    methods_of(embedder)
    if not _counts(config):
        raise ConfigError(
            f"embedder= means nothing with fusion={config.fusion!r} and score_mode="
            f"{config.score_mode!r}; it is for fusion='auto' and scores that are relative to the "
            "list: change these, or leave it out"
        )
    return config, Embedder(embedder)


def carried(old: Embedder | None, new: Embedder | None, config: RerankerConfig) -> Embedder | None:
    """The embedder of a reranker that is another one with settings changed: the old one with its
    vectors, unless it would not count, or another model is named now.

    Args:
        old: of the other reranker.
        new: by the new settings alone.
        config: these.
    """
    if old is None or not _counts(config):
        return new
    return old if old.given is not None or (new and old.named == new.named) else new


_Made = TypeVar("_Made")


def maker(of: Callable[..., _Made], embedder: Embedder | None) -> Callable[..., _Made]:
    """What makes a reranker from its settings where it is unpickled."""
    given = None if embedder is None else embedder.given
    return of if given is None else partial(of, embedder=given)


def _counts(config: RerankerConfig) -> bool:
    return config.fusion == "auto" and counts_first_stage(config)
