"""Score caches: what is put comes back bit for bit, bounds hold, and a Redis may fail."""

from __future__ import annotations

import gc
import logging
import math
import socket
import struct
import sys
import threading
import tracemalloc

import fakeredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icr_rag import ConfigError, InputError, MissingDependencyError
from icr_rag.server.score_cache import MemoryScores, RedisScores, score_cache
from icr_rag.server.score_memory import ENTRY_BYTES
from icr_rag.server.score_packing import pack, unpack

finite = st.floats(allow_nan=False, allow_infinity=False)
some_keys = st.binary(min_size=1, max_size=3)


def bits(score):
    return None if score is None else struct.pack(">d", score)


# --- fourteen bytes ---------------------------------------------------------------------------


@given(some_keys, finite)
def test_a_score_comes_back_bit_for_bit(key, score):
    packed = pack(key, score)
    assert len(packed) == 14
    assert bits(unpack(key, packed)) == bits(score)


@given(some_keys, finite, st.integers(0, 111))
def test_one_wrong_bit_is_noticed(key, score, place):
    packed = bytearray(pack(key, score))
    packed[place // 8] ^= 1 << place % 8
    assert unpack(key, bytes(packed)) is None


@given(some_keys, st.binary(max_size=20))
def test_rubbish_is_no_score(key, rubbish):
    assert unpack(key, rubbish) is None


def test_a_score_under_another_key_is_none():
    assert unpack(b"other", pack(b"key", 0.5)) is None


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_what_is_no_score_is_refused(score):
    cache = MemoryScores(10_000)
    with pytest.raises(InputError, match="cannot be cached; scores are finite"):
        cache.put({b"good": 1.0, b"bad": score})
    assert cache.get([b"good"]) == [None]
    with pytest.raises(InputError, match="cannot be cached; scores are finite"):
        in_redis().put({b"bad": score})


# --- memory -----------------------------------------------------------------------------------


class Plain:
    """The slow, obvious way: a list, oldest first."""

    def __init__(self, most):
        self.most, self.held = most, []

    def get(self, keys):
        found = []
        for key in keys:
            own = [pair for pair in self.held if pair[0] == key]
            self.held = [pair for pair in self.held if pair[0] != key] + own
            found.append(own[0][1] if own else None)
        return found

    def put(self, scores):
        for key, score in scores.items():
            self.held = [pair for pair in self.held if pair[0] != key] + [(key, score)]
            while sum(ENTRY_BYTES + len(key) for key, _ in self.held) > self.most:
                del self.held[0]


steps = st.lists(
    st.one_of(st.lists(some_keys, max_size=4), st.dictionaries(some_keys, finite, max_size=4)),
    max_size=12,
)


@given(steps, st.integers(2 * ENTRY_BYTES, 5 * ENTRY_BYTES))
def test_memory_is_a_list_of_the_latest(asked, most):
    cache, plain = MemoryScores(most), Plain(most)
    for step in asked:
        if isinstance(step, dict):
            cache.put(step)
            plain.put(step)
        else:
            assert [*map(bits, cache.get(step))] == [*map(bits, plain.get(step))]
        assert cache.stats.entries == len(plain.held)
        assert cache.stats.bytes <= most


def test_memory_is_no_more_than_it_says():
    cache = MemoryScores(10**9)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(20_000):
            cache.put({number.to_bytes(20, "big"): number / 7})
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken <= cache.stats.bytes


def test_memory_counts():
    cache = MemoryScores(2 * ENTRY_BYTES + 2)
    cache.put({b"a": 1.0, b"b": 2.0})
    cache.put({b"c": 3.0})
    assert cache.get([b"a", b"b", b"c"]) == [None, 2.0, 3.0]
    stats = cache.stats
    assert (stats.hits, stats.misses, stats.evictions, stats.errors) == (2, 1, 1, 0)
    assert (stats.entries, stats.bytes) == (2, 2 * ENTRY_BYTES + 2)
    cache.close()
    assert (cache.stats.entries, cache.stats.bytes) == (0, 0)


def test_memory_serves_many_threads():
    cache = MemoryScores(20 * (ENTRY_BYTES + 1))
    failed = []

    def work(seed):
        for number in range(200):
            own = (seed * number) % 64
            cache.put({bytes([own]): float(own)})
            keys = [bytes([k % 64]) for k in range(number, number + 8)]
            for key, score in zip(keys, cache.get(keys), strict=True):
                if score not in (None, float(key[0])):
                    failed.append((key, score))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert cache.stats.entries <= 20
    assert cache.stats.hits + cache.stats.misses == 8 * 200 * 8


# --- Redis ------------------------------------------------------------------------------------


class Clock:
    """Stands still unless it is moved."""

    now = 100.0

    def __call__(self):
        return self.now


def in_redis(server=None, **fields):
    client = fakeredis.FakeRedis(server=server or fakeredis.FakeServer())
    return RedisScores("redis://unused", client=client, **fields)


@settings(max_examples=30)
@given(st.dictionaries(some_keys, finite, max_size=6), st.lists(some_keys, max_size=6))
def test_redis_gives_back_what_was_put(scores, others):
    server = fakeredis.FakeServer()
    in_redis(server).put(scores)
    asked = [*scores, *others]
    found = in_redis(server).get(asked)
    assert [*map(bits, found)] == [bits(scores.get(key)) for key in asked]


def test_more_keys_than_go_together():
    cache = in_redis()
    scores = {number.to_bytes(4, "big"): number / 3 for number in range(2500)}
    cache.put(scores)
    assert cache.get([*scores, b"none"]) == [*scores.values(), None]
    assert (cache.stats.hits, cache.stats.misses) == (2500, 1)


def test_scores_expire_and_stand_under_the_prefix():
    server = fakeredis.FakeServer()
    in_redis(server, ttl=90.0, prefix="mine:").put({b"key": 0.5})
    client = fakeredis.FakeRedis(server=server)
    assert client.keys() == [b"mine:key"]
    assert 0 < client.pttl("mine:key") <= 90_000
    assert in_redis(server, prefix="theirs:").get([b"key"]) == [None]


def test_a_redis_that_goes_away_fails_no_request_and_is_used_again(caplog):
    server, clock = fakeredis.FakeServer(), Clock()
    cache = in_redis(server, clock=clock, pause=5.0)
    cache.put({b"key": 0.5})
    server.connected = False
    with caplog.at_level(logging.WARNING, logger="icr_rag"):
        assert cache.get([b"key", b"other"]) == [None, None]
        assert cache.stats.errors == 1
        # Left alone for a moment.
        cache.put({b"later": 1.0})
        assert cache.get([b"key"]) == [None]
        assert (cache.stats.errors, cache.stats.skipped) == (1, 2)
        clock.now += 5.0
        cache.put({b"later": 1.0})
        assert cache.stats.errors == 2
        assert len(caplog.records) == 1
        clock.now += 60.0
        assert cache.get([b"key"]) == [None]
    told = [record.getMessage() for record in caplog.records]
    assert told == ["the score cache in Redis: ConnectionError; scores are computed without it"] * 2
    server.connected = True
    assert cache.get([b"key"]) == [None]
    clock.now += 5.0
    assert cache.get([b"key"]) == [0.5]
    assert cache.stats.misses == 5
    cache.close()


def test_a_redis_that_holds_rubbish_is_told_once_and_no_hit(caplog):
    server, clock = fakeredis.FakeServer(), Clock()
    client = fakeredis.FakeRedis(server=server)
    cache = in_redis(server, prefix="p:", clock=clock)
    cache.put({b"good": 0.5})
    for name, value in ((b"p:short", b"x"), (b"p:text", b"0.5"), (b"p:moved", pack(b"good", 0.5))):
        client.set(name, value)
    client.lpush("p:list", "not a string")
    with caplog.at_level(logging.WARNING, logger="icr_rag"):
        keys = [b"good", b"short", b"text", b"moved", b"list"]
        assert cache.get(keys) == [0.5, None, None, None, None]
        assert cache.get(keys) == [0.5, None, None, None, None]
    assert cache.stats.errors == 6
    [record] = caplog.records
    assert "3 values in it are no scores" in record.getMessage()
    cache.put({b"text": 2.0})
    assert cache.get([b"text"]) == [2.0]


class Wrong:
    """A client that answers with something else."""

    def __init__(self, answer):
        self.answer = answer

    def mget(self, keys):
        return self.answer


@pytest.mark.parametrize("answer", [None, [], [b"x", b"y"], b"text"])
def test_an_answer_of_another_shape_counts_as_a_failure(answer):
    cache = RedisScores("redis://unused", client=Wrong(answer), clock=Clock())
    assert cache.get([b"key"]) == [None]
    assert cache.stats.errors == 1


def test_a_redis_that_never_answers_is_given_up(caplog):
    """A socket that accepts and says nothing; the real client."""
    clock = Clock()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        cache = RedisScores(f"redis://:secret@127.0.0.1:{port}/0", timeout=0.05, clock=clock)
        with caplog.at_level(logging.WARNING, logger="icr_rag"):
            assert cache.get([b"key"]) == [None]
            clock.now += 5.0
            cache.put({b"key": 1.0})
        assert cache.stats.errors == 2
        cache.close()
    assert [r.getMessage() for r in caplog.records] == [
        "the score cache in Redis: TimeoutError; scores are computed without it"
    ]
    assert "secret" not in caplog.text


def test_a_redis_that_is_not_there(caplog):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    cache = score_cache(f"redis://:secret@127.0.0.1:{port}/0", timeout=0.2)
    with caplog.at_level(logging.WARNING, logger="icr_rag"):
        assert cache.get([b"key"]) == [None]
    assert cache.stats.errors == 1
    assert "ConnectionError" in caplog.text
    assert "secret" not in caplog.text + repr(cache)


# --- what a setting asks for ------------------------------------------------------------------


def test_what_is_written_is_what_there_is():
    assert score_cache("memory").max_bytes == 64 * 2**20
    assert score_cache("memory:256").max_bytes == 256 * 2**20
    for address in ("redis://localhost:6379/0", "rediss://:secret@localhost/1"):
        cache = score_cache(address, ttl=5.0, prefix="p", timeout=1.0)
        assert isinstance(cache, RedisScores)
        cache.close()


@pytest.mark.parametrize(
    "written", ["", "none", "memory:", "memory:0", "memory:-1", "memory:x", "memory:99999999",
                "Memory", "memcached", "memory:１"],
)  # fmt: skip
def test_anything_else_is_refused(written):
    with pytest.raises(ConfigError, match="is no score cache; allowed are 'memory'"):
        score_cache(written)


@pytest.mark.parametrize(
    "written", ["redis://:secret@host:port/0", "redis://:secret@host/?db=x", "http://:secret@host",
                "rediss://:secret@host/?nothing=x"],
)  # fmt: skip
def test_an_address_that_cannot_be_is_refused_without_its_password(written):
    with pytest.raises(ConfigError) as caught:
        score_cache(written).get([b"key"])
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_settings_of_redis_mean_nothing_in_memory():
    with pytest.raises(ConfigError, match="prefix, ttl of a score cache is for Redis"):
        score_cache("memory", ttl=3.0, prefix="p")


@pytest.mark.parametrize("field", ["ttl", "timeout", "pause"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_seconds_are_seconds(field, value):
    with pytest.raises(ConfigError, match=f"{field}={value} of a score cache in Redis"):
        in_redis(**{field: value})


def test_memory_for_nothing_is_refused():
    with pytest.raises(ConfigError, match="a score cache of 10 bytes holds nothing"):
        MemoryScores(10)


def test_without_the_redis_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(
        MissingDependencyError, match=r"needs redis: pip install 'icr-rag\[redis\]'"
    ):
        score_cache("redis://localhost")
