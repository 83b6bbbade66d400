"""What prompts consist of: token ids, spans of documents, query rows.

Three layouts: one prompt with all documents (`Prompt`), documents that do not see each other
before one tail (`IndependentPrompt`), and many short prompts with the same beginning and end
(`PromptBatch`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from icr_rag.types import Span

#: A query or a document as token ids.
Ids = Sequence[int]


@dataclass(frozen=True)
class Tail:
    """What follows the prefix: token ids, and which of them are the query rows (half-open).

    Tokens behind the last row (the assistant header) belong to the prompt, but no row sees them,
    so they are not run.
    """

    token_ids: Sequence[int]
    rows: slice


@dataclass(frozen=True)
class Prompt:
    """A prompt whose tails share one prefix.

    Attributes:
        prefix_ids: chat header, documents and, without ``double_query``, the instruction.
        spans: one half-open span in ``prefix_ids`` per document, in the order given to `build`.
        query: the tail with the query.
        null: the tail with the content-free query, if there is one.
    """

    prefix_ids: list[int]
    spans: list[Span]
    query: Tail
    null: Tail | None

    @property
    def tails(self) -> list[Tail]:
        """The query's tail and, if there is one, the null tail."""
        return [self.query] if self.null is None else [self.query, self.null]

    def token_ids(self, tail: Tail) -> list[int]:
        """The whole prompt with one of its tails."""
        return self.prefix_ids + list(tail.token_ids)

    def rows(self, tail: Tail) -> slice:
        """The tail's query rows as positions in the whole prompt."""
        start = len(self.prefix_ids)
        return slice(start + tail.rows.start, start + tail.rows.stop)


@dataclass(frozen=True)
class IndependentPrompt:
    """Documents that do not see each other, and tails that see all of them.

    Attributes:
        head_ids: beginning, which every document sees.
        bodies: token ids of each document with what separates it from the next, in the order
            in which they stand in the cache.
        spans: one half-open span per document, in the order in which they were given, on the axis
            head + all bodies.
        stem_ids: what both tails begin with, run once.
        tails: the query's and, if there is one, the null query's.
    """

    head_ids: Sequence[int]
    bodies: Sequence[Sequence[int]]
    spans: Sequence[Span]
    stem_ids: Sequence[int]
    tails: Sequence[Tail]

    @property
    def length(self) -> int:
        """Tokens of head and documents."""
        return len(self.head_ids) + sum(map(len, self.bodies))

    @property
    def tail_tokens(self) -> int:
        """Tokens that a query costs when all documents' states are there."""
        return len(self.stem_ids) + sum(int(tail.rows.stop) for tail in self.tails)


@dataclass(frozen=True)
class PromptBatch:
    """Prompts: head + body + one of the tails.

    Attributes:
        head_ids: shared beginning; may be empty.
        bodies: token ids of each prompt's own part; at least one token each.
        spans: per prompt, one half-open span in its body per document; needed for attention only.
        tails: shared ends, side by side: each sees head, body and itself. With attention the
            first is the query's and the second the null query's. May be empty without.
        own_tails: per prompt, its ends in place of ``tails``, as many for each prompt; empty: all
            have ``tails``.
    """

    head_ids: Sequence[int]
    bodies: Sequence[Sequence[int]]
    spans: Sequence[Sequence[Span]] = ()
    tails: Sequence[Tail] = ()
    own_tails: Sequence[Sequence[Tail]] = ()

    def tails_of(self, prompt: int) -> Sequence[Tail]:
        """The ends of one prompt."""
        return self.own_tails[prompt] if self.own_tails else self.tails

    @property
    def tail_tokens(self) -> list[int]:
        """Per prompt, tokens of all its ends."""
        return [
            sum(len(tail.token_ids) for tail in self.tails_of(prompt))
            for prompt in range(len(self.bodies))
        ]

    @property
    def tokens(self) -> int:
        """Tokens that are run, the head once; no padding."""
        return len(self.head_ids) + sum(map(len, self.bodies)) + sum(self.tail_tokens)
