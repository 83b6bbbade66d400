"""A clock that stands still, but for what a model runs: so many seconds a token."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from torch.nn import functional


class FakeClock:
    """Seconds since the test began.

    Attributes:
        rate: seconds that a token takes.
        longest: of all passes, the seconds of the longest.
        passes: how many there were.
    """

    def __init__(self, rate):
        self.now, self.rate, self.longest, self.passes = 1000.0, rate, 0.0, 0

    def __call__(self):
        return self.now

    def run(self, tokens):
        seconds = tokens * self.rate
        self.now += seconds
        self.longest = max(self.longest, seconds)
        self.passes += 1


@contextmanager
def fake_time(reranker, rate=0.001):
    """A reranker is timed by a clock that only its own tokens move."""
    clock = FakeClock(rate)
    embedding = functional.embedding

    def counted(ids, *arguments, **named):
        # Every forward pass begins so.
        clock.run(ids.numel())
        return embedding(ids, *arguments, **named)

    before = reranker._clock
    reranker._clock = clock
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functional, "embedding", counted)
        try:
            yield clock
        finally:
            reranker._clock = before
