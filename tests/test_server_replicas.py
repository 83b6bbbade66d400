"""Calls to replicas that get lost: sent again, in bounds, with what is left of their deadline."""

from __future__ import annotations

import asyncio

import pytest

from icr_rag import Document
from icr_rag.errors import ConfigError, InputError, OverloadedError
from icr_rag.server.call import RerankAnswer, RerankCall
from icr_rag.server.replicas import ReplicaLostError, ReplicatedAnswers

CALL = RerankCall("q", (Document("a"), Document("b")))
ANSWER = RerankAnswer("m", (1.0, 0.0), (0, 1), probability=False)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Fake:
    """Loses the first ``lost`` calls, each after ``takes`` seconds of the clock."""

    def __init__(self, clock, lost=0, takes=0.0, outcome=ANSWER):
        self.clock, self.lost, self.takes, self.outcome = clock, lost, takes, outcome
        self.calls = []

    async def __call__(self, call, key):
        self.calls.append((call, key))
        self.clock.now += self.takes
        if len(self.calls) <= self.lost:
            raise ReplicaLostError("actor died")
        return self.outcome


def answers(fake, **settings):
    async def pause(seconds):
        fake.clock.now += seconds

    return ReplicatedAnswers({"m": fake}, clock=fake.clock, pause=pause, **settings)


async def test_a_lost_call_goes_to_another_replica_with_the_same_key():
    fake = Fake(Clock(), lost=2)
    made = answers(fake)
    assert await made.rerank(CALL) is ANSWER
    assert made.retried == 2
    assert [call for call, _ in fake.calls] == [CALL] * 3
    assert len({key for _, key in fake.calls}) == 1


async def test_no_more_attempts_than_are_allowed():
    fake = Fake(Clock(), lost=9)
    with pytest.raises(OverloadedError, match="3 replicas were lost"):
        await answers(fake, attempts=3).rerank(CALL)
    assert len(fake.calls) == 3


async def test_a_retry_has_what_is_left_of_the_deadline():
    fake = Fake(Clock(), lost=1, takes=2.0)
    await answers(fake).rerank(RerankCall("q", CALL.documents, deadline_ms=5000))
    assert [call.deadline_ms for call, _ in fake.calls] == pytest.approx([5000, 2950])


async def test_after_its_deadline_a_call_is_sent_once_more_and_never_twice():
    fake = Fake(Clock(), lost=9, takes=10.0)
    with pytest.raises(OverloadedError, match="2 replicas were lost"):
        await answers(fake, attempts=9).rerank(RerankCall("q", CALL.documents, deadline_ms=5000))
    assert [call.deadline_ms for call, _ in fake.calls] == [5000, 1.0]


async def test_an_error_of_the_call_is_raised_as_it_is_and_not_tried_again():
    wrong = InputError("the query is blank")
    fake = Fake(Clock(), outcome=wrong)
    with pytest.raises(InputError) as caught:
        await answers(fake).rerank(CALL)
    assert caught.value is wrong
    assert len(fake.calls) == 1


async def test_where_no_replica_ever_answers_a_call_ends():
    async def never(call, key):
        await asyncio.Event().wait()

    made = ReplicatedAnswers({"m": never}, patience=0.01)
    with pytest.raises(OverloadedError, match=r"no replica answered within 0\.0 s"):
        await made.rerank(CALL)


async def test_a_call_that_is_cancelled_cancels_the_replica_s():
    begun, ended = asyncio.Event(), asyncio.Event()

    async def waits(call, key):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.ensure_future(ReplicatedAnswers({"m": waits}).rerank(CALL))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_call_names_its_model():
    one, other = Fake(Clock()), Fake(Clock())
    made = ReplicatedAnswers({"one": one, "other": other})
    assert (made.model, made.models) == ("one", ("one", "other"))
    await made.rerank(CALL)
    await made.rerank(RerankCall("q", CALL.documents, model="other"))
    assert (len(one.calls), len(other.calls)) == (1, 1)
    with pytest.raises(InputError, match=r"model='none' is not served.*'one', 'other'"):
        await made.rerank(RerankCall("q", CALL.documents, model="none"))


async def test_one_model_answers_to_any_name():
    fake = Fake(Clock())
    await answers(fake).rerank(RerankCall("q", CALL.documents, model="rerank-v3.5"))
    assert len(fake.calls) == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"attempts": 0}, "attempts=0"), ({"patience": 0.0}, "patience=0.0"),
     ({"patience": float("nan")}, "patience=nan")],
)  # fmt: skip
def test_wrong_numbers_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        ReplicatedAnswers({"m": Fake(Clock())}, **settings)


def test_no_models_are_refused():
    with pytest.raises(ConfigError, match="models is empty"):
        ReplicatedAnswers({})
