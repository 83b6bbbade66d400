"""What is composed of documents' fields under a deadline: off the event loop, once, and told."""

from __future__ import annotations

import asyncio
import threading

import pytest
from fake_time import fake_time
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker, fields
from icr_rag.calls import request
from icr_rag.errors import ClosedError, InputError

QUERY = "Which metal melts first?"
SHOPS = [{"name": "Tin", "year": 1901}, {"name": ""}, {"name": "Oak"}, {"name": "Lead"}]
READ = {"rank_fields": ("name", "year"), "rank_fields_format": "yaml"}
AMPLE = 1e9


def tiny(**settings):
    return Reranker.from_model(
        tiny_model("llama"), byte_tokenizer(), **{"layers": (1, 2), **settings}
    )


async def test_fields_are_composed_off_the_event_loop_and_in_nobodys_way(monkeypatch):
    ranker = tiny(**READ).warm_up()
    whole = ranker.rank(QUERY, SHOPS)
    plain, done, threads = request.check_given, threading.Event(), []

    def compose(documents, *arguments):
        threads.append(threading.current_thread())
        # A long list takes until the call with the short one has ended.
        assert len(documents) == 2 or done.wait(60)
        return plain(documents, *arguments)

    monkeypatch.setattr(request, "check_given", compose)
    long = asyncio.ensure_future(ranker.arank(QUERY, SHOPS, deadline_ms=AMPLE))
    await asyncio.sleep(0)
    short = await ranker.arank(QUERY, SHOPS[:2], deadline_ms=AMPLE)
    assert not long.done()
    done.set()
    assert short.degraded is None
    assert (await long).scores == pytest.approx(whole.scores, abs=1e-5)
    assert len(threads) == 2
    assert threading.current_thread() not in threads


async def test_mistakes_and_the_end_are_as_ever():
    ranker = tiny(**READ, on_error="passthrough").warm_up()
    with pytest.raises(InputError, match="document 1 has none of the fields"):
        await ranker.arank(QUERY, [SHOPS[0], {"colour": "red"}], deadline_ms=AMPLE)
    with pytest.raises(InputError, match="deadline_ms"):
        await ranker.arank(QUERY, SHOPS, deadline_ms=0)
    ranker.close()
    with pytest.raises(ClosedError, match="closed"):
        await ranker.arank(QUERY, SHOPS, deadline_ms=AMPLE)


def test_composing_that_took_the_time_is_told(monkeypatch):
    ranker = tiny(**READ).warm_up()
    plain = request.check_given
    with fake_time(ranker) as clock:

        def compose(*arguments):
            clock.now += 3.0
            return plain(*arguments)

        monkeypatch.setattr(request, "check_given", compose)
        found = ranker.rank(QUERY, SHOPS, deadline_ms=50)
        late = asyncio.run(ranker.arank(QUERY, SHOPS, deadline_ms=50))
    for ranking in (found, late):
        assert ranking.degraded == (
            "deadline of 50 ms: none of 3 documents was scored, all keep their given order; the "
            "answer is 2.95e+03 ms late; checking and composing the documents took 3000 ms"
        )
        assert [hit.index for hit in ranking] == [0, 2, 3, 1]


def test_llama_index_composes_once(monkeypatch):
    schema = pytest.importorskip("llama_index.core.schema")
    from icr_rag.integrations.llama_index import ICRRerank

    nodes = [
        schema.NodeWithScore(node=schema.TextNode(text="", metadata=own), score=score)
        for own, score in zip(SHOPS, (3.0, None, 2.0, 1.0), strict=True)
    ]
    plain, composed = fields._read, []

    def read(*arguments):
        composed.append(threading.current_thread())
        return plain(*arguments)

    adapter = ICRRerank(tiny(**READ, fusion="weighted"))
    adapter.reranker.warm_up()
    monkeypatch.setattr(fields, "_read", read)
    found = adapter.postprocess_nodes(nodes, query_str=QUERY)
    assert len(composed) == len(nodes)
    # The one without anything to read needs no score.
    assert found[-1].node.metadata == SHOPS[1]
    with_deadline = ICRRerank(adapter.reranker.with_config(deadline_ms=AMPLE))
    with_deadline.reranker.warm_up()
    composed.clear()
    again = asyncio.run(with_deadline.apostprocess_nodes(nodes, query_str=QUERY))
    assert len(composed) == len(nodes)
    assert threading.current_thread() not in composed
    assert [own.node.metadata for own in again] == [own.node.metadata for own in found]


@pytest.mark.parametrize("fusion", ["weighted", "prior", "rrf", "auto"])
def test_blank_documents_need_no_score(fusion):
    ranker = tiny(fusion=fusion, framework="pointwise")
    texts = ["Oaks carry acorns.", " ", "Tin melts at 232 degrees.", "Lead is soft."]
    wanted = ranker.rank(QUERY, texts, retrieval_scores=[0.1, 0.0, 0.3, 0.2])
    found = ranker.rank(QUERY, texts, retrieval_scores=[0.1, None, 0.3, 0.2])
    assert found.scores == wanted.scores
    if fusion == "weighted":
        with pytest.raises(InputError, match=r"retrieval_scores\[0\] is None"):
            ranker.rank(QUERY, texts, retrieval_scores=[None, 0.1, 0.3, 0.2])
        with pytest.raises(InputError, match=r"retrieval_scores\[1\] is 'high'"):
            ranker.rank(QUERY, texts, retrieval_scores=[0.1, "high", 0.3, 0.2])
