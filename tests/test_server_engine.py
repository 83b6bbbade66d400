"""The engine: batches, deadlines, clients that go away, failures that stay where they are."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import threading
from contextvars import ContextVar

import pytest
from fake_time import FakeClock
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from server_parts import CONFIG, FakeReranker, begun, documents, ranking, running, until

from icr_rag.errors import ClosedError, InputError, ModelLoadError, OverloadedError
from icr_rag.server.call import RerankCall
from icr_rag.server.engine import Engine
from icr_rag.server.known import Known
from icr_rag.server.limits import TooLargeError
from icr_rag.server.settings import ServerSettings
from icr_rag.server.watcher import Watcher


class Seen(Watcher):
    def __init__(self):
        self.gone, self.due, self.batches = [], 0, []

    def hung_up(self, *, running):
        self.gone.append("running" if running else "waiting")

    def late(self):
        self.due += 1

    def ranked(self, requests, tokens, seconds):
        self.batches.append(requests)


def call(query="q", *texts, **fields):
    return RerankCall(query, documents(*(texts or ("one", "two"))), **fields)


def settings(**fields):
    return ServerSettings(**{"batch_wait_ms": 0, **fields})


async def ask(engine, *calls):
    """Tasks that are in the line, in this order."""
    return [asyncio.ensure_future(engine.rerank(own)) for own in calls]


async def held(engine, reranker, *calls):
    """Tasks that wait behind one that is in the model's thread."""
    reranker.hold()
    first = asyncio.ensure_future(engine.rerank(call("first")))
    await begun(reranker)
    tasks = await ask(engine, *calls)
    await until(lambda: len(engine._line) == len(calls))
    return first, tasks


async def test_an_answer_has_every_document_and_the_rankings_own_order():
    async with running() as engine:
        answer = await engine.rerank(call("q", "one", "two", "three"))
    expected = ranking("q", documents("one", "two", "three"))
    assert answer.scores == expected.scores
    assert answer.order == tuple(hit.index for hit in expected)
    assert (answer.model, answer.tokens, answer.probability) == ("fake", 30, False)
    assert dict(answer.seconds)["queue"] >= 0


@settings_of_hypothesis(max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.text(min_size=1, alphabet="abc "), st.lists(st.text(alphabet="xy ", max_size=4))
        ),
        max_size=8,
    ),
    st.integers(1, 60),
)
def test_requests_together_get_what_each_gets_alone(asked, budget):
    asked = [(query, texts) for query, texts in asked if query.strip()]

    async def answers(reranker, *, together):
        async with running(reranker, settings(batch_tokens=budget)) as engine:
            calls = [RerankCall(query, documents(*texts)) for query, texts in asked]
            if not together:
                return [await engine.rerank(own) for own in calls]
            return await asyncio.gather(*map(engine.rerank, calls))

    async def both():
        first = await answers(FakeReranker(), together=True)
        second = await answers(FakeReranker(), together=False)
        return [[(a.scores, a.order) for a in own] for own in (first, second)]

    together, alone = asyncio.run(both())
    assert together == alone


async def test_those_that_wait_are_ranked_together_within_the_budget():
    reranker, seen = FakeReranker(), Seen()
    # Each of these is estimated at four tokens: two documents.
    async with running(reranker, settings(batch_tokens=9), watcher=seen) as engine:
        first, tasks = await held(engine, reranker, *(call(f"q{n}") for n in range(5)))
        reranker.go_on.set()
        await asyncio.gather(first, *tasks)
    sizes = [len(own) for own in reranker.together]
    assert reranker.together[0][:1] == ["q0"]
    ranked = [*itertools.chain(*reranker.together), *reranker.alone]
    assert sorted(ranked) == ["first", *map("q{}".format, range(5))]
    assert max(sizes) > 1
    assert seen.batches[0] == 1


async def test_requests_that_differ_in_what_a_batch_shares_are_not_mixed():
    reranker = FakeReranker()
    async with running(reranker) as engine:
        calls = [
            call("a", instruction="Find what melts."), call("b"),
            call("c", instruction="Find what melts."), call("d", max_tokens_per_doc=7),
        ]  # fmt: skip
        first, tasks = await held(engine, reranker, *calls)
        reranker.go_on.set()
        await asyncio.gather(first, *tasks)
    assert reranker.together == [["a", "c"]]
    assert reranker.alone == ["first", "b", "d"]


async def test_one_that_waits_alone_is_joined_by_those_that_come_in_time():
    reranker = FakeReranker()
    async with running(reranker, settings(batch_wait_ms=1000, batch_tokens=4)) as engine:
        await asyncio.gather(engine.rerank(call("a", "x", "y")), engine.rerank(call("b", "x", "y")))
    assert reranker.together == [["a", "b"]]


@pytest.mark.parametrize("mishap", ["memory", "defect"])
async def test_a_request_that_fails_fails_alone_and_the_engine_lives_on(mishap):
    reranker = FakeReranker()
    async with running(reranker) as engine:
        first, tasks = await held(engine, reranker, call("a"), call(mishap), call("b"))
        reranker.go_on.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[0].scores == ranking("a", documents("one", "two")).scores
        assert isinstance(results[1], MemoryError if mishap == "memory" else RuntimeError)
        assert results[2].scores == ranking("b", documents("one", "two")).scores
        await engine.rerank(call("later"))
        await first
    assert reranker.together == [["a", mishap, "b"]]


async def test_a_requests_context_goes_with_it_into_the_models_thread():
    own, seen = ContextVar("own"), []

    class Sees(FakeReranker):
        def _work(self, queries):
            seen.append(own.get(None))
            super()._work(queries)

    async with running(Sees()) as engine:
        own.set("the caller's")
        await engine.rerank(call("q"))
    assert seen == ["the caller's"]


# --- clients that go away -------------------------------------------------------------------


async def test_who_goes_away_while_waiting_is_not_ranked_and_counted():
    reranker, seen = FakeReranker(), Seen()
    async with running(reranker, watcher=seen) as engine:
        first, tasks = await held(engine, reranker, call("gone"), call("stays"))
        tasks[0].cancel()
        await asyncio.wait({tasks[0]})
        assert (len(engine._line), engine._line.documents) == (1, 2)
        reranker.go_on.set()
        await asyncio.gather(first, tasks[1])
    assert seen.gone == ["waiting"]
    assert reranker.alone == ["first", "stays"]


async def test_who_goes_away_while_running_wastes_no_more_than_that():
    reranker, seen = FakeReranker(), Seen()
    async with running(reranker, watcher=seen) as engine:
        first, tasks = await held(engine, reranker, call("stays"))
        first.cancel()
        await asyncio.wait({first})
        reranker.go_on.set()
        assert (await tasks[0]).scores
    assert seen.gone == ["running"]


# --- a full line ----------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [{"queue_requests": 2}, {"queue_documents": 5}])
async def test_a_full_line_takes_no_more_and_says_when_to_come_back(limit):
    reranker = FakeReranker()
    async with running(reranker, settings(**limit)) as engine:
        first, tasks = await held(engine, reranker, call("a"), call("b"))
        with pytest.raises(OverloadedError, match="are waiting") as caught:
            await engine.rerank(call("c"))
        assert 1 <= caught.value.retry_after <= 60
        reranker.go_on.set()
        await asyncio.gather(first, *tasks)
        await engine.rerank(call("c"))


async def test_a_list_longer_than_the_line_is_ranked_where_nobody_waits():
    async with running(settings=settings(queue_documents=1)) as engine:
        assert len((await engine.rerank(call("q", "a", "b", "c"))).scores) == 3


# --- deadlines ------------------------------------------------------------------------------


async def test_a_deadline_goes_to_the_library_while_nothing_is_known_of_batches():
    reranker = FakeReranker()
    async with running(reranker) as engine:
        await engine.rerank(call("q", deadline_ms=60_000.0))
    assert 0 < reranker.deadlines[0] <= 60_000


async def test_a_distant_deadline_is_no_reason_to_be_ranked_alone():
    reranker = FakeReranker()
    async with running(reranker) as engine:
        await engine.rerank(call("measured"))
        first, tasks = await held(engine, reranker, call("a", deadline_ms=1e9), call("b"))
        reranker.go_on.set()
        await asyncio.gather(first, *tasks)
    assert ["a", "b"] in reranker.together


async def test_who_is_due_before_his_turn_is_answered_in_time_and_told():
    reranker, seen = FakeReranker(), Seen()
    async with running(reranker, watcher=seen) as engine:
        first, _ = await held(engine, reranker)
        answer = await engine.rerank(call("late", deadline_ms=5.0))
        assert answer.order == (0, 1)
        assert "waited for the model" in answer.degraded
        # What has begun and is not done by then is dropped.
        assert len(engine._line) == 0
        reranker.go_on.set()
        await first
    assert seen.due == 1
    assert reranker.alone == ["first"]


async def test_the_settings_deadline_is_for_those_that_name_none():
    reranker = FakeReranker()
    async with running(reranker, settings(deadline_ms=5.0)) as engine:
        reranker.hold()
        answer = await engine.rerank(call("q"))
        assert "was not finished" in answer.degraded


async def test_what_a_deadline_cut_short_says_nothing_of_how_long_the_whole_takes():
    reranker = FakeReranker()
    whole = reranker.rank

    def cut(query, documents, *arguments, **named):
        found = whole(query, documents, *arguments, **named)
        return dataclasses.replace(found, degraded="so much was left out")

    async with running(reranker) as engine:
        reranker.rank = cut
        await engine.rerank(call("q", "text " * 10_000, deadline_ms=60_000.0))
        assert engine._pace.expect(1) is None
        reranker.rank = whole
        await engine.rerank(call("q"))
        assert engine._pace.expect(1) is not None


async def test_a_cache_that_does_not_answer_takes_no_more_than_half_of_the_time():
    answers = threading.Event()

    class Silent:
        def look_up(self, call, documents):
            assert answers.wait(60)
            return [Known(0.5, cut=False)] * len(documents)

        def keep(self, call, scores):
            pass

    reranker = FakeReranker()
    async with running(reranker, cache=lambda *_: Silent()) as engine:
        try:
            # Within sixty seconds or not at all.
            answer = await engine.rerank(call("q", deadline_ms=100.0))
        finally:
            answers.set()
        assert answer.cached == 0
        assert (await engine.rerank(call("q"))).cached == 2


# --- life -----------------------------------------------------------------------------------


async def test_whoever_comes_and_goes_leaves_nothing_behind():
    """Each time the wait for a second request ends with nobody there."""
    clock = FakeClock(0)
    reranker = FakeReranker()
    async with running(reranker, settings(batch_wait_ms=10_000), clock=clock) as engine:
        for _ in range(3):
            task = asyncio.ensure_future(engine.rerank(call("gone")))
            await until(lambda: len(engine._line))
            await until(lambda: not engine._line.changed.is_set())
            task.cancel()
            await until(task.done)
            clock.now += 60
            engine._line.changed.set()
            await until(lambda: not engine._line.changed.is_set())
            await asyncio.sleep(0)
        coroutine, depth = engine._worker.get_coro(), 0
        while coroutine is not None:
            coroutine, depth = getattr(coroutine, "cr_await", None), depth + 1
        # The worker, what it waits for, and the event's own.
        assert depth < 6


async def test_shutting_down_finishes_what_was_taken_and_takes_no_more():
    reranker = FakeReranker()
    async with running(reranker) as engine:
        first, tasks = await held(engine, reranker, call("a"), call("b"))
        stopping = asyncio.ensure_future(engine.stop(60))
        await until(lambda: not engine.ready)
        assert engine.state == "shutting down"
        with pytest.raises(ClosedError):
            await engine.rerank(call("new"))
        reranker.go_on.set()
        for answer in await asyncio.gather(first, *tasks):
            assert len(answer.scores) == 2
        await stopping


async def test_what_is_not_finished_within_the_grace_is_told():
    reranker = FakeReranker()
    async with running(reranker) as engine:
        first, tasks = await held(engine, reranker, call("a"))
        await engine.stop(0)
        for task in (first, *tasks):
            with pytest.raises(ClosedError, match="shutting down"):
                await task
        await engine.stop()


async def test_calls_wait_while_the_model_is_loading():
    reranker = FakeReranker()
    reranker.hold()

    def load():
        reranker.go_on.wait(60)
        return reranker

    engine = Engine(CONFIG, load, settings())
    engine.start()
    task = asyncio.ensure_future(engine.rerank(call("early")))
    await until(lambda: len(engine._line) == 1)
    assert (engine.ready, engine.state) == (False, "loading")
    reranker.go_on.set()
    assert (await task).scores
    assert (engine.ready, engine.state) == (True, "ready")
    await engine.stop()


async def test_a_model_that_cannot_be_loaded_is_told_without_its_path():
    def load():
        raise ModelLoadError("nothing at /secret/path")

    engine = Engine(CONFIG, load, settings())
    engine.start()
    task = asyncio.ensure_future(engine.rerank(call("early")))
    for asked in (task, engine.rerank(call("later"))):
        with pytest.raises(ModelLoadError) as caught:
            await asked
        assert "secret" not in str(caught.value)
    assert engine.state == "failed"
    assert "secret" in str(engine.failure)
    await engine.stop()


# --- limits ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "kind", "words"),
    [
        (call(" "), InputError, "blank"),
        (call("q" * 11), TooLargeError, "the query has 11 characters; this server allows 10"),
        (call("q", "d" * 21), TooLargeError, "document 0 has 21 characters"),
        (call("q", *"abcd"), TooLargeError, "4 documents"),
        (call("q", "a", "\ud800"), InputError, "document 1 has half of a surrogate pair"),
        (call("\udfff"), InputError, "the query has half"),
        (call("q", deadline_ms=-1.0), InputError, "deadline_ms"),
        (call("q", deadline_ms=float("nan")), InputError, "deadline_ms"),
        (call("q", max_tokens_per_doc=0), InputError, "max_tokens_per_doc"),
        (call("q", instruction="one"), InputError, "instruction"),
    ],
)
async def test_what_cannot_be_ranked_is_told_before_it_waits(asked, kind, words):
    reranker = FakeReranker()
    limits = settings(max_documents=3, max_query_chars=10, max_document_chars=20)
    async with running(reranker, limits) as engine:
        with pytest.raises(kind, match=words):
            await engine.rerank(asked)
    assert reranker.alone == []


async def test_nothing_and_blank_documents_need_no_model():
    reranker = FakeReranker()
    async with running(reranker) as engine:
        assert (await engine.rerank(RerankCall("q", ()))).scores == ()
        answer = await engine.rerank(call("q", " ", ""))
    assert (answer.scores, answer.order) == ((-100.0, -100.0), (0, 1))
    assert reranker.alone == []
