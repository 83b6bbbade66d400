"""How fast requests have been ranked lately, and what follows for those that wait."""

from __future__ import annotations

#: What the latest batch counts beside those before.
_SHARE = 0.3
#: Seconds after which to try again: at least, and at most, that a client is not sent away for good.
_SOONEST, _LATEST = 1.0, 60.0
#: How much longer than expected a batch may take before a deadline is in danger.
_MARGIN = 2.0


class BatchPace:
    """Seconds by estimated tokens, as measured so far."""

    def __init__(self) -> None:
        self._per_token: float | None = None

    def note(self, tokens: int, seconds: float) -> None:
        """A batch of so many estimated tokens took so long."""
        own = seconds / max(1, tokens)
        before = self._per_token
        self._per_token = own if before is None else (1 - _SHARE) * before + _SHARE * own

    def expect(self, tokens: int) -> float | None:
        """Seconds that so many may take; None if nothing was measured yet."""
        return None if self._per_token is None else self._per_token * tokens

    def in_time(self, tokens: int, left: float) -> bool:
        """Whether a batch should be done well within so many seconds; no, if nothing is known."""
        seconds = self.expect(tokens)
        return seconds is not None and _MARGIN * seconds <= left

    def retry_after(self, tokens: int) -> float:
        """Seconds after which a queue of so many should have room."""
        return min(max(self.expect(tokens) or _SOONEST, _SOONEST), _LATEST)
