"""A cross-encoder for what LangChain builds around one.

``CrossEncoderReranker(model=ICRCrossEncoder(), top_n=5)``
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from icr_rag.config import RerankerConfig
from icr_rag.errors import MissingDependencyError, require
from icr_rag.integrations._config import Makers, resolve_reranker, without_first_stage
from icr_rag.integrations._pairs import score_pairs
from icr_rag.reranker import Reranker

require("langchain_core", "langchain", "icr_rag.integrations.langchain_cross_encoder")

try:
    from langchain_core.cross_encoders import BaseCrossEncoder
except ModuleNotFoundError as error:
    raise MissingDependencyError(
        "this langchain-core has no interface for cross-encoders, which ICRCrossEncoder needs; "
        "pip install -U langchain-core, or use ICRRerank"
    ) from error


class ICRCrossEncoder(Makers, BaseCrossEncoder):
    """Scores pairs of a query and a text, as LangChain's cross-encoders do.

    Texts of one query are read together, in the order of their pairs. Unlike a cross-encoder's,
    scores are relative to the query and its texts: they compare within a query, not across
    queries, and a query with a single text has nothing to be compared with.

    Args:
        reranker: a ready `Reranker`; else one is made from the settings.
        config: settings as an object or mapping.
        **fields: any field of `RerankerConfig` (model, layers, device, ...).

    Raises:
        ConfigError: if a setting is unknown or has a value that is not allowed.
    """

    def __init__(
        self,
        reranker: Reranker | None = None,
        *,
        config: RerankerConfig | Mapping[str, object] | None = None,
        **fields: object,
    ) -> None:
        self._reranker = without_first_stage(resolve_reranker(reranker, config, fields))

    @property
    def reranker(self) -> Reranker:
        """The engine behind this adapter."""
        return self._reranker

    @property
    def config(self) -> RerankerConfig:
        """Settings of the reranker."""
        return self._reranker.config

    def score(self, text_pairs: Sequence[tuple[str, str]]) -> list[float]:
        """One score per pair, in the order of the pairs; higher is better.

        Args:
            text_pairs: (query, text) pairs. Those of one query need not stand together.

        Raises:
            InputError: for anything that is not a pair, a blank query, or a text that is no str.
        """
        return score_pairs(self._reranker, text_pairs)

    def __repr__(self) -> str:
        return f"ICRCrossEncoder({self._reranker!r})"
