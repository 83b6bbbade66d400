"""Haystack: a ranker component. ``pipeline.add_component("ranker", ICRRanker(top_k=5))``."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from icr_rag.arguments import check_top_n
from icr_rag.config import RerankerConfig
from icr_rag.errors import ConfigError, InputError, require
from icr_rag.integrations._call import RankArguments
from icr_rag.integrations._config import Makers, resolve_reranker
from icr_rag.integrations._told import passage_metadata, under_title
from icr_rag.reranker import Reranker
from icr_rag.types import Document as Given
from icr_rag.types import DocumentLike, Ranking

require("haystack", "haystack", "icr_rag.integrations.haystack")

from haystack import Document, component, default_from_dict, default_to_dict  # noqa: E402
from haystack.utils import ComponentDevice  # noqa: E402

#: Meta key of what went wrong, where ``on_error="passthrough"`` let the input order through.
RERANK_ERROR = "rerank_error"


@component
class ICRRanker(Makers):
    """Ranks documents by the attention that the query's tokens pay to them.

    Documents come back as copies, best first, with their score (higher is better, relative to the
    query and the list); those given are not changed. Of documents with the same id the one with
    the highest score is ranked, as in Haystack's own rankers. The scores that documents come with
    count beside the model's; ``fusion="none"`` leaves them out. Documents without text come last.
    If ``on_error="passthrough"`` let a failure through, documents keep their order and score, with
    the reason in ``meta["rerank_error"]``.

    Args:
        reranker: a ready `Reranker`; else one is made from the settings.
        config: settings as an object or mapping.
        top_k: how many documents to return; None: all.
        meta_fields_to_embed: meta fields that the model reads before the text; not beside
            ``rank_fields``, which take names of meta fields, "title" and "text".
        embedding_separator: what stands between them.
        report_passage: with the setting ``passages``, write where the best passage of a document
            is in its content into its meta, as "passage_start" and "passage_end".
        device: as in `RerankerConfig`, or a Haystack ``ComponentDevice``. None: the settings'.
        **fields: any field of `RerankerConfig` (model, layers, device, ...); ``embedder`` may also
            be an object, which is no part of ``to_dict``.

    Raises:
        ConfigError: if a setting is unknown or has a value that is not allowed.
    """

    def __init__(
        self,
        reranker: Reranker | None = None,
        *,
        config: RerankerConfig | Mapping[str, object] | None = None,
        top_k: int | None = 10,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        report_passage: bool = False,
        device: str | ComponentDevice | None = None,
        **fields: object,
    ) -> None:
        if device is not None:
            fields["device"] = device if isinstance(device, str) else device.to_torch_str()
        if "top_n" in fields:
            raise ConfigError(f"top_n={fields['top_n']!r}: Haystack's name for it is top_k")
        self._reranker = resolve_reranker(reranker, config, fields)
        if meta_fields_to_embed and self._reranker.config.rank_fields is not None:
            raise ConfigError(
                f"meta_fields_to_embed={meta_fields_to_embed} and rank_fields="
                f"{self._reranker.config.rank_fields} both say what the model reads; leave out one"
            )
        self._shared = reranker is not None
        self._warm = False
        self.top_k = check_top_n(top_k, None, "top_k")
        self.meta_fields_to_embed = [] if meta_fields_to_embed is None else meta_fields_to_embed
        self.embedding_separator = embedding_separator
        self.report_passage = report_passage

    @property
    def reranker(self) -> Reranker:
        """The engine behind this component."""
        return self._reranker

    def warm_up(self) -> None:
        """Load the model now; without it, the first run does. Pipelines ask for it at each run.

        With ``on_error="passthrough"`` the first run does in any case: a model that cannot be
        loaded is then told in its result and does not end the pipeline.

        Raises:
            ModelLoadError: if the model cannot be loaded.
        """
        if not self._warm and self._reranker.config.on_error == "raise":
            self._reranker.warm_up()
            self._warm = True

    async def warm_up_async(self) -> None:
        """`warm_up` without blocking the event loop."""
        await asyncio.to_thread(self.warm_up)

    def close(self) -> None:
        """Let go of the model; a later run loads it again. A ``reranker`` given stays open."""
        if not self._shared:
            self._reranker.close()
            self._reranker = self._reranker.with_config()
            self._warm = False

    def to_dict(self) -> dict[str, Any]:
        """Settings as JSON types, for pipelines that are saved."""
        return default_to_dict(
            self,
            config=self._reranker.config.to_dict(),
            top_k=self.top_k,
            meta_fields_to_embed=self.meta_fields_to_embed,
            embedding_separator=self.embedding_separator,
            report_passage=self.report_passage,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ICRRanker:
        """The component that `to_dict` wrote."""
        made: ICRRanker = default_from_dict(cls, data)
        return made

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """The best documents, best first, under "documents".

        Args:
            query: not blank.
            documents: in first-stage order, best first.
            top_k: goes before the constructor's.

        Raises:
            InputError: for a blank query, what is no document, or a ``top_k`` below 0.
        """
        given = _distinct(documents)
        ranking = self._reranker.rank(**self._arguments(query, given, top_k))
        return {"documents": _ranked(given, ranking, self.report_passage)}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """`run` without blocking the event loop."""
        given = _distinct(documents)
        ranking = await self._reranker.arank(**self._arguments(query, given, top_k))
        return {"documents": _ranked(given, ranking, self.report_passage)}

    def _arguments(self, query: str, documents: list[Document], top_k: int | None) -> RankArguments:
        """What `Reranker.rank` is to be called with."""
        count = check_top_n(top_k, self.top_k, "top_k")
        return {
            "query": query,
            "documents": [self._read(document) for document in documents],
            "top_n": len(documents) if count is None else count,
            "retrieval_scores": [document.score for document in documents],
        }

    def _read(self, document: Document) -> DocumentLike:
        if self._reranker.config.rank_fields is None:
            return self._text(document)
        text = "" if document.content is None else document.content
        return Given(text, id=document.id, metadata=document.meta)

    def _text(self, document: Document) -> DocumentLike:
        if not isinstance(document.content, str):
            # None is no text; anything else is refused by the reranker, naming its position.
            return "" if document.content is None else document.content
        values = [document.meta.get(name) for name in self.meta_fields_to_embed]
        parts = [str(value) for value in values if value is not None]
        before = self.embedding_separator.join([*parts, ""])
        if self._reranker.config.passages == "none":
            return before + document.content
        return under_title(before, document.content)


def _distinct(documents: list[Document]) -> list[Document]:
    """One document per id, at the place of its first: that with the highest score."""
    if isinstance(documents, (str, bytes)) or not isinstance(documents, Sequence):
        raise InputError(
            f"documents is a {type(documents).__name__}; give a list of Haystack documents"
        )
    best: dict[str, Document] = {}
    for index, document in enumerate(documents):
        if not isinstance(document, Document):
            raise InputError(
                f"document {index} is a {type(document).__name__}; allowed are Haystack documents"
            )
        other = best.get(document.id)
        if other is None or _score(document) > _score(other):
            best[document.id] = document
    return list(best.values())


def _score(document: Document) -> float:
    return -math.inf if document.score is None else document.score


def _ranked(documents: list[Document], ranking: Ranking, report_passage: bool) -> list[Document]:
    result = []
    for hit in ranking:
        document, score = documents[hit.index], hit.score
        told: dict[str, object] = {}
        if report_passage:
            told |= passage_metadata(hit, document.content or "")
        if ranking.error is not None:
            told = {RERANK_ERROR: ranking.error}
        if ranking.error is not None or hit.index in ranking.usage.unscored:
            score = hit.score if document.score is None else document.score
        meta = {**document.meta, **told}
        result.append(dataclasses.replace(document, score=score, meta=meta))
    return result
