"""PyTerrier: a transformer. ``pipeline = bm25 % 100 >> pt.text.get_text(index) >> ICRRanker()``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING

from icr_rag.config import RerankerConfig
from icr_rag.errors import InputError, require, shown
from icr_rag.integrations._config import Makers, resolve_reranker
from icr_rag.reranker import Reranker
from icr_rag.types import DocumentLike

require("pyterrier", "pyterrier", "icr_rag.integrations.pyterrier")

import pyterrier as pt  # noqa: E402

if TYPE_CHECKING:
    import pandas

_NEEDED = ("qid", "query", "docno")

#: Column of the scores, with ``diversity``.
RELEVANCE_SCORE = "relevance_score"
#: Column of what went wrong, where ``on_error="passthrough"`` let the input order through.
RERANK_ERROR = "rerank_error"


class ICRRanker(Makers, pt.Transformer):
    """Re-ranks a frame of results: columns qid, query, docno and the text.

    A query's candidates are taken in the order of "rank" where the frame has it, else of "score",
    else of their rows. The frame that comes back is new, grouped by query in the order in which
    queries first stand, best first, with new "score" (higher is better, relative to the query) and
    "rank" (from 0); other columns are kept. With ``diversity``, whose order is not that of the
    scores, "score" counts down to 1 along the ranks, because PyTerrier sorts by it, and the scores
    are in "relevance_score". With ``rank_fields`` the model reads columns, "text" being
    ``text_field``. If ``on_error="passthrough"`` let a failure through,
    a query's results keep their order, with score 0.0 and the reason in "rerank_error".

    Args:
        reranker: a ready `Reranker`; else one is made from the settings.
        config: settings as an object or mapping; ``top_n`` cuts each query's results.
        text_field: the column with the text.
        **fields: any field of `RerankerConfig` (model, layers, device, ...).

    Raises:
        ConfigError: if a setting is unknown or has a value that is not allowed.
    """

    def __init__(
        self,
        reranker: Reranker | None = None,
        *,
        config: RerankerConfig | Mapping[str, object] | None = None,
        text_field: str = "text",
        **fields: object,
    ) -> None:
        super().__init__()
        self._reranker = resolve_reranker(reranker, config, fields)
        self.text_field = text_field

    @property
    def reranker(self) -> Reranker:
        """The engine behind this transformer."""
        return self._reranker

    def transform_inputs(self) -> list[list[str]]:
        """The columns needed, for PyTerrier's validation and schematics."""
        return [list(self._columns())]

    def _columns(self) -> dict[str, None]:
        """The columns needed, each once."""
        names = self._reranker.config.rank_fields
        fields = ("text",) if names is None else names
        read = (self.text_field if name == "text" else name for name in fields)
        return dict.fromkeys([*_NEEDED, *read])

    def transform(self, inp: pandas.DataFrame) -> pandas.DataFrame:
        """The re-ranked frame.

        Raises:
            InputError: for what is no frame; naming the columns that are missing; for a row
                without a qid, a blank query, or one qid with several queries.
        """
        import pandas

        if not isinstance(inp, pandas.DataFrame):
            raise InputError(f"the input is a {type(inp).__name__}; give a pandas.DataFrame")
        missing = [name for name in self._columns() if name not in inp.columns]
        if missing:
            raise InputError(
                f"the frame lacks the columns {', '.join(missing)} (it has "
                f"{', '.join(map(str, inp.columns))}); pt.text.get_text brings a text"
            )
        for row, qid in enumerate(inp["qid"]):
            # Rows without one would be left out of the groups.
            if _missing(qid) or not isinstance(qid, str | Real):
                raise InputError(
                    f"row {row} has the qid {shown(qid)}; it must be a str or a number"
                )
        parts = [self._rank_query(part) for _, part in inp.groupby("qid", sort=False)]
        if parts:
            return pandas.concat(parts, ignore_index=True)
        empty = inp.copy()
        for name in ("score", "rank"):
            empty[name] = pandas.Series(dtype=float if name == "score" else int)
        return empty

    def _rank_query(self, part: pandas.DataFrame) -> pandas.DataFrame:
        """The rows of one query, ranked."""
        if "rank" in part.columns:
            part = part.sort_values("rank", kind="stable")
        elif "score" in part.columns:
            part = part.sort_values("score", ascending=False, kind="stable")
        # What is no string is refused by the reranker, and need not be hashable.
        odd = [query for query in part["query"] if not isinstance(query, str)]
        queries = odd or list(dict.fromkeys(part["query"]))
        if len(queries) > 1 and not odd:
            raise InputError(
                f"qid {shown(part['qid'].iloc[0])} has {len(queries)} queries, among them "
                f"{shown(queries[0])} and {shown(queries[1])}; give each its own qid"
            )
        ranking = self._reranker.rank(
            queries[0],
            self._documents(part),
            retrieval_scores=part["score"].tolist() if "score" in part.columns else None,
        )
        ranked = part.iloc[[hit.index for hit in ranking]].copy()
        ranked["score"] = [hit.score for hit in ranking]
        if self._reranker.config.diversity is not None and ranking.error is None:
            ranked[RELEVANCE_SCORE] = ranked["score"]
            ranked["score"] = [float(len(ranked) - place) for place in range(len(ranked))]
        ranked["rank"] = range(len(ranked))
        if ranking.error is not None:
            ranked[RERANK_ERROR] = ranking.error
        return ranked

    def _documents(self, part: pandas.DataFrame) -> list[DocumentLike]:
        """The texts; where the settings name fields, a mapping of all columns a row."""
        if self._reranker.config.rank_fields is None:
            return ["" if _missing(text) else text for text in part[self.text_field]]
        rows = [
            {str(name): None if _missing(value) else value for name, value in row.items()}
            for row in part.to_dict("records")
        ]
        return [{**row, "text": row.get(self.text_field)} for row in rows]

    def __repr__(self) -> str:
        return f"ICRRanker({self._reranker!r})"


def _missing(value: object) -> bool:
    """None, or the NaN or NA that pandas writes where there is nothing."""
    import pandas

    return value is None or value is pandas.NA or (isinstance(value, float) and math.isnan(value))
