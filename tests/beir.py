"""A tiny data set in BEIR form, and rerankers that need no model."""

from __future__ import annotations

import json
from pathlib import Path

from icr_rag import RerankerConfig, Usage
from icr_rag.ranking import Scored, make_ranking

CORPUS = {
    "tin": ("Tin", "Tin melts at 232 degrees."),
    "lead": ("Lead", "Lead melts at 327 degrees."),
    "zinc": (None, "Zinc melts at 420 degrees."),
    "oak": ("Oak", "Oaks carry acorns."),
    "fir": ("", "Firs carry cones."),
}
QUERIES = {
    "q1": "Where does tin melt?",
    "q2": "Which tree has acorns?",
    "q3": "Nobody judged this.",
    "q4": "Which metals melt below 400 degrees?",
    "q5": "Only judged as not relevant.",
    "q6": "Relevant, but not among the candidates: cones?",
    "q7": "Relevant, but without candidates: zinc?",
}
JUDGEMENTS = [
    ("q1", "tin", 1),
    ("q2", "oak", 1),
    ("q4", "tin", 2),
    ("q4", "lead", 1),
    ("q5", "oak", 0),
    ("q6", "fir", 1),
    ("q7", "zinc", 1),
]
RUN = {
    "q1": ["lead", "tin", "oak"],
    "q2": ["oak", "fir"],
    "q3": ["oak"],
    "q4": ["zinc", "lead", "tin", "oak"],
    "q6": ["oak", "tin"],
}


def write_beir(folder: Path) -> Path:
    """Write the data set, judgements in ``qrels.tsv``, candidates in ``run.tsv``."""
    folder.mkdir(parents=True, exist_ok=True)
    corpus = [
        {"_id": name, "text": text} | ({} if title is None else {"title": title})
        for name, (title, text) in CORPUS.items()
    ]
    queries = [{"_id": name, "text": text} for name, text in QUERIES.items()]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    qrels = "".join(f"{q}\t{d}\t{grade}\n" for q, d, grade in JUDGEMENTS)
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + qrels, encoding="utf-8")
    run = "".join(
        f"{query}\t{document}\t{rank}\t{10 - rank}.5\n"
        for query, documents in RUN.items()
        for rank, document in enumerate(documents, start=1)
    )
    (folder / "run.tsv").write_text("query-id\tcorpus-id\trank\tscore\n" + run, encoding="utf-8")
    return folder


class FakeReranker:
    """Keeps the order it is given, or reverses it; remembers its calls."""

    def __init__(self, config: RerankerConfig | None = None, reverse: bool = False) -> None:
        self.config = RerankerConfig() if config is None else config
        self.reverse = reverse
        self.calls: list[tuple[str, list[str]]] = []
        self.fail_at: int | None = None

    def rank(self, query, documents, top_n=None):
        if self.fail_at == len(self.calls):
            raise KeyboardInterrupt
        self.calls.append((query, [document.id for document in documents]))
        order = range(len(documents))
        usage = Usage(tokens=7, layers=(1, 2), windows=1, truncated=(0,))
        return make_ranking(
            documents,
            Scored(
                list(reversed(order)) if self.reverse else list(order),
                [0.0] * len(documents),
                [0] * len(documents),
            ),
            usage,
            self.config.top_n if top_n is None else top_n,
        )
