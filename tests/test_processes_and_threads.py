"""Nothing hangs: forks, closing while calls wait, loading beside an event loop."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker
from icr_rag.calls import load as registry
from icr_rag.errors import ClosedError, ConfigError
from icr_rag.model import loading

QUERY = "which metal?"
DOCUMENTS = ["tin melts", "oaks carry acorns", "lead is soft"]
#: Long enough for any machine; nothing waits for it unless something is wrong.
PATIENCE = 60


def reranker(**fields):
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), layers=(1, 2), **fields)


# --- closing ----------------------------------------------------------------------------------


async def test_calls_that_wait_when_it_is_closed_are_told_so():
    ranker = reranker()
    ranker.warm_up()
    started, release = threading.Event(), threading.Event()
    rank = ranker.rank

    def slow(*arguments, **keywords):
        started.set()
        release.wait(PATIENCE)
        return rank(*arguments, **keywords)

    ranker.rank = slow
    first = asyncio.ensure_future(ranker.arank(QUERY, DOCUMENTS))
    await asyncio.to_thread(started.wait, PATIENCE)
    ranker.rank = rank
    waiting = [asyncio.ensure_future(ranker.arank(QUERY, DOCUMENTS)) for _ in range(3)]
    await asyncio.sleep(0)
    ranker.close()
    release.set()
    outcomes = await asyncio.gather(first, *waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ClosedError] * 4
    with pytest.raises(ClosedError):
        await ranker.arank(QUERY, DOCUMENTS)


def test_closing_from_another_thread_does_not_skip_the_cascade(monkeypatch):
    from icr_rag.calls import rank as module

    ranker = reranker(document_states="independent", framework="listwise", cascade=2)
    expected = ranker.rank(QUERY, DOCUMENTS)
    read_again = module.read_again
    seen = []

    def closing(*arguments):
        ranker.close()
        seen.append(1)
        return read_again(*arguments)

    real = module.Candidates

    class Closing(real):
        def __init__(self, *arguments, **keywords):
            # After the scorers were taken, before they are used.
            ranker.close()
            super().__init__(*arguments, **keywords)

    monkeypatch.setattr(module, "read_again", closing)
    monkeypatch.setattr(module, "Candidates", Closing)
    found = ranker.rank(QUERY, DOCUMENTS)
    assert seen
    assert found.scores == expected.scores


def test_a_second_scorer_that_cannot_be_made_fails_each_time(monkeypatch):
    ranker = reranker(document_states="independent", framework="listwise", cascade=2)
    make = registry.make_scorer

    def failing(engine, config):
        if config.cascade is None:
            raise ConfigError("the second reading cannot be")
        return make(engine, config)

    monkeypatch.setattr(registry, "make_scorer", failing)
    for _ in range(2):
        with pytest.raises(ConfigError, match="second reading"):
            ranker.rank(QUERY, DOCUMENTS)


# --- loading ----------------------------------------------------------------------------------


async def test_loading_leaves_the_event_loop_free(model_folder, monkeypatch):
    """While one call loads the model, others may be begun, and the loop goes on."""
    ranker = Reranker(model=model_folder, layers=(1, 2), dtype="float32")
    started, release = threading.Event(), threading.Event()
    load = loading.load_config

    def slow(config):
        started.set()
        assert release.wait(PATIENCE)
        return load(config)

    monkeypatch.setattr(registry, "load_config", slow)
    thread = threading.Thread(target=ranker.rank, args=(QUERY, DOCUMENTS))
    thread.start()
    await asyncio.to_thread(started.wait, PATIENCE)
    second = asyncio.ensure_future(ranker.arank(QUERY, DOCUMENTS))
    # Reached only if beginning the call did not wait for the load.
    await asyncio.sleep(0)
    assert not second.done()
    release.set()
    assert len(await second) == 3
    thread.join()


def test_loading_one_model_does_not_hold_up_another(model_folder, monkeypatch):
    started, release = threading.Event(), threading.Event()
    load = loading.load_config

    def slow(config):
        if config.states_memory == 7:
            started.set()
            assert release.wait(PATIENCE)
        return load(config)

    monkeypatch.setattr(registry, "load_config", slow)
    one = Reranker(
        model=model_folder,
        layers=(1, 2),
        dtype="float32",
        local_files_only=True,
        document_states="independent",
        states_memory=7,
    )
    thread = threading.Thread(target=one.rank, args=(QUERY, DOCUMENTS))
    thread.start()
    assert started.wait(PATIENCE)
    other = Reranker(model=model_folder, layers=(1, 2), dtype="float32")
    assert len(other.rank(QUERY, DOCUMENTS)) == 3
    assert len(reranker().rank(QUERY, DOCUMENTS)) == 3
    release.set()
    thread.join()


# --- forks --------------------------------------------------------------------------------------

PROGRAM = """
    import asyncio, os, sys, threading
    sys.path.insert(0, {tests!r})
    import torch
    torch.set_num_threads({threads})
    from tiny import byte_tokenizer, tiny_model
    from icr_rag import Reranker
    from icr_rag.errors import ForkedError

    ranker = Reranker.from_model(tiny_model("llama"), byte_tokenizer(), layers=(1, 2))
    documents = ["tin melts", "oaks carry acorns"]
    expected = asyncio.run(ranker.arank("which metal?", documents)).scores
    lock = ranker.engine.lock
    held, go = threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            go.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        try:
            scores = asyncio.run(ranker.arank("which metal?", documents)).scores
            print("same" if scores == expected else "other", flush=True)
        except ForkedError as error:
            print("refused", error, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    go.set()
    thread.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize(("threads", "outcome"), [(1, "same"), (2, "refused")])
def test_a_forked_process_ranks_or_says_why_not(threads, outcome):
    tests = str(Path(__file__).parent)
    program = textwrap.dedent(PROGRAM).format(tests=tests, threads=threads)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 3,
        check=False,
    )
    assert done.stdout.startswith(outcome), done.stdout + done.stderr


LOADING = """
    import os, sys, threading
    sys.path.insert(0, {tests!r})
    import torch
    torch.set_num_threads({threads})
    from icr_rag import Reranker
    from icr_rag.errors import ForkedError
    from icr_rag.calls import load as loading

    load, parent = loading.load_config, os.getpid()
    started, go = threading.Event(), threading.Event()

    def slow(config):
        if os.getpid() == parent:
            started.set()
            go.wait()
        return load(config)

    loading.load_config = slow
    ranker = Reranker(model={folder!r}, layers=(1, 2), dtype="float32")
    documents = ["tin melts", "oaks carry acorns"]
    thread = threading.Thread(target=ranker.rank, args=("which metal?", documents))
    thread.start()
    started.wait()
    child = os.fork()
    if child == 0:
        try:
            print("ranked", len(ranker.rank("which metal?", documents)), flush=True)
        except ForkedError as error:
            print("refused", error, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    go.set()
    thread.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize(("threads", "outcome"), [(1, "ranked 2"), (2, "refused")])
def test_a_fork_while_another_thread_loads(threads, outcome, model_folder):
    tests = str(Path(__file__).parent)
    text = textwrap.dedent(LOADING)
    program = text.format(tests=tests, threads=threads, folder=model_folder)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 3,
        check=False,
    )
    assert done.stdout.startswith(outcome), done.stdout + done.stderr


def test_engines_on_one_model_share_a_lock_whoever_makes_them_at_once(monkeypatch):
    model, both = tiny_model("llama"), threading.Barrier(2)
    copy_of = loading.own_tokenizer

    def together(tokenizer):
        # Both have looked for an engine by now, and neither has made one known.
        both.wait(PATIENCE)
        return copy_of(tokenizer)

    monkeypatch.setattr(loading, "own_tokenizer", together)
    engines = []
    threads = [
        threading.Thread(
            target=lambda: engines.append(
                loading.engine_from_model(model, byte_tokenizer(), "eager")
            )
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, second = engines
    assert first is not second
    assert first.lock is second.lock
