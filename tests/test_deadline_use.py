"""How well deadlines use their time, by a clock that only the model's tokens move."""

from __future__ import annotations

import itertools
import random

import pytest
from fake_time import fake_time
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker

QUERY = "Which metal melts first?"
ATTENTION = {"layers": (1, 2)}
KEPT = {"document_states": "independent"}
POINTWISE = {**ATTENTION, "framework": "pointwise"}
LIKELIHOOD = {"scoring": "likelihood"}
#: Rerankers of the same settings share their states.
MEMORIES = itertools.count(5000)
#: Documents are read one after the other, and with each whether they were encoded before.
BY_AND_BY = [
    *((fields, False) for fields in (POINTWISE, LIKELIHOOD, {"scoring": "mixed"})),
    ({**ATTENTION, **KEPT, "framework": "listwise"}, False),
    *(({**LIKELIHOOD, **KEPT}, encoded) for encoded in (False, True)),
    ({"scoring": "generation", "framework": "pointwise"}, False),
]
WHOLES = [
    (ATTENTION, False),
    ({**ATTENTION, **KEPT, "framework": "listwise"}, True),
    ({**ATTENTION, "framework": "setwise"}, False),
]
WORDS = ["tin", "lead", "gold", "melts", "oaks", "carry", "acorns", "soft", "copper", "wire"]
COUNT = 6
SEEDS = st.integers(0, 10**6)


def drawn(draw, count):
    """Documents that were never seen, as long as any others."""
    return [" ".join(draw.choices(WORDS, k=draw.randint(14, 24))) for _ in range(count)]


def of_two_calls(fields, encoded, draw, count):
    """A reranker of which two calls without a deadline were asked, and the time of the longer."""
    own = {**fields, **({"states_memory": next(MEMORIES)} if "document_states" in fields else {})}
    ranker = Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **own)
    taken = []
    with fake_time(ranker) as clock:
        ranker.warm_up()
        for _ in range(2):
            documents = drawn(draw, count)
            if encoded:
                ranker.encode(documents)
            started = clock.now
            ranker.rank(QUERY, documents)
            taken.append(clock.now - started)
    return ranker, max(taken)


def call(use, share, seed, count=COUNT):
    """A call that has this share of the time, and which part of that it used."""
    fields, encoded = use
    draw = random.Random(seed)
    ranker, needed = of_two_calls(fields, encoded, draw, count)
    documents = drawn(draw, count)
    with fake_time(ranker) as clock:
        if encoded:
            ranker.encode(documents)
        started = clock.now
        found = ranker.rank(QUERY, documents, deadline_ms=1000 * share * needed)
        return found, (clock.now - started) / (share * needed)


@settings(max_examples=12, deadline=None)
@given(use=st.sampled_from(BY_AND_BY + WHOLES), share=st.floats(2.0, 3.0), seed=SEEDS)
def test_twice_the_time_is_enough(use, share, seed):
    found, _ = call(use, share, seed)
    assert found.degraded is None


@settings(max_examples=12, deadline=None)
@given(use=st.sampled_from(BY_AND_BY), share=st.floats(0.5, 0.95), seed=SEEDS)
def test_with_less_at_least_half_of_it_is_used(use, share, seed):
    found, used = call(use, share, seed)
    assert found.degraded is None or used >= 0.5
    assert len(found.usage.unscored) < COUNT


@pytest.mark.parametrize("use", [WHOLES[0], WHOLES[2]], ids=str)
@pytest.mark.parametrize("share", [0.6, 0.9])
def test_of_a_list_that_is_read_as_one_the_beginning_is(use, share):
    found, used = call(use, share, 7, 12)
    read = 12 - len(found.usage.unscored)
    assert 2 <= read < 12
    assert found.usage.unscored == tuple(range(read, 12))
    assert used >= 0.4
