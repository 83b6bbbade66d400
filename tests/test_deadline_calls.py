"""Deadlines across threads, event loops, several queries, commands and adapters."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import threading

import pytest
from beir import write_beir
from fake_time import fake_time
from tiny import byte_tokenizer, tiny_model
from waits import held

from icr_rag import Reranker, RerankerConfig, cli
from icr_rag.deadline import Pace
from icr_rag.errors import InputError

QUERY = "Which metal melts first?"
TEXTS = ["Oaks carry acorns.", "Tin melts at 232 degrees.", "Lead is soft.", "Gold.", " "]
ALL = (0, 1, 2, 3)
AMPLE = 1e9


def tiny(**fields):
    return Reranker.from_model(
        tiny_model("llama"), byte_tokenizer(), **{"layers": (1, 2), **fields}
    )


def assert_given(ranking):
    assert [hit.index for hit in ranking] == [0, 1, 2, 3, 4]
    assert ranking.usage.unscored == ALL
    assert "none of 4 documents was scored" in ranking.degraded


# --- waiting ------------------------------------------------------------------------------------


def test_waiting_for_another_call_ends_at_the_deadline():
    ranker = tiny().warm_up()
    with held(ranker.engine.lock):
        found = ranker.rank(QUERY, TEXTS, deadline_ms=30)
    assert_given(found)
    assert "other calls held the model for" in found.degraded
    assert ranker.rank(QUERY, TEXTS, deadline_ms=AMPLE).degraded is None


def test_waiting_for_another_thread_that_loads_too():
    ranker = tiny()
    with held(ranker._scorers.making.lock):
        assert_given(ranker.rank(QUERY, TEXTS, deadline_ms=30))
    assert ranker._scorers.made is None


async def test_an_event_loop_has_its_answer_whatever_the_thread_does(caplog, monkeypatch):
    ranker = tiny().warm_up()
    waits = []
    plain = asyncio.wait

    def wait(tasks, *, timeout):
        waits.append(timeout)
        return plain(tasks, timeout=timeout)

    monkeypatch.setattr(asyncio, "wait", wait)
    with held(ranker.engine.lock):
        # The first one's thread waits without a deadline, the second one is not begun.
        first = asyncio.ensure_future(ranker.arank(QUERY, TEXTS))
        await asyncio.sleep(0)
        found = await ranker.arank(QUERY, TEXTS, deadline_ms=100)
        assert_given(found)
        assert "other calls held the model for" in found.degraded
        assert waits == [pytest.approx(0.1, abs=0.1)]
        with pytest.raises(InputError, match="blank"):
            await ranker.arank(" ", TEXTS, deadline_ms=20)
    assert (await first).degraded is None
    assert (await ranker.arank(QUERY, TEXTS, deadline_ms=AMPLE)).degraded is None
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert [line[:20] for line in told] == ["deadline of 100 ms: "]


async def test_a_thread_that_is_late_is_not_waited_for(monkeypatch, caplog):
    ranker = tiny().warm_up()
    # Nothing is known that could keep it from beginning.
    ranker.scorer.pace = Pace()
    end = threading.Event()
    ended = []
    plain = ranker.scorer.score

    def score(*arguments):
        end.wait()
        found = plain(*arguments)
        ended.append(True)
        monkeypatch.undo()
        return found

    monkeypatch.setattr(ranker.scorer, "score", score)
    late = await ranker.arank(QUERY, TEXTS, deadline_ms=500)
    assert_given(late)
    assert "other calls" not in late.degraded
    assert ended == []
    end.set()
    # What has begun ends, late, and says nothing more: the worker takes calls in turn.
    whole = await ranker.arank(QUERY, TEXTS)
    assert whole.degraded is None
    assert ended == [True]
    assert caplog.text.count("deadline of 500 ms") == 1


async def test_a_cancelled_call_is_cancelled():
    ranker = tiny().warm_up()
    with held(ranker.engine.lock):
        call = asyncio.ensure_future(ranker.arank(QUERY, TEXTS, deadline_ms=AMPLE))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert (await ranker.arank(QUERY, TEXTS)).degraded is None


def test_calls_of_several_threads_all_answer():
    ranker = tiny(scoring="likelihood", layers="auto").warm_up()
    whole = ranker.rank(QUERY, TEXTS)
    found = []

    def call(milliseconds):
        for _ in range(5):
            found.append(ranker.rank(QUERY, TEXTS, deadline_ms=milliseconds))

    threads = [threading.Thread(target=call, args=(ms,)) for ms in (1, 5, 20, AMPLE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    for ranking in found:
        assert sorted(hit.index for hit in ranking) == [0, 1, 2, 3, 4]
        assert ranking.degraded is not None or ranking.scores == pytest.approx(
            whole.scores, abs=1e-5
        )


# --- several queries ----------------------------------------------------------------------------

KEPT = {"document_states": "independent", "framework": "listwise"}
QUERIES = [QUERY, "What is soft?", "What do oaks carry?"]


def passes_of(ranker, **arguments):
    """Rankings of the queries, and how many passes they took."""
    with fake_time(ranker) as clock:
        found = ranker.rank_many(QUERIES, [TEXTS] * 3, **arguments)
    return found, clock.passes


def test_queries_share_a_pass_where_all_is_kept():
    ranker = tiny(**KEPT, states_memory=31).warm_up()
    whole = ranker.rank_many(QUERIES, [TEXTS] * 3)
    found, passes = passes_of(ranker, deadline_ms=AMPLE)
    assert passes == 1
    for one, other in zip(found, whole, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-5)
        assert one.degraded is None


@pytest.mark.parametrize("fields", [{**KEPT, "states_memory": 32}, {"framework": "pointwise"}])
def test_each_query_has_its_own_deadline(fields):
    ranker = tiny(**fields)
    with fake_time(ranker) as clock:
        before = clock.now
        ranker.rank(QUERY, ["Something else."], deadline_ms=AMPLE)
        for milliseconds in (20, 60, 120, 400):
            started = clock.now
            found = ranker.rank_many(QUERIES, [TEXTS] * 3, deadline_ms=milliseconds)
            assert clock.now - started <= 3 * (milliseconds / 1000 + clock.longest)
            for ranking in found:
                assert (ranking.degraded is None) == (not ranking.usage.unscored)
                late = ranking.usage.seconds["total"] - milliseconds / 1000
                assert late <= clock.longest
        assert clock.now > before
        found = ranker.rank_many(QUERIES, [TEXTS] * 3, deadline_ms=AMPLE)
        assert [ranking.degraded for ranking in found] == [None] * 3


def test_a_shared_pass_that_cannot_be_had_in_time_is_each_ones_own():
    ranker = tiny(**KEPT, states_memory=33).warm_up()
    ranker.encode(TEXTS)
    with held(ranker.engine.lock):
        for ranking in ranker.rank_many(QUERIES, [TEXTS] * 3, deadline_ms=15):
            assert_given(ranking)


# --- everywhere else ----------------------------------------------------------------------------


def test_copies_and_pickles_keep_the_setting():
    ranker = Reranker(deadline_ms=250.0)
    assert pickle.loads(pickle.dumps(ranker)).config.deadline_ms == 250
    assert copy.deepcopy(ranker).config.deadline_ms == 250
    assert RerankerConfig(deadline_ms=5).switched(scoring="likelihood").deadline_ms == 5
    late = tiny(deadline_ms=1e-9).rank(QUERY, TEXTS)
    assert pickle.loads(pickle.dumps(late)) == late


def test_the_command_says_it(tmp_path, model_folder, capsys):
    documents = tmp_path / "documents.jsonl"
    lines = [json.dumps({"text": text}) for text in TEXTS[:4]]
    documents.write_text("\n".join(lines), encoding="utf-8")
    arguments = ["rerank", QUERY, str(documents), "--model", model_folder, "--dtype", "float32"]
    assert cli.main([*arguments, "--deadline-ms", "0.001", "--format", "json"]) == 0
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    assert told["usage"]["unscored"] == [0, 1, 2, 3]
    assert told["degraded"].startswith("deadline of 0.001 ms: none of 4 documents was scored")
    assert shown.err.replace("\n", " ").count("none of 4") == 1
    assert cli.main([*arguments, "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["degraded"], told["usage"]["unscored"]) == (None, [])


def test_an_evaluation_counts_them(tmp_path, model_folder, capsys):
    folder = tmp_path / "tiny"
    write_beir(folder)
    out = tmp_path / "out.json"
    arguments = ["evaluate", str(folder), "--model", model_folder, "--dtype", "float32"]
    cli.main([*arguments, "--deadline-ms", "0.001", "--json", str(out)])
    shown = capsys.readouterr()
    assert "not whole at their deadline" in shown.err.replace("\n", " ")


@pytest.mark.parametrize("name", ["llama_index", "langchain"])
def test_adapters_tell_it_on_request(name, caplog):
    late = tiny(deadline_ms=1e-9, near_duplicates=0.9)
    if name == "llama_index":
        pytest.importorskip("llama_index.core")
        from llama_index.core.schema import NodeWithScore, TextNode

        from icr_rag.integrations.llama_index import ICRRerank

        nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in TEXTS]
        found = [
            ICRRerank(late, report_truncation=told).postprocess_nodes(nodes, query_str=QUERY)
            for told in (True, False)
        ]
        texts = [[node.node.text for node in nodes] for nodes in found]
        metadata = [[node.node.metadata for node in nodes] for nodes in found]
    else:
        pytest.importorskip("langchain_core")
        from langchain_core.documents import Document

        from icr_rag.integrations.langchain import ICRRerank

        given = [Document(text) for text in TEXTS]
        found = [
            ICRRerank(late, report_truncation=told).compress_documents(given, QUERY)
            for told in (True, False)
        ]
        texts = [[document.page_content for document in documents] for documents in found]
        metadata = [[document.metadata for document in documents] for documents in found]
    assert texts == [TEXTS, TEXTS]
    assert all("none of 4 documents" in one["rerank_degraded"] for one in metadata[0])
    assert not any("rerank_degraded" in one for one in metadata[1])
    assert caplog.text.count("deadline of 1e-09 ms") == 2


def test_a_repeat_that_has_no_score_stays_left_out():
    """LlamaIndex's adapter brings back what was not read, for a threshold may have dropped it."""
    pytest.importorskip("llama_index.core")
    from llama_index.core.schema import NodeWithScore, TextNode

    from icr_rag.integrations._llama_index_nodes import ranked_nodes
    from icr_rag.integrations._told import Told
    from icr_rag.types import Document, RankedDocument, Ranking, Usage

    nodes = [NodeWithScore(node=TextNode(text=text)) for text in ("a", "b", "b")]
    hits = tuple(RankedDocument(n, 0.0, Document("x")) for n in (0, 1))
    ranking = Ranking(
        hits, (0.0,) * 3, (0, -1, -1), Usage(unscored=(1, 2)), {2: 1}, degraded="late"
    )
    found = ranked_nodes(nodes, ranking, None, keep_retrieval_score=False, told=Told())
    assert [node.node.text for node in found] == ["a", "b"]
