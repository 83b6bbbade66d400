"""First calls that wait for others, which load the model or hold it, and what they say of it."""

from __future__ import annotations

import threading

import pytest
from fake_time import fake_time
from tiny import byte_tokenizer, tiny_model
from waits import held

from icr_rag import Reranker
from icr_rag.deadline import Deadline, OutOfTime
from icr_rag.model import loading
from icr_rag.model.turns import Turns, turn

QUERY = "Which metal melts first?"
TEXTS = ["Oaks carry acorns.", "Tin melts at 232 degrees.", "Lead is soft.", "Gold."]
SETTINGS = {"layers": (1, 2), "dtype": "float32"}
AMPLE = 1e9


def tiny(model=None, **fields):
    return Reranker.from_model(
        model or tiny_model("llama"), byte_tokenizer(), **{"layers": (1, 2), **fields}
    )


def assert_given(ranking):
    assert [hit.index for hit in ranking] == [0, 1, 2, 3]
    assert "none of 4 documents was scored" in ranking.degraded


class Slow:
    """A lock that is had after so many seconds of a clock that is set by hand."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds = clock, seconds

    def acquire(self, timeout):
        self.clock.now += min(timeout, self.seconds)
        return timeout >= self.seconds

    def release(self):
        pass


# --- turns ----------------------------------------------------------------------------------------


def test_a_turn_counts_what_was_waited():
    class Hands:
        now = 5.0

        def __call__(self):
            return self.now

    clock = Hands()
    due = Deadline(1000, clock)
    for seconds, waited in ((0.25, 0.25), (0.5, 0.75)):
        with turn(Slow(clock, seconds), due):
            assert due.waited == waited
            clock.now += 0.05
    with due.waiting():
        clock.now += 0.01
        assert due.waited == pytest.approx(0.76)
    with pytest.raises(OutOfTime), turn(Slow(clock, 1.0), due):
        pass
    # As long as there was time, less what is kept back.
    assert due.waited == pytest.approx(0.76 + 0.135)
    turns = Turns()
    with turn(turns.lock, None), turn(turns.lock, due):
        assert due.left == pytest.approx(0.0)


# --- another reranker -----------------------------------------------------------------------------


def test_a_first_call_on_weights_that_another_call_holds_ends_at_its_deadline():
    first = tiny().warm_up()
    model, _ = first._scorers.foreign
    for fields in ({}, {"layers": (0, 1)}, {"document_states": "independent", "cascade": 2}):
        second = tiny(model, framework="listwise", **fields)
        with held(first.engine.lock):
            found = second.rank(QUERY, TEXTS, deadline_ms=30)
        assert_given(found)
        assert "other calls held the model for" in found.degraded
        assert second._scorers.made is None
        assert second.rank(QUERY, TEXTS, deadline_ms=AMPLE).degraded is None
    # The instruction of a call makes a scorer too.
    with held(first.engine.lock):
        found = first.rank(QUERY, TEXTS, deadline_ms=30, instruction="Which is a metal?")
    assert "other calls held the model for" in found.degraded


def test_a_first_call_on_weights_that_another_one_loads_ends_at_its_deadline(
    model_folder, monkeypatch
):
    begun, end = threading.Event(), threading.Event()
    plain, loads = loading._load_or_share, []

    def load(*arguments):
        loads.append(threading.current_thread())
        begun.set()
        end.wait()
        return plain(*arguments)

    monkeypatch.setattr(loading, "_load_or_share", load)
    first, second = Reranker(model=model_folder, **SETTINGS), Reranker(
        model=model_folder, **SETTINGS
    )  # fmt: skip
    rankings = []
    thread = threading.Thread(target=lambda: rankings.append(first.rank(QUERY, TEXTS)))
    thread.start()
    begun.wait()
    try:
        found = second.rank(QUERY, TEXTS, deadline_ms=30)
    finally:
        end.set()
        thread.join()
    assert_given(found)
    assert "other calls held the model for" in found.degraded
    assert "loading" not in found.degraded
    assert loads == [thread]
    assert second.rank(QUERY, TEXTS).scores == rankings[0].scores
    assert second.engine is first.engine


# --- what is said ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("waits", "loads", "told"),
    [
        (0.3, 0.1, "other calls held the model for 300 ms"),
        (0.1, 0.3, "loading the model took 300 ms"),
        (0.2, 0.1, None),
    ],
)
def test_waiting_is_no_loading(monkeypatch, waits, loads, told):
    ranker = tiny()
    plain = ranker._make_scorers
    with fake_time(ranker) as clock:

        def make(due):
            with turn(Slow(clock, waits), due):
                clock.now += loads
                # Tokens that are run to prove the model take no time here.
                before, clock.rate = clock.rate, 0.0
                made = plain(due)
                clock.rate = before
                return made

        monkeypatch.setattr(ranker, "_make_scorers", make)
        found = ranker.rank(QUERY, TEXTS, deadline_ms=405)
    assert_given(found)
    said = found.degraded.rpartition("; ")[2]
    assert said == told if told else "model" not in said


async def test_who_is_given_up_while_it_loads_says_so(monkeypatch):
    ranker = tiny()
    plain, end = ranker._make_scorers, threading.Event()

    def make(due):
        end.wait()
        return plain(due)

    monkeypatch.setattr(ranker, "_make_scorers", make)
    found = await ranker.arank(QUERY, TEXTS, deadline_ms=20)
    end.set()
    assert_given(found)
    assert "loading the model took" in found.degraded
    assert (await ranker.arank(QUERY, TEXTS, deadline_ms=AMPLE)).degraded is None
