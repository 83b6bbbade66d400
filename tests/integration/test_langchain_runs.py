"""Runs that LangChain's callbacks see: named, nested under their caller, ended whatever happens."""

from __future__ import annotations

import asyncio
import threading

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler, CallbackManager
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langchain_parts import QUERY, BrokenReranker, FixedRetriever, make_documents
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker
from icr_rag.errors import InputError, ModelLoadError
from icr_rag.integrations.langchain import ICRRerank


@pytest.fixture(scope="module")
def reranker():
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), layers=(1, 2))


def run_of(call):
    """The one root run that ``call(collector)`` made."""
    collector = RunCollectorCallbackHandler()
    result = call(collector)
    (run,) = collector.traced_runs
    return run, result


@pytest.mark.parametrize("documents", [make_documents(), []], ids=["some", "none"])
@pytest.mark.parametrize("path", ["sync", "async"])
def test_a_call_is_a_run_with_its_input_and_output(reranker, documents, path):
    adapter = ICRRerank(reranker, top_n=2)

    def call(collector):
        if path == "sync":
            return adapter.compress_documents(documents, QUERY, callbacks=[collector])
        return asyncio.run(adapter.acompress_documents(documents, QUERY, callbacks=[collector]))

    run, result = run_of(call)
    assert (run.name, run.run_type, run.parent_run_id) == ("ICRRerank", "chain", None)
    assert run.inputs == {"query": QUERY, "documents": documents}
    assert run.outputs == {"output": result}
    assert run.error is None
    assert run.end_time is not None
    assert run.child_runs == []


@pytest.mark.parametrize("path", ["sync", "async"])
def test_a_failure_ends_the_run(path):
    adapter = ICRRerank(BrokenReranker())

    def compress(collector):
        if path == "sync":
            adapter.compress_documents(make_documents(), QUERY, callbacks=[collector])
        asyncio.run(adapter.acompress_documents(make_documents(), QUERY, callbacks=[collector]))

    def call(collector):
        with pytest.raises(ModelLoadError, match="no such weights"):
            compress(collector)

    run, _ = run_of(call)
    assert run.name == "ICRRerank"
    assert "no such weights" in run.error
    assert run.end_time is not None


def test_a_wrong_call_ends_the_run_too(reranker):
    def call(collector):
        with pytest.raises(InputError, match="blank"):
            ICRRerank(reranker).compress_documents(make_documents(), " ", callbacks=[collector])

    run, _ = run_of(call)
    assert "blank" in run.error


def test_nested_under_a_manager_with_its_tags(reranker):
    collector = RunCollectorCallbackHandler()
    manager = CallbackManager.configure(
        inheritable_callbacks=[collector],
        inheritable_tags=["mine"],
        inheritable_metadata={"user": "me"},
    )
    parent = manager.on_chain_start(None, {}, name="parent")
    ICRRerank(reranker).compress_documents(make_documents(), QUERY, callbacks=parent.get_child())
    parent.on_chain_end({})
    (run,) = collector.traced_runs
    (child,) = run.child_runs
    assert (run.name, child.name) == ("parent", "ICRRerank")
    assert "mine" in child.tags
    assert child.extra["metadata"]["user"] == "me"


@pytest.mark.parametrize("path", ["sync", "async"])
def test_nested_in_a_chain_that_says_nothing_of_callbacks(reranker, path):
    """A call inside somebody's own function finds its parent by itself."""
    adapter = ICRRerank(reranker)
    step = RunnableLambda(
        lambda query: adapter.compress_documents(make_documents(), query), name="step"
    )

    async def astep(query):
        return await adapter.acompress_documents(make_documents(), query)

    def call(collector):
        if path == "sync":
            return step.invoke(QUERY, {"callbacks": [collector]})
        return asyncio.run(
            RunnableLambda(astep, name="step").ainvoke(QUERY, {"callbacks": [collector]})
        )

    run, result = run_of(call)
    assert [child.name for child in run.child_runs] == ["ICRRerank"]
    assert run.child_runs[0].parent_run_id == run.id
    assert len(result) == 4


def test_nested_in_a_compression_retriever(reranker):
    retrievers = pytest.importorskip("langchain_classic.retrievers")
    retriever = retrievers.ContextualCompressionRetriever(
        base_compressor=ICRRerank(reranker, top_n=2),
        base_retriever=FixedRetriever(documents=make_documents()),
    )
    run, found = run_of(lambda collector: retriever.invoke(QUERY, {"callbacks": [collector]}))
    assert [(child.name, child.run_type) for child in run.child_runs] == [
        ("FixedRetriever", "retriever"),
        ("ICRRerank", "chain"),
    ]
    again, same = run_of(
        lambda collector: asyncio.run(retriever.ainvoke(QUERY, {"callbacks": [collector]}))
    )
    assert [child.name for child in again.child_runs] == ["FixedRetriever", "ICRRerank"]
    assert found == same
    assert len(found) == 2


def test_a_subclass_goes_by_its_own_name(reranker):
    class MyRerank(ICRRerank):
        """Somebody's own."""

    run, _ = run_of(lambda c: MyRerank(reranker).compress_documents(make_documents(), QUERY, [c]))
    assert run.name == "MyRerank"


class AsyncRecorder(AsyncCallbackHandler):
    """Notes events, and the event loop that they ran in."""

    def __init__(self):
        self.seen = []

    async def on_chain_start(self, serialized, inputs, **kwargs):
        self.seen.append(("start", kwargs["name"], asyncio.get_running_loop()))

    async def on_chain_end(self, outputs, **kwargs):
        self.seen.append(("end", len(outputs), asyncio.get_running_loop()))


class SyncRecorder(BaseCallbackHandler):
    """Notes events."""

    def __init__(self):
        self.seen = []

    def on_chain_start(self, serialized, inputs, **kwargs):
        self.seen.append("start")

    def on_chain_end(self, outputs, **kwargs):
        self.seen.append("end")

    def on_chain_error(self, error, **kwargs):
        self.seen.append(type(error).__name__)


async def test_both_kinds_of_handlers_on_the_asynchronous_path(reranker):
    slow, quick = AsyncRecorder(), SyncRecorder()
    await ICRRerank(reranker).acompress_documents(make_documents(), QUERY, [slow, quick])
    loop = asyncio.get_running_loop()
    assert slow.seen == [("start", "ICRRerank", loop), ("end", 4, loop)]
    assert quick.seen == ["start", "end"]


class HeldReranker(Reranker):
    """Waits until it may go on, and notes the thread that waited."""

    def rank(self, *arguments, **keywords):
        self.thread = threading.get_ident()
        self.started.set()
        assert self.may_go_on.wait(60)
        return super().rank(*arguments, **keywords)


async def test_the_loop_stays_free_and_a_cancelled_call_ends_its_run(reranker):
    held = HeldReranker.from_model(tiny_model("llama"), byte_tokenizer(), layers=(1, 2))
    held.started, held.may_go_on = threading.Event(), threading.Event()
    adapter, recorder = ICRRerank(held), SyncRecorder()
    task = asyncio.create_task(adapter.acompress_documents(make_documents(), QUERY, [recorder]))
    # Were the loop blocked, this line would not be reached before `may_go_on` is set below.
    while not held.started.is_set():
        await asyncio.sleep(0.01)
    assert held.thread != threading.get_ident()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert recorder.seen == ["start", "CancelledError"]
    held.may_go_on.set()
    expected = ICRRerank(reranker).compress_documents(make_documents(), QUERY)
    assert await adapter.acompress_documents(make_documents(), QUERY) == expected


async def test_streamed_events_show_it(reranker):
    run = ICRRerank(reranker, top_n=1).as_runnable()
    events = [
        (event["event"], event["name"])
        async for event in run.astream_events(
            {"query": QUERY, "documents": make_documents()}, version="v2"
        )
    ]
    assert events[0] == ("on_chain_start", "ICRRerank")
    assert events[-1] == ("on_chain_end", "ICRRerank")
