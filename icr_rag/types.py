"""What goes in and what comes out: documents, rankings, attention readings, usage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from icr_rag.errors import InputError, brief

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Document:
    """A text to be ranked. ``id`` and ``metadata`` are carried along and never looked at."""

    text: str
    title: str | None = None
    id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def content(self) -> str:
        """What the model reads: the title on its own line, then the text."""
        return f"{self.title}\n{self.text}" if self.title else self.text


#: What `rank` takes as a document: a string, a `Document`, or a mapping with "text" and,
#: if it has them, "title", "id" (or "_id") and "metadata"; with ``rank_fields`` any mapping.
DocumentLike = str | Document | Mapping[str, Any]


def as_document(value: DocumentLike, index: int) -> Document:
    """Return ``value`` as a `Document` without changing it.

    Raises:
        InputError: naming the position, for anything that carries no text.
    """
    if isinstance(value, Document):
        document = value
    elif isinstance(value, str):
        document = Document(value)
    elif isinstance(value, Mapping):
        if "text" not in value:
            raise InputError(
                f"document {index} is a mapping without 'text' "
                f"(its keys: {brief(', '.join(sorted(map(str, value))), 80) or 'none'}); "
                "give it a 'text' and, if there is one, a 'title', or set rank_fields to the keys "
                "to read"
            )
        identifier = value.get("id", value.get("_id"))
        document = Document(
            value["text"],
            value.get("title"),
            None if identifier is None else str(identifier),
            value.get("metadata") or {},
        )
    else:
        raise InputError(
            f"document {index} is a {type(value).__name__}; allowed are str, icr_rag.Document "
            "and a mapping with 'text'"
        )
    if not isinstance(document.text, str):
        raise InputError(
            f"document {index} has a text of type {type(document.text).__name__}; it must be str"
        )
    if document.title is not None and not isinstance(document.title, str):
        raise InputError(
            f"document {index} has a title of type {type(document.title).__name__}; "
            "it must be str or None"
        )
    return document


class Span(NamedTuple):
    """Half-open range of token positions in a prompt: ``token_ids[start:end]``."""

    start: int
    end: int


@dataclass(frozen=True)
class RankedDocument:
    """One hit: the document, its position in the input, and its score (higher is better).

    Attributes:
        passage: with the setting ``passages``, where in the document's text its best passage is:
            ``document.text[start:end]``. None for a document that was not split.
    """

    index: int
    score: float
    document: Document
    passage: tuple[int, int] | None = None


@dataclass(frozen=True)
class Usage:
    """What a ranking cost.

    Attributes:
        tokens: tokens run through the model, over all windows.
        layers: the layers read, ascending, 0-indexed.
        windows: forward passes over a window of documents (1 when all fit in one prompt).
        truncated: input indices of documents that were cut to fit, ascending.
        query_truncated: True if the query was cut to ``max_query_tokens``.
        calls: prompts that the model was given; a batch of 8 prompts is 8. The query's prompt and
            the null query's over the same documents are one.
        generated_tokens: tokens that the model wrote.
        repairs: mistakes in generated answers that were mended: labels missing, repeated or out
            of range, answers that say nothing.
        states_evicted: documents whose kept states had to make room in memory during this call;
            without a ``states_dir`` they will be encoded again.
        passages: distinct passages that were read, a document that is not split counted as one; 0
            without the setting ``passages``.
        seconds: wall-clock seconds per phase: "load" (the model, on first use), "prompt",
            "forward", "score", "total"; "embed" where an embedder was asked. With a deadline the
            total counts from the call, waiting for other calls included.
        fused: what the ranking was made of and with which weights: "model", and of the first stage
            the names of scores ("scores" for one list without a name, "embedder"), "order of" such
            a name where only their order counted, or "order", that of the documents. Empty where
            the model alone decided.
        unscored: input indices of documents that a deadline left without a score, ascending. Blank
            ones, which are never read, are not among them.
        scoring: the way of scoring, which with scoring="auto" depends on the model; "" where
            nothing was read.
        scoring_reason: why this one, as a clause: held-out figures, other settings, and so on.
    """

    tokens: int = 0
    layers: tuple[int, ...] = ()
    windows: int = 0
    truncated: tuple[int, ...] = ()
    query_truncated: bool = False
    calls: int = 0
    generated_tokens: int = 0
    repairs: int = 0
    states_evicted: int = 0
    passages: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    unscored: tuple[int, ...] = ()
    scoring: str = ""
    scoring_reason: str = ""
    fused: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Encoded:
    """What `Reranker.encode` did.

    Attributes:
        documents: distinct contents that have states now, when the call is over: those that had
            to make room for later ones do not count. With the setting ``passages``, passages are
            counted, and documents that are not split.
        new: how many were encoded; the others were there.
        tokens: that were run for them.
        truncated: input indices of documents that were cut to fit, ascending.
        seconds: wall-clock seconds, loading the model included.
        evicted: contents that found no room: set a larger ``states_memory``, or ``states_dir``.
    """

    documents: int
    new: int
    tokens: int
    truncated: tuple[int, ...]
    seconds: float
    evicted: int = 0


@dataclass(frozen=True)
class Ranking(Sequence[RankedDocument]):
    """Documents, best first; behaves like a read-only list of `RankedDocument`.

    Attributes:
        hits: the best ``top_n`` documents, best first.
        scores: one float per *input* document, in input order, also for those that ``top_n``
            cut or a setting left out. Higher is better; along the hits they never rise, but with
            ``diversity``, which moves documents and leaves their scores as they are. Scores are
            relative to this query and this list; their unit is the setting ``score_mode``. With
            "explained" they compare with those of other calls, and blank documents have -100;
            "probability" likewise, 0 to 1, and blank documents have 0.
        score_groups: one integer per input document. Two scores may be compared only if their
            groups are equal: documents of one group were read together in one window. Blank
            documents, which are never read, are group -1. To agree with the order, scores of
            earlier windows are lowered, each window's by one constant.
        usage: tokens, layers, windows, truncated documents, seconds.
        duplicates: input index of a document that ``near_duplicates`` left out -> that of the
            better one it repeats.
        error: None; with ``on_error="passthrough"``, why the documents are in their given order
            instead of a ranking. All scores are 0.0 then.
        answerable: the probability that a document of the list answers the query, by the
            abstention weights of the profile in use; None where there are none, where nothing was
            read, and with scores that are relative to the list.
        abstained: True if ``min_answerable`` left out all hits; scores stay as they are.
        degraded: None for a whole ranking that came in time; with a deadline, what of it was left
            out or how late it is, as a sentence. Documents in ``usage.unscored`` are group -1 and
            have their given order; a threshold does not drop them.
    """

    hits: tuple[RankedDocument, ...]
    scores: tuple[float, ...]
    score_groups: tuple[int, ...]
    usage: Usage
    duplicates: Mapping[int, int] = field(default_factory=dict)
    error: str | None = None
    answerable: float | None = None
    abstained: bool = False
    degraded: str | None = None

    @overload
    def __getitem__(self, index: int) -> RankedDocument: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[RankedDocument, ...]: ...

    def __getitem__(self, index: int | slice) -> RankedDocument | tuple[RankedDocument, ...]:
        return self.hits[index]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[RankedDocument]:
        return iter(self.hits)

    @property
    def comparable(self) -> bool:
        """True if all scores come from one window, so that any two of them compare."""
        return len({group for group in self.score_groups if group >= 0}) <= 1


@dataclass(frozen=True)
class AttentionReading:
    """Attention from the query's tokens to every token of one prompt.

    Attributes:
        token_ids: the whole prompt, as it was run.
        spans: one half-open token span per input document, in input order. Blank documents
            have an empty span; documents with the same content share one.
        query_rows: the rows of the prompt that were read: the tokens of the query's text.
        layers: the layers read, ascending, 0-indexed; the first axis of the readings.
        query: float32 [layer, head, token], attention probability, mean over the query rows.
            Rows sum to 1. Heads that were not asked for (``heads=``) are zero.
        null: the same for the content-free query, on the same token axis. The tail of the null
            prompt has tokens of its own, so that from the end of the last document on its
            columns are zero. None with ``calibration="none"``.
        null_token_ids: the whole null prompt; it begins with the same head and documents.
        null_query_rows: the rows of the null prompt that were read.
    """

    token_ids: list[int]
    spans: list[Span]
    query_rows: slice
    layers: list[int]
    query: torch.Tensor
    null: torch.Tensor | None
    null_token_ids: list[int]
    null_query_rows: slice
