"""Label-free queries: profile a model on your own documents without a single judgement.

A piece of a document asks for the rest of it: its title for its body, a sentence or a few for
what stands around them. The piece is taken out of the document, so that no head can find it by
copying. Hard negatives are what BM25 finds for the same piece. What comes out is a data set like
any other, and a first-stage run.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence

from icr_rag.errors import InputError, require
from icr_rag.evaluation.datasets import Dataset
from icr_rag.evaluation.runs import Run
from icr_rag.types import Document

#: Kinds of label-free queries. "sentence": one; "passage": two to four in a row, 30 to 80 words;
#: "question": written by a model, see ``write``.
KINDS = ("title", "sentence", "passage", "question")

#: Words that must be left of a document once its query is taken out.
_LEAST_REST = 30


def label_free(
    documents: Mapping[str, Document],
    *,
    kinds: Sequence[str] = ("title", "sentence", "passage"),
    count: int = 100,
    depth: int = 20,
    seed: int = 0,
    name: str = "label-free",
    write: Callable[[str], str] | None = None,
) -> tuple[Dataset, Run]:
    """Queries from documents, each with its document as the only relevant one.

    Args:
        documents: id -> document; not changed.
        kinds: of `KINDS`, taken in turn.
        count: how many queries; fewer if the documents give no more.
        depth: candidates per query: the source and the best BM25 finds beside it.
        seed: which documents and pieces are taken, and the order of the candidates.
        write: makes a question from a document's content; for the kind "question".

    Returns:
        The data set, and its candidates in random order.

    Raises:
        InputError: for an unknown kind, or if no document gives a query.
        MissingDependencyError: without bm25s.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise InputError(f"kinds={list(kinds)}; allowed are {', '.join(KINDS)}")
    if "question" in kinds and write is None:
        raise InputError("the kind 'question' needs write=, which makes a question from a text")
    generator = random.Random(seed)  # noqa: S311 - a draw, not a secret
    order = sorted(documents)
    generator.shuffle(order)
    made: list[tuple[str, str, Document]] = []
    for source in order:
        if len(made) == count:
            break
        kind = kinds[len(made) % len(kinds)]
        taken = _take(documents[source], kind, generator, write)
        if taken is not None:
            made.append((source, *taken))
    if not made:
        raise InputError(
            f"none of {len(documents)} documents gives a query of the kinds {', '.join(kinds)}; "
            "they need titles, or several sentences"
        )
    negatives = _hard_negatives(documents, made, depth - 1)
    found: dict[str, Document] = {}
    queries: dict[str, str] = {}
    judgements: dict[str, dict[str, int]] = {}
    run: Run = {}
    for number, (source, query, rest) in enumerate(made):
        query_id = f"{name}-{number}"
        own = f"{source}#rest-{number}"
        found[own] = rest
        names = [own]
        for other in negatives[number]:
            # A negative has a title as often as the source does.
            document = documents[other]
            bare = f"{other}#body" if rest.title is None and document.title else other
            found[bare] = Document(document.text, id=bare) if bare != other else document
            names.append(bare)
        generator.shuffle(names)
        queries[query_id] = query
        judgements[query_id] = {own: 1}
        run[query_id] = names
    return Dataset(name, found, queries, judgements), run


def _take(
    document: Document,
    kind: str,
    generator: random.Random,
    write: Callable[[str], str] | None,
) -> tuple[str, Document] | None:
    """A query and what is left of the document; None if it gives none."""
    if kind == "title":
        title = (document.title or "").strip()
        body = document.text
        if not 3 <= len(title.split()) <= 40 or title.lower() in body.lower():
            return None
        return (title, Document(body)) if len(body.split()) >= _LEAST_REST else None
    if kind == "question" and write is not None:
        question = write(document.content).strip()
        return (question, document) if len(question.split()) >= 3 else None
    sentences = re.split(r"(?<=[.!?])\s+", document.text.strip())
    widths, words = ((1,), range(8, 41)) if kind == "sentence" else ((2, 3, 4), range(30, 81))
    pieces = [
        (start, start + width)
        for start in range(len(sentences))
        for width in widths
        if start + width <= len(sentences)
        and len(" ".join(sentences[start : start + width]).split()) in words
    ]
    generator.shuffle(pieces)
    for start, end in pieces:
        query = " ".join(sentences[start:end])
        rest = " ".join(sentences[:start] + sentences[end:])
        if len(rest.split()) >= _LEAST_REST and query not in rest:
            return query, Document(rest, document.title)
    return None


def _hard_negatives(
    documents: Mapping[str, Document], made: Sequence[tuple[str, str, Document]], depth: int
) -> list[list[str]]:
    """Per query, ids of the documents that BM25 finds beside the source, best first.

    Near copies of the source would be relevant too and are left out.
    """
    bm25s = require("bm25s", "cli", "Finding hard negatives")
    stemmer = require("Stemmer", "cli", "Finding hard negatives").Stemmer("english")
    names = sorted(documents)

    def tokens(texts: Sequence[str]) -> object:
        return bm25s.tokenize(list(texts), stemmer=stemmer, show_progress=False)

    index = bm25s.BM25(k1=0.9, b=0.4)
    index.index(tokens([documents[name].content for name in names]), show_progress=False)
    most = min(len(names), 3 * depth + 10)
    places, _ = index.retrieve(tokens([query for _, query, _ in made]), k=most, show_progress=False)
    result = []
    for (source, _, _), row in zip(made, places.tolist(), strict=True):
        own = set(documents[source].text.lower().split())
        chosen: list[str] = []
        for place in row:
            name = names[place]
            other = set(documents[name].text.lower().split())
            copy = len(own & other) > 0.8 * max(1, len(own | other))
            if name != source and not copy and len(chosen) < depth:
                chosen.append(name)
        result.append(chosen)
    return result
