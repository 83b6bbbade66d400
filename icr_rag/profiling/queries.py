"""Label-free queries: profile a model on your own documents without a single judgement.

A piece of a document asks for the rest of it: its title for its body, a sentence or a few for
what stands around them, a heading for its section, a docstring's summary for what follows. The
piece is taken out of the document, so that no head can find it by copying. Hard negatives are what
BM25 finds for the same piece. What comes out is a data set like any other, and a first-stage run.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from icr_rag.errors import InputError
from icr_rag.evaluation.datasets import Dataset
from icr_rag.evaluation.runs import Run
from icr_rag.profiling.pieces import docstrings, join_sentences, sections, split_sentences
from icr_rag.profiling.terms import Search, searchable, terms, word_count
from icr_rag.types import Document

#: Kinds of label-free queries. "sentence": one; "passage": two to four in a row, 30 to 80 words;
#: "keywords": the two to four rarest words of a sentence; "heading": of a section in Markdown or
#: reST; "docstring": the summary line of one in a Python file; "question": written by a model, see
#: ``write``.
KINDS = ("title", "sentence", "passage", "keywords", "heading", "docstring", "question")

#: Kinds that are titles of parts of documents, among which their negatives are looked for too.
_PARTS = {"heading": sections, "docstring": docstrings}

#: Words that must be left of a document once its query is taken out.
_LEAST_REST = 30
#: How many of a sentence's words make a short query.
_KEYWORDS = (2, 4)

#: Marks around words.
_MARKS = ".,;:!?()[]{}\"'“”‘’«»…"

#: A piece that asks, and what is left of the document; None if it gives none.
_Taken = tuple[str, Document] | None


def label_free(
    documents: Mapping[str, Document],
    *,
    kinds: Sequence[str] = ("title", "sentence", "passage"),
    count: int = 100,
    depth: int = 20,
    seed: int = 0,
    name: str = "label-free",
    write: Callable[[str], str] | None = None,
    language: str = "english",
) -> tuple[Dataset, Run]:
    """Queries from documents, each with its document as the only relevant one.

    Args:
        documents: id -> document; not changed.
        kinds: of `KINDS`, taken in turn; each gives as many queries as the others if it can.
        count: how many queries; fewer if the documents give no more.
        depth: candidates per query: the source and the best BM25 finds beside it.
        seed: which documents and pieces are taken, and the order of the candidates.
        write: makes a question from a document's content; for the kind "question".
        language: of the documents, for BM25's stems, see `icr_rag.profiling.terms.terms`.

    Returns:
        The data set, and its candidates in random order.

    Raises:
        InputError: for an unknown kind, or if no document gives a query.
        ConfigError: for an unknown language.
        MissingDependencyError: without bm25s.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise InputError(f"kinds={list(kinds)}; allowed are {', '.join(KINDS)}")
    if "question" in kinds and write is None:
        raise InputError("the kind 'question' needs write=, which makes a question from a text")
    whole = [kind for kind in kinds if kind not in _PARTS]
    # What queries are drawn from, with the kinds that are: whole documents, or parts of them.
    pools = [(documents, whole)] if whole else []
    pools += [(_PARTS[kind](documents), [kind]) for kind in kinds if kind in _PARTS]
    generator = random.Random(seed)  # noqa: S311 - a draw, not a secret
    found: dict[str, Document] = {}
    queries: dict[str, str] = {}
    judgements: dict[str, dict[str, int]] = {}
    run: Run = {}
    left = list(kinds)
    for pool, own in pools:
        # The others' share too, where they gave less.
        most = -(-(count - len(queries)) * len(own) // len(left))
        left = [kind for kind in left if kind not in own]
        search = Search(pool, language) if pool else None
        made = [] if search is None else _draw(pool, own, most, generator, write, search, language)
        negatives = [] if search is None else _hard_negatives(pool, made, depth - 1, search)
        for (source, query, rest), others in zip(made, negatives, strict=True):
            number = len(queries)
            query_id, answer = f"{name}-{number}", f"{source}#rest-{number}"
            found[answer] = rest
            names = [answer]
            for other in others:
                # A negative has a title as often as the source does.
                document = pool[other]
                bare = f"{other}#body" if rest.title is None and document.title else other
                found[bare] = Document(document.text, id=bare) if bare != other else document
                names.append(bare)
            generator.shuffle(names)
            queries[query_id] = query
            judgements[query_id] = {answer: 1}
            run[query_id] = names
    if not queries:
        raise InputError(
            f"none of {len(documents)} documents gives a query of the kinds {', '.join(kinds)}; "
            "they need titles, or several sentences"
        )
    return Dataset(name, found, queries, judgements), run


def _draw(
    documents: Mapping[str, Document],
    kinds: Sequence[str],
    count: int,
    generator: random.Random,
    write: Callable[[str], str] | None,
    search: Search,
    language: str,
) -> list[tuple[str, str, Document]]:
    """Up to ``count`` queries: id of the source, the query, what is left of the source."""
    order = sorted(documents)
    generator.shuffle(order)
    rarity = _Rarity(documents, language) if "keywords" in kinds else None
    made: list[tuple[str, str, Document]] = []
    for source in order:
        if len(made) == count:
            break
        kind = kinds[len(made) % len(kinds)]
        taken = _take(documents[source], kind, generator, write)
        if taken is not None and rarity is not None and kind == "keywords":
            taken = rarity.shorten(taken, generator)
        if taken is not None:
            made.append((source, *taken))
    return made


def _take(
    document: Document,
    kind: str,
    generator: random.Random,
    write: Callable[[str], str] | None,
) -> _Taken:
    if kind in ("title", *_PARTS):
        title = (document.title or "").strip()
        body = document.text
        if not 3 <= word_count(title) <= 40 or title.lower() in body.lower():
            return None
        return (title, Document(body)) if word_count(body) >= _LEAST_REST else None
    if kind == "question" and write is not None:
        question = write(document.content).strip()
        return (question, document) if word_count(question) >= 3 else None
    sentences = split_sentences(document.text)
    long = kind == "passage"
    widths, words = ((2, 3, 4), range(30, 81)) if long else ((1,), range(8, 41))
    pieces = [
        (start, start + width)
        for start in range(len(sentences))
        for width in widths
        if start + width <= len(sentences)
        and word_count(join_sentences(sentences[start : start + width])) in words
    ]
    generator.shuffle(pieces)
    for start, end in pieces:
        query = join_sentences(sentences[start:end])
        rest = join_sentences(sentences[:start] + sentences[end:])
        if word_count(rest) >= _LEAST_REST and query not in rest:
            return query, Document(rest, document.title)
    return None


class _Rarity:
    """In how many documents each word is: the rarest of a sentence say what it is about."""

    def __init__(self, documents: Mapping[str, Document], language: str) -> None:
        self._language = language
        texts = [document.content for document in documents.values()]
        self._count = Counter(term for found in terms(texts, language) for term in set(found))

    def shorten(self, taken: tuple[str, Document], generator: random.Random) -> _Taken:
        """The sentence's rarest words, in its order, of those that any other sentence has too:
        a number or a name that stands nowhere else asks for nothing."""
        sentence, rest = taken
        left = set(terms([rest.content], self._language)[0])
        words: dict[str, str] = {}
        pieces = searchable(sentence).split()
        for word, own in zip(pieces, terms(pieces, self._language), strict=True):
            term = own[0] if len(own) == 1 else None
            if term is not None and (term in left or self._count[term] > 1):
                words.setdefault(term, word.strip(_MARKS))
        wanted = generator.randint(*_KEYWORDS)
        rarest = set(sorted(words, key=lambda term: (self._count[term], term))[:wanted])
        if len(rarest) < _KEYWORDS[0]:
            return None
        return " ".join(word for term, word in words.items() if term in rarest), rest


def _hard_negatives(
    documents: Mapping[str, Document],
    made: Sequence[tuple[str, str, Document]],
    depth: int,
    search: Search,
) -> list[list[str]]:
    """Per query, ids of the documents that BM25 finds beside the source, best first.

    Near copies of the source would be relevant too and are left out.
    """
    result = []
    rows = search.best([query for _, query, _ in made], 3 * depth + 10)
    for (source, _, _), row in zip(made, rows, strict=True):
        own = _vocabulary(documents[source])
        chosen: list[str] = []
        for name in row:
            other = _vocabulary(documents[name])
            copy = len(own & other) > 0.8 * max(1, len(own | other))
            if name != source and not copy and len(chosen) < depth:
                chosen.append(name)
        result.append(chosen)
    return result


def _vocabulary(document: Document) -> set[str]:
    return set(searchable(document.text.lower()).split())
