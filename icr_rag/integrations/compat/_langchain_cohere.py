"""LangChain's ``CohereRerank``, without Cohere."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from langchain_core.documents import Document
from pydantic import Field, PrivateAttr, SecretStr

from icr_rag.config import RerankerConfig
from icr_rag.errors import InputError
from icr_rag.integrations._told import PASSAGE_END, PASSAGE_START
from icr_rag.integrations.langchain import ICRRerank
from icr_rag.reranker import Reranker
from icr_rag.types import DocumentLike

logger = logging.getLogger(__name__)

#: How the names of the models behind Cohere's service begin, which cannot be had here.
_COHERE = "rerank-"


class CohereRerank(ICRRerank):
    """In place of ``langchain_cohere.CohereRerank``. Nothing is sent anywhere.

    What concerns Cohere's service (``client``, ``cohere_api_key``, ``base_url``, ``user_agent``)
    is taken and not used. Unlike its namesake it keeps the ids of documents.

    Args:
        reranker: a ready `Reranker`; else one is made from the settings.
        client: not used.
        top_n: how many documents to return; None: all.
        model: a model's name. Cohere's names ("rerank-v3.5") stand for the default model, or the
            one that ``reranker`` or ``config`` gives; the log says so.
        cohere_api_key: not used, not kept.
        base_url: not used.
        user_agent: not used.
        config: settings as an object or mapping.
        **fields: ``retrieval_score_key``, ``report_truncation``, ``report_answerable``,
            ``report_passage``, ``on_ranking``, and any field of `RerankerConfig`.

    Raises:
        ConfigError: if a setting is unknown or has a value that is not allowed.
        InputError: on use with a blank query.
    """

    client: Any = Field(default=None, exclude=True)
    model: str | None = None
    cohere_api_key: SecretStr | None = Field(default=None, exclude=True)
    base_url: str | None = None
    user_agent: str = "langchain:partner"
    _others: dict[tuple[object, ...], ICRRerank] = PrivateAttr(default_factory=dict)

    def __init__(
        self,
        reranker: Reranker | None = None,
        *,
        client: object = None,
        top_n: int | None = 3,
        model: str | None = None,
        cohere_api_key: SecretStr | str | None = None,
        base_url: str | None = None,
        user_agent: str = "langchain:partner",
        config: RerankerConfig | Mapping[str, object] | None = None,
        **fields: Any,
    ) -> None:
        if model is not None and not model.startswith(_COHERE):
            fields["model"] = model
        super().__init__(reranker, config=config, top_n=top_n, **fields)
        if model is not None and model.startswith(_COHERE):
            logger.warning(
                "%s is a model of Cohere's service; documents are ranked by %s on this machine",
                model,
                self.config.model,
            )
        self.client = client
        self.model = self.config.model if model is None else model
        self.base_url = base_url
        self.user_agent = user_agent

    # The signatures are the namesake's, which have no instruction.
    def rerank(  # type: ignore[override]
        self,
        documents: Sequence[Document | DocumentLike],
        query: str,
        *,
        rank_fields: Sequence[str] | None = None,
        model: str | None = None,
        top_n: int | None = -1,
        max_tokens_per_doc: int | None = None,
    ) -> list[dict[str, Any]]:
        """Positions and scores, best first: ``[{"index": 2, "relevance_score": 0.7}, ...]``.

        Args:
            documents: LangChain documents, strings, or mappings, of which the model reads the
                YAML form.
            query: not blank.
            rank_fields: keys of mappings that the model reads; None: all.
            model: another model for this call; it stays loaded with this object.
            top_n: how many results; None: all; below 1: this object's ``top_n``.
            max_tokens_per_doc: longer documents are cut; None: as configured.

        Raises:
            InputError: for ``rank_fields`` beside the setting of this name, by which mappings are
                then read.
        """
        chosen = self._other(model)
        count = self.top_n if isinstance(top_n, int) and top_n < 1 else top_n
        readable = _readable(documents, rank_fields, self.config)
        found = ICRRerank.rerank(
            chosen, readable, query, top_n=count, max_tokens_per_doc=max_tokens_per_doc
        )
        return _without_spans(found, documents, readable)

    async def arerank(  # type: ignore[override]
        self,
        documents: Sequence[Document | DocumentLike],
        query: str,
        *,
        rank_fields: Sequence[str] | None = None,
        model: str | None = None,
        top_n: int | None = -1,
        max_tokens_per_doc: int | None = None,
    ) -> list[dict[str, Any]]:
        """`rerank` without blocking the event loop."""
        chosen = self._other(model)
        count = self.top_n if isinstance(top_n, int) and top_n < 1 else top_n
        readable = _readable(documents, rank_fields, self.config)
        found = await ICRRerank.arerank(
            chosen, readable, query, top_n=count, max_tokens_per_doc=max_tokens_per_doc
        )
        return _without_spans(found, documents, readable)

    def _other(self, model: str | None) -> ICRRerank:
        """This object, or one that differs in what a call asks for; it shares the weights."""
        changes: dict[str, object] = {}
        if model is not None and model != self.config.model and not model.startswith(_COHERE):
            changes["model"] = model
        if not changes:
            return self
        key = tuple(changes.items())
        if key not in self._others:
            self._others[key] = ICRRerank(
                self._reranker.with_config(**changes),
                top_n=self.top_n,
                retrieval_score_key=self.retrieval_score_key,
                report_truncation=self.report_truncation,
                report_answerable=self.report_answerable,
                on_ranking=self._on_ranking,
                report_passage=self.report_passage,
            )
        return self._others[key]


def _readable(
    documents: Sequence[Document | DocumentLike],
    rank_fields: Sequence[str] | None,
    config: RerankerConfig,
) -> Sequence[Document | DocumentLike]:
    """Mappings as the YAML text of the fields to be read; whatever else as it is."""
    if config.rank_fields is not None:
        if rank_fields is not None:
            raise InputError(
                f"rank_fields={list(rank_fields)} of the call comes beside the setting "
                f"rank_fields={config.rank_fields}; leave out one of them"
            )
        return documents
    if isinstance(documents, (str, bytes)) or not isinstance(documents, Sequence):
        return documents
    return [
        yaml.dump(
            {key: document[key] for key in rank_fields if key in document}
            if rank_fields
            else dict(document),
            sort_keys=False,
        )
        if isinstance(document, Mapping)
        else document
        for document in documents
    ]


def _without_spans(
    results: list[dict[str, Any]],
    given: Sequence[Document | DocumentLike],
    read: Sequence[Document | DocumentLike],
) -> list[dict[str, Any]]:
    """Results without places in YAML, which the caller has not seen."""
    for result in results:
        index = result["index"]
        if read[index] is not given[index]:
            for key in (PASSAGE_START, PASSAGE_END):
                result.pop(key, None)
    return results
