"""What a deadline stops, or lets be whole or not begun: splitting, and a second reading."""

from __future__ import annotations

import threading

import pytest
from fake_time import fake_time
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker
from icr_rag.calls import passages
from icr_rag.prompts.passages import Splitter

QUERY = "Which metal melts first?"
AMPLE = 1e9


def tiny(**fields):
    return Reranker.from_model(
        tiny_model("llama"), byte_tokenizer(), **{"layers": (1, 2), **fields}
    )


# --- passages -------------------------------------------------------------------------------------

#: Of 100 characters each.
LONG = [f"{metal} melts at some degrees. {'Oaks carry acorns. ' * 4}"[:99] + "."
        for metal in ("Tin", "Lead", "Gold", "Zinc", "Iron")]  # fmt: skip


@pytest.fixture
def split(monkeypatch):
    """What was split, by a clock (once it is set) on which a character takes a millisecond."""
    pytest.importorskip("sentencex")
    plain = Splitter._split

    class Done(list):
        clock = None

    done = Done()

    def own(self, text, most, name):
        done.append(text.text[:4].strip())
        if done.clock is not None:
            done.clock.now += 0.001 * len(text.text)
        return plain(self, text, most, name)

    monkeypatch.setattr(Splitter, "_split", own)
    return done


def splitting(**fields):
    """A reranker that is loaded, and has measured nothing."""
    ranker = tiny(**{"framework": "pointwise", "passages": "max", "passage_tokens": 40, **fields})
    assert ranker.scorer
    return ranker


def test_splitting_stops_between_two_documents_and_goes_on_in_the_next_call(split):
    ranker = splitting()
    whole = splitting().rank(QUERY, LONG)
    split.clear()
    with fake_time(ranker, rate=0.0) as split.clock:
        for wanted in (["Tin", "Lead"], ["Gold", "Zinc"]):
            # Two of them, and no time for a third one.
            found = ranker.rank(QUERY, LONG, deadline_ms=270)
            assert split == wanted
            assert [hit.index for hit in found] == [0, 1, 2, 3, 4]
            assert found.usage.unscored == (0, 1, 2, 3, 4)
            assert found.usage.seconds["total"] == pytest.approx(0.2)
            assert found.degraded == (
                "deadline of 270 ms: none of 5 documents was scored, all keep their given order"
            )
            split.clear()
        found = ranker.rank(QUERY, LONG, deadline_ms=270)
    assert split == ["Iron"]
    assert found.degraded is None
    assert found.scores == pytest.approx(whole.scores, abs=1e-5)


def test_what_splitting_costs_is_learned_from_new_documents_alone(split):
    ranker = splitting()
    with fake_time(ranker, rate=0.0) as split.clock:
        ranker.rank(QUERY, LONG[:4])
        split.clear()
        for _ in range(20):
            # These are remembered, and take no time.
            assert ranker.rank(QUERY, LONG[:4], deadline_ms=50).degraded is None
        assert split == []
        late = ranker.rank(QUERY, LONG, deadline_ms=50)
        assert split == []
        assert late.usage.seconds["total"] == 0
        assert ranker.rank(QUERY, LONG, deadline_ms=150).degraded is None
    assert split == ["Iron"]


def test_queries_over_one_list_split_it_until_their_deadline(split):
    fields = {"framework": "listwise", "document_states": "independent", "states_memory": 17}
    ranker = splitting(**fields)
    others = [f"{text[:-1]}!" for text in LONG]
    with fake_time(ranker, rate=0.0) as split.clock:
        ranker.rank(QUERY, LONG[:3])
        split.clear()
        found = ranker.rank_many([QUERY, "What is soft?"], [others] * 2, deadline_ms=270)
    # The time that the shared pass took is that of all.
    assert split == ["Tin", "Lead"]
    assert [ranking.usage.unscored for ranking in found] == [(0, 1, 2, 3, 4)] * 2


def test_nobody_waits_for_a_whole_list_to_be_split(split, monkeypatch):
    ranker = splitting()
    lock, free = ranker.engine.lock, []

    def take():
        free.append(lock.acquire(blocking=False))
        if free[-1]:
            lock.release()

    plain = passages.passage

    def passage(*arguments):
        # Between two documents, for each passage of the first one.
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
        return plain(*arguments)

    monkeypatch.setattr(passages, "passage", passage)
    ranker.rank(QUERY, LONG)
    assert free
    assert all(free)


# --- a second reading -----------------------------------------------------------------------------

DOCUMENTS = [
    "Oaks carry acorns in autumn.",
    "Tin melts at 232 degrees, long before copper.",
    "Lead is soft.",
    "Copper conducts heat well, which is why wires and pots are made of it.",
    "The shop opens at nine.",
]
KEPT = {"document_states": "independent"}


@pytest.mark.parametrize("fields", [
    {**KEPT, "framework": "listwise", "states_memory": 51},
    {**KEPT, "framework": "listwise", "states_memory": 52, "cascade_framework": "pointwise"},
    {**KEPT, "framework": "pointwise", "states_memory": 53},
    {**KEPT, "framework": "pointwise", "states_memory": 54, "cascade_framework": "pointwise"},
    {**KEPT, "framework": "listwise", "states_memory": 55, "token_budget": 200},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("share", [0.4, 0.6, 0.8])
def test_a_second_reading_is_whole_or_not_begun(fields, share):
    first = {name: value for name, value in fields.items() if name != "cascade_framework"}
    plain, ranker = tiny(**first), tiny(**fields, cascade=4)
    for own in (plain, ranker):
        own.encode(DOCUMENTS)
    with fake_time(ranker) as clock, fake_time(plain):
        # Where a window is full, states are encoded on the way in a first call.
        once = [plain.rank(QUERY, DOCUMENTS, deadline_ms=AMPLE) for _ in range(2)][1]
        # What it costs is learned without a deadline too.
        for _ in range(3):
            twice = ranker.rank(QUERY, DOCUMENTS)
        needed = once.usage.tokens + share * (twice.usage.tokens - once.usage.tokens)
        before = clock.now
        found = ranker.rank(QUERY, DOCUMENTS, deadline_ms=needed / 0.95)
        took = clock.now - before
        assert found.degraded.endswith("the best 4 were not read again")
        assert found.scores == pytest.approx(once.scores, abs=1e-5)
        # Nothing was read that was thrown away.
        assert found.usage.tokens == once.usage.tokens
        assert took == pytest.approx(0.001 * once.usage.tokens)
        again = ranker.rank(QUERY, DOCUMENTS, deadline_ms=AMPLE)
    assert again.degraded is None
    assert again.scores == pytest.approx(twice.scores, abs=1e-5)
