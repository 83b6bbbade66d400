"""PyTerrier transformers under the contract: frames in, frames out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas
from components import PLENTY, Component, Hit, Item

_NO_EVENTS = "PyTerrier has no events"


class ICRRanker(Component):
    """Ours. A "list of documents" is the frame of one query's results."""

    title = "icr_rag `ICRRanker` for PyTerrier"
    distributions = ("python-terrier",)
    not_defined = {
        "scores_are_floats": "scores are a column of a frame",
        "events_paired": _NO_EVENTS,
        "events_paired_on_error": _NO_EVENTS,
    }

    def make(self, top_n: int | None = PLENTY) -> Any:
        from icr_rag.integrations.pyterrier import ICRRanker

        # Keeps the weights that all of ours share.
        _ = self.folders.reranker
        return ICRRanker(top_n=top_n, **self.folders.settings)

    def documents(self, items: Sequence[Item]) -> Any:
        return pandas.DataFrame(
            {
                "qid": ["q"] * len(items),
                "docno": [item.id for item in items],
                "text": [item.text for item in items],
                "score": [1.0 - number / 10 for number in range(len(items))],
                "rank": list(range(len(items))),
                "metadata": [dict(item.metadata) for item in items],
            }
        )

    def run(self, subject: Any, documents: Any, query: Any) -> Any:
        # PyTerrier's results carry the query in every row.
        return subject.transform(documents.assign(query=query))

    def snapshot(self, documents: Any) -> Any:
        return documents.to_dict("records")

    def read(self, result: Any, items: Sequence[Item]) -> list[Hit]:
        return [
            Hit(row["docno"], row["text"], row["score"], row["metadata"])
            for row in result.to_dict("records")
        ]

    def plain(self, result: Any) -> Any:
        return result.to_dict("records")

    def restore(self, plain: Any) -> Any:
        return pandas.DataFrame(plain)
