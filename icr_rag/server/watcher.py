"""What may be counted of an engine's work; nothing is, unless a subclass does."""

from __future__ import annotations

from icr_rag.server.call import RerankAnswer


class Watcher:
    """Told what happens. Methods return at once and raise nothing; some are called from threads."""

    def waiting(self, requests: int, documents: int) -> None:
        """So many wait now."""

    def ranked(self, requests: int, tokens: int, seconds: float) -> None:
        """A batch of so many requests, of about so many tokens, took so long."""

    def answered(self, answer: RerankAnswer, evicted: int) -> None:
        """A request got this answer; so many documents' states had to make room for it."""

    def hung_up(self, *, running: bool) -> None:
        """A client went away before its answer, while its request was running or waiting."""

    def late(self) -> None:
        """A deadline passed before its request was ranked."""

    def cache_failed(self) -> None:
        """The score cache failed; scores were computed without it."""
