"""``icr-rag demo``: the whole job on a small corpus, through every door.

BM25 finds candidates for a few paraphrased questions, the reranker re-orders them, and the same
is done once more through LlamaIndex and LangChain. All questions are shown, also where
re-ranking does not help.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files

from rich.console import Console
from rich.table import Table
from rich.text import Text

from icr_rag import Document, Reranker, RerankerConfig
from icr_rag.cli.console import output_console, prepare, shown_layers, working
from icr_rag.cli.options import with_reranker_options
from icr_rag.errors import ICRError, MissingDependencyError, require
from icr_rag.types import Usage

#: Candidates per question, and how many of them are shown.
_DEPTH = 10
_SHOWN = 3


@dataclass(frozen=True)
class Question:
    """A query, the id of the passage that answers it, and BM25's candidates, best first."""

    text: str
    relevant: str
    candidates: list[Document]


@with_reranker_options(without=("top_n", "rank_fields", "rank_fields_format"), fusion="none")
def demo(config: RerankerConfig) -> None:
    """Re-rank a small corpus with the embedded model, and show before and after.

    The questions are worded so that BM25 is misled, so that its order counts for nothing here;
    --fusion auto counts it.

    Takes under a minute; the first run also fetches the model (about 100 MB) and converts it.

    icr-rag demo --layers all
    """
    console = output_console()
    questions = load_questions()
    reranker = Reranker(config)
    prepare(reranker)

    started = time.perf_counter()
    orders: list[list[str | None]] = []
    for number, question in enumerate(questions, start=1):
        with working(question.text):
            ranking = reranker.rank(question.text, question.candidates)
        orders.append([hit.document.id for hit in ranking])
        _show(console, number, question, orders[-1])
    seconds = time.perf_counter() - started

    console.print(
        f"{config.model}, {_taken(ranking.usage)}: {len(questions)} lists of {_DEPTH} passages in "
        f"{seconds:.1f} s"
    )
    _show_totals(console, questions, orders)
    _compare_doors(console, reranker, questions, orders)


def load_questions() -> list[Question]:
    """The demo's questions with their BM25 candidates.

    Raises:
        MissingDependencyError: if bm25s or its stemmer is not installed.
    """
    bm25s = require("bm25s", "cli", "The demo's first stage")
    stemmer = require("Stemmer", "cli", "The demo's first stage").Stemmer("english")
    corpus = [
        Document(row["text"], row.get("title"), row["id"]) for row in _read("demo_corpus.jsonl")
    ]

    def tokens(texts: list[str]) -> object:
        return bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)

    index = bm25s.BM25()
    index.index(tokens([document.content for document in corpus]), show_progress=False)
    questions = []
    for row in _read("demo_queries.jsonl"):
        found, _ = index.retrieve(tokens([row["query"]]), k=_DEPTH, show_progress=False)
        candidates = [corpus[int(number)] for number in found[0]]
        questions.append(Question(row["query"], row["relevant"], candidates))
    return questions


def _read(name: str) -> list[dict[str, str]]:
    text = files("icr_rag.cli").joinpath(name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _taken(usage: Usage) -> str:
    """What was taken for relevance, and read where."""
    return usage.scoring + (f" of layers {shown_layers(usage.layers)}" if usage.layers else "")


def _show(console: Console, number: int, question: Question, order: Sequence[str | None]) -> None:
    """Both orders side by side; the answer is marked, and shown also where it stands low."""
    old = [document.id for document in question.candidates]
    titles = {document.id: document.title or document.text for document in question.candidates}
    before, after = rank_of(question.relevant, old), rank_of(question.relevant, order)
    mark = "*" if console.options.ascii_only else "✓"

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("  BM25", width=36, no_wrap=True, overflow="ellipsis")
    table.add_column("  re-ranked", width=36, no_wrap=True, overflow="ellipsis")
    answers = {place for place in (before, after) if place is not None}
    places = sorted({*range(1, _SHOWN + 1), *answers})
    for place in places:
        row = []
        for ids, answer in ((old, before), (order, after)):
            if place > _SHOWN and place != answer:
                row.append(Text(""))
                continue
            tick = mark if place == answer else " "
            style = "bold green" if place == answer else ""
            row.append(Text(f"{tick} {place:2}  {titles[ids[place - 1]]}", style=style))
        table.add_row(*row)
    console.print(Text(f"{number}. {question.text}", style="bold"))
    console.print(table)
    console.print()


def rank_of(relevant: str, order: Sequence[str | None]) -> int | None:
    """The place, from 1, of the passage that answers; None if it is not among the candidates."""
    return list(order).index(relevant) + 1 if relevant in order else None


def _show_totals(
    console: Console, questions: Sequence[Question], orders: Sequence[Sequence[str | None]]
) -> None:
    before = [rank_of(q.relevant, [d.id for d in q.candidates]) for q in questions]
    after = [rank_of(q.relevant, order) for q, order in zip(questions, orders, strict=True)]
    # A passage that is not among the candidates can move nowhere: both are None.
    pairs = [(old, new) for old, new in zip(before, after, strict=True) if old and new]
    higher = sum(new < old for old, new in pairs)
    lower = sum(new > old for old, new in pairs)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("")
    for name in ("BM25", "re-ranked"):
        table.add_column(name, justify="right")
    count = len(questions)
    for name, measure in _MEASURES.items():
        table.add_row(name, *(f"{sum(map(measure, r)) / count:.2f}" for r in (before, after)))
    console.print(table)
    console.print(
        f"the answer moved up {higher} times, down {lower}, stayed {count - higher - lower}"
    )


_MEASURES: dict[str, Callable[[int | None], float]] = {
    "mean reciprocal rank of the answer": lambda rank: 0.0 if rank is None else 1 / rank,
    "answer in first place": lambda rank: float(rank == 1),
    "answer in the first three": lambda rank: float(rank is not None and rank <= 3),
}


def _compare_doors(
    console: Console,
    reranker: Reranker,
    questions: Sequence[Question],
    orders: Sequence[Sequence[str | None]],
) -> None:
    """Rank once more through each framework that is installed.

    Raises:
        ICRError: if one gives another order than the library.
    """
    for name, ranked in (("LlamaIndex", _through_llama_index), ("LangChain", _through_langchain)):
        try:
            with working(f"the same through {name}"):
                for question, order in zip(questions, orders, strict=True):
                    received = ranked(reranker, question)
                    if received != list(order):
                        raise ICRError(
                            f"{name} gave another order than the library for {question.text!r}: "
                            f"{received} instead of {list(order)}; please report this"
                        )
        except MissingDependencyError as error:
            console.print(Text(f"{name}: not installed. {error}"), soft_wrap=True)
            continue
        console.print(f"{name}: the same order for all {len(questions)} questions")


def _through_llama_index(reranker: Reranker, question: Question) -> list[str | None]:
    from icr_rag.integrations.llama_index import ICRRerank

    schema = require("llama_index.core.schema", "llama-index", "LlamaIndex")
    nodes = [
        schema.NodeWithScore(node=schema.TextNode(text=document.content, id_=document.id))
        for document in question.candidates
    ]
    ranked = ICRRerank(reranker).postprocess_nodes(nodes, query_str=question.text)
    return [node.node.node_id for node in ranked]


def _through_langchain(reranker: Reranker, question: Question) -> list[str | None]:
    from icr_rag.integrations.langchain import ICRRerank

    documents = require("langchain_core.documents", "langchain", "LangChain")
    given = [
        documents.Document(page_content=document.content, id=document.id)
        for document in question.candidates
    ]
    return [
        document.id for document in ICRRerank(reranker).compress_documents(given, question.text)
    ]
