"""Documents of several fields, and what a tiny model is to read of them."""

from __future__ import annotations

import datetime

from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker
from icr_rag.fields import check_given

QUERY = "Where do they bake bread?"
SHOPS = [
    {"name": "Fern", "address": {"street": "Main St", "no": 5}, "open": True, "id": 7},
    {"name": "Bread & Co", "tags": ["bread", "cake", 3], "rating": 4.5, "title": "A bakery"},
    {"name": "Old Mill", "founded": datetime.date(1901, 2, 3), "note": None},
    {"name": "Oak"},
]
NAMES = ("name", "address", "tags", "rating", "founded", "open")
LINES = [
    'name: Fern\naddress: {"street": "Main St", "no": 5}\nopen: true',
    "name: Bread & Co\ntags: bread, cake, 3\nrating: 4.5",
    "name: Old Mill\nfounded: 1901-02-03",
    "name: Oak",
]
LIKELIHOOD = {"scoring": "likelihood"}


def tiny(**fields):
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **fields)


def content(document, names, layout="lines"):
    return check_given([document], names, layout).read[0].content


def told(ranking):
    return [hit.index for hit in ranking], ranking.scores, ranking.score_groups
