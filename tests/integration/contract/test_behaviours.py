"""Every behaviour can fail: a careful component has them all, and each fault costs one its own."""

from __future__ import annotations

import asyncio
import copy
import itertools
import threading

import pytest
from behaviours import BEHAVIOURS
from components import PLENTY, Component, Hit
from outcomes import FAILS, HOLDS, outcome, outcomes


class Engine:
    """Ranks by length, carefully, but for one fault."""

    def __init__(self, top_n, fault=None):
        self.top_n = top_n
        self.fault = fault
        self.broken = False
        self.calls = itertools.count(1)
        self.lock = threading.Lock()

    def __getstate__(self):
        if self.fault in ("pickles", "deepcopies"):
            raise TypeError("cannot be copied")
        return self.top_n, self.fault

    def __setstate__(self, state):
        self.__init__(*state)

    def rank(self, documents, query, log=lambda *_: None):
        fault = self.fault
        if fault != "events_paired":
            log("start")
        try:
            return self.checked(documents, query)
        except ValueError:
            if fault == "events_paired_on_error":
                log("start")
            raise
        finally:
            if fault != "events_paired":
                log("end")

    def checked(self, documents, query):
        fault = self.fault
        with self.lock:
            call = next(self.calls)
        if self.broken:
            raise ValueError("broken by an earlier error")
        if (query is None and fault != "query_none") or (
            query is not None and not query.strip() and fault != "query_blank"
        ):
            self.broken = fault == "usable_after_error"
            raise ValueError("the query is blank")
        for index, document in enumerate(documents):
            if not isinstance(document["text"], str) and fault != "failing_document":
                raise ValueError(f"document {index} has no text")
        return self.ranked(documents, call)

    def ranked(self, documents, call):
        fault = self.fault
        if fault == "empty_list":
            documents[0]
        if fault == "one_document" and len(documents) == 1:
            return []
        if fault == "blank_text":
            documents = [document for document in documents if document["text"].strip()]
        if fault == "duplicate_ids":
            documents = list({document["id"]: document for document in documents}.values())
        if fault == "threads" and call > 1:
            documents = documents[1:]
        hits = [dict(document, score=float(len(document["text"]))) for document in documents]
        if fault == "scores_are_floats":
            hits = [dict(hit, score=int(hit["score"])) for hit in hits]
        if fault == "ties":
            hits.reverse()
        hits.sort(key=lambda hit: hit["score"], reverse=fault != "scores_non_increasing")
        if fault == "ids_kept" and len(hits) > 2:
            hits[0]["id"], hits[1]["id"] = hits[1]["id"], hits[0]["id"]
        if fault == "metadata_kept":
            hits = [dict(hit, metadata={}) for hit in hits]
        if fault == "no_mutation":
            documents[0]["metadata"]["seen"] = True
        if fault == "json_round_trip":
            hits = [dict(hit, metadata=dict(hit["metadata"], more={1, 2})) for hit in hits]
        return self.cut(hits)

    def cut(self, hits):
        fault, top_n = self.fault, self.top_n
        if fault == "top_n_zero" and top_n == 0:
            return hits
        if fault == "top_n_none" and top_n is None:
            raise TypeError("'>' not supported")
        if fault == "top_n_larger" and top_n is not None and PLENTY > top_n > len(hits):
            raise IndexError("list index out of range")
        if fault == "top_n_cuts" and top_n == 2:
            return hits[1:3]
        return hits[:top_n]


class Plain(Component):
    """The engine under the contract."""

    title = "plain"

    def __init__(self, fault=None):
        self.fault = fault

    class folders:
        root = "/nowhere"

    def make(self, top_n=PLENTY):
        return Engine(top_n, self.fault)

    def documents(self, items):
        return [
            {"id": item.id, "text": item.text, "metadata": dict(item.metadata)} for item in items
        ]

    def run(self, subject, documents, query, log=lambda *_: None):
        return subject.rank(documents, query, log)

    async def arun(self, subject, documents, query, log=lambda *_: None):
        if self.fault == "async_equals_sync":
            documents = documents[:1]
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            subject.broken = self.fault == "cancellation"
            raise
        return subject.rank(documents, query, log)

    def read(self, result, items):
        return [Hit(hit["id"], hit["text"], hit["score"], hit["metadata"]) for hit in result]

    def plain(self, result):
        return result

    def restore(self, plain):
        return plain[1:] if self.fault == "msgpack_round_trip" else plain

    def reconfigured(self, subject):
        return Engine(0 if self.fault == "settings_round_trip" else subject.top_n)

    def events(self, subject, call):
        seen = []
        call(subject, {"log": seen.append})
        return [e for e in seen if e == "start"], ["start" for e in seen if e == "end"]


def test_a_careful_component_has_them_all():
    # What langgraph writes checkpoints with.
    pytest.importorskip("ormsgpack")
    results = outcomes(Plain())
    assert {name for name, result in results.items() if result.status == HOLDS} == set(BEHAVIOURS)


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_a_fault_costs_its_own_behaviour(name):
    result = outcome(BEHAVIOURS[name], Plain(fault=name))
    assert result.status == FAILS
    assert result.detail


def test_the_components_own_exceptions_are_outcomes():
    result = outcome(BEHAVIOURS["empty_list"], Plain(fault="empty_list"))
    assert result.detail == "IndexError: list index out of range"


def test_trying_changes_nothing_of_the_items():
    from behaviours import ITEMS

    before = copy.deepcopy(ITEMS)
    outcomes(Plain(fault="no_mutation"))
    assert before == ITEMS
