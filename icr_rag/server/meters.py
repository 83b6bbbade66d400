"""What Prometheus is told, in a registry of the server's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from icr_rag.server.call import RerankAnswer
from icr_rag.server.score_stats import CacheStats
from icr_rag.server.watcher import Watcher

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_REQUESTS = (1, 2, 4, 8, 16, 32, 64)
_TOKENS = (64, 256, 1024, 4096, 16_384, 65_536, 262_144)
#: Phases of a ranking that are shown; others are parts of these.
_PHASES = ("queue", "prompt", "forward", "score", "total")


class Meters(Watcher):
    """Counts; safe under threads, as what it counts with is.

    Args:
        registry: where they are; None: a new one.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        own = CollectorRegistry() if registry is None else registry
        self.registry = own
        # Memory, file descriptors and processor time, where the system tells.
        ProcessCollector(registry=own)
        self._requests = Counter("icr_rag_requests", "Requests.", ["route", "status"], registry=own)
        self._request_seconds = Histogram(
            "icr_rag_request_seconds",
            "Seconds from a request's headers to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=own,
        )
        self._phase_seconds = Histogram(
            "icr_rag_phase_seconds",
            "Seconds of a ranking by phase; total is without the queue.",
            ["phase"],
            buckets=_SECONDS,
            registry=own,
        )
        self._waiting_requests = Gauge(
            "icr_rag_queue_requests", "Requests that wait for the model.", registry=own
        )
        self._waiting_documents = Gauge(
            "icr_rag_queue_documents", "Documents that wait for the model.", registry=own
        )
        self._batch_requests = Histogram(
            "icr_rag_batch_requests",
            "Requests that were ranked together.",
            buckets=_REQUESTS,
            registry=own,
        )
        self._batch_tokens = Histogram(
            "icr_rag_batch_tokens",
            "Tokens of a batch, estimated by bytes.",
            buckets=_TOKENS,
            registry=own,
        )
        self._batch_seconds = Histogram(
            "icr_rag_batch_seconds",
            "Seconds of a batch in the model's thread.",
            buckets=_SECONDS,
            registry=own,
        )
        self._tokens = Counter("icr_rag_tokens", "Tokens run through the model.", registry=own)
        self._documents = Counter("icr_rag_documents", "Documents answered for.", registry=own)
        self._cut = Counter(
            "icr_rag_documents_truncated", "Documents that were cut to fit.", registry=own
        )
        self._cached = Counter("icr_rag_cached_scores", "Scores that the cache had.", registry=own)
        self._cache_errors = Counter(
            "icr_rag_cache_errors", "Failures of the score cache.", registry=own
        )
        self._degraded = Counter(
            "icr_rag_degraded", "Answers that a deadline left something out of.", registry=own
        )
        self._late = Counter(
            "icr_rag_late", "Requests that were due before they were ranked.", registry=own
        )
        self._hung_up = Counter(
            "icr_rag_hung_up",
            "Clients that went away before their answer.",
            ["while_it_was"],
            registry=own,
        )
        self._evicted = Counter(
            "icr_rag_states_evicted",
            "Documents whose kept states had to make room.",
            registry=own,
        )

    def page(self) -> bytes:
        """All of it, in the text format of Prometheus."""
        return generate_latest(self.registry)

    def show_states(self, stats: Callable[[], StatesTold | None]) -> None:
        """Show what a store of document states tells, asked whenever the page is."""
        self.registry.register(_States(stats))

    def show_cache(self, stats: Callable[[], CacheStats]) -> None:
        """Show what a score cache tells, asked whenever the page is."""
        self.registry.register(_Cache(stats))

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def waiting(self, requests: int, documents: int) -> None:
        """See `Watcher`; likewise the others."""
        self._waiting_requests.set(requests)
        self._waiting_documents.set(documents)

    def ranked(self, requests: int, tokens: int, seconds: float) -> None:
        """A batch was ranked."""
        self._batch_requests.observe(requests)
        self._batch_tokens.observe(tokens)
        self._batch_seconds.observe(seconds)

    def answered(self, answer: RerankAnswer, evicted: int) -> None:
        """A request got its answer."""
        self._documents.inc(len(answer.scores))
        self._tokens.inc(answer.tokens)
        self._cut.inc(len(answer.truncated))
        self._cached.inc(answer.cached)
        self._degraded.inc(answer.degraded is not None)
        self._evicted.inc(evicted)
        for phase, seconds in answer.seconds:
            if phase in _PHASES:
                self._phase_seconds.labels(phase).observe(seconds)

    def hung_up(self, *, running: bool) -> None:
        """A client went away."""
        self._hung_up.labels("running" if running else "waiting").inc()

    def late(self) -> None:
        """A deadline passed."""
        self._late.inc()

    def cache_failed(self) -> None:
        """The score cache failed."""
        self._cache_errors.inc()


#: What a store of document states tells: hits in memory and on disk, misses, bytes held.
StatesTold = tuple[int, int, int, int]


class _States(Collector):
    """A store's own counters, read when they are asked for."""

    def __init__(self, stats: Callable[[], StatesTold | None]) -> None:
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        """None while nothing is kept."""
        told = self._stats()
        if told is None:
            return
        memory, disk, misses, held = told
        found = CounterMetricFamily(
            "icr_rag_states_found", "Look-ups of kept document states.", labels=["where"]
        )
        for where, count in (("memory", memory), ("disk", disk), ("nowhere", misses)):
            found.add_metric([where], count)
        yield found
        yield GaugeMetricFamily("icr_rag_states_bytes", "Document states in memory.", value=held)


class _Cache(Collector):
    """A score cache's own counters, read when they are asked for."""

    def __init__(self, stats: Callable[[], CacheStats]) -> None:
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        """Its failures are not those of `Watcher.cache_failed`: it copes with them itself."""
        told = self._stats()
        found = CounterMetricFamily(
            "icr_rag_score_cache", "What a score cache did.", labels=["what"]
        )
        for what in ("hits", "misses", "errors", "skipped", "evictions"):
            found.add_metric([what], getattr(told, what))
        yield found
        for name, help_, value in (
            ("icr_rag_score_cache_entries", "Scores in the cache.", told.entries),
            ("icr_rag_score_cache_bytes", "Memory of the score cache.", told.bytes),
        ):
            if value is not None:
                yield GaugeMetricFamily(name, help_, value=value)
