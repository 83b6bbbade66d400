"""Nodes, recorders and a retriever that the LlamaIndex tests share."""

from __future__ import annotations

from contextlib import contextmanager

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.schema import NodeWithScore, TextNode

TEXTS = ["Tin melts at 232 degrees.", "Lead is soft.", "Copper conducts heat well.", "Zinc."]
QUERY = "Which metal melts first?"
PAIR = ["ReRankStartEvent", "ReRankEndEvent"]


def make_nodes(texts=TEXTS):
    return [
        NodeWithScore(node=TextNode(text=text, id_=f"n{i}", metadata={"i": i}), score=1.0 - i / 10)
        for i, text in enumerate(texts)
    ]


def snapshot(nodes):
    return [(node.score, node.node.to_dict()) for node in nodes]


def results(nodes):
    return [(node.node.node_id, node.score) for node in nodes]


class FixedRetriever(BaseRetriever):
    """Always retrieves the same nodes, and remembers what it was asked."""

    def __init__(self, nodes):
        super().__init__()
        self.nodes = nodes
        self.asked = []

    def _retrieve(self, query_bundle):
        self.asked.append(query_bundle.query_str)
        return self.nodes


class Recorder(BaseEventHandler):
    """Remembers the re-ranking events that it sees."""

    seen: list = []  # pydantic gives each recorder a copy

    def handle(self, event, **kwargs):
        if "ReRank" in event.class_name():
            self.seen.append(event)


@contextmanager
def recorded_events():
    """The re-ranking events sent meanwhile."""
    recorder = Recorder()
    dispatcher = get_dispatcher()
    dispatcher.add_event_handler(recorder)
    try:
        yield recorder.seen
    finally:
        dispatcher.event_handlers.remove(recorder)


def names(events):
    return [event.class_name() for event in events]


class Spans(SimpleSpanHandler):
    """Remembers spans as {id: parent's id}, and how they ended as {id: "exit" or "drop"}."""

    parents: dict = {}
    ends: dict = {}

    def new_span(self, id_, *args, parent_span_id=None, **kwargs):
        self.parents[id_] = parent_span_id
        return super().new_span(id_, *args, parent_span_id=parent_span_id, **kwargs)

    def prepare_to_exit_span(self, id_, *args, **kwargs):
        self.ends[id_] = "exit"
        return super().prepare_to_exit_span(id_, *args, **kwargs)

    def prepare_to_drop_span(self, id_, *args, **kwargs):
        self.ends[id_] = "drop"
        return super().prepare_to_drop_span(id_, *args, **kwargs)

    def ours(self):
        """The ids of the adapter's own spans."""
        return [id_ for id_ in self.parents if "postprocess_nodes" in id_]

    def line(self, id_):
        """The names of a span and of those around it, outwards."""
        found = []
        while id_ is not None:
            found.append(id_.split("-")[0])
            id_ = self.parents.get(id_)
        return found


@contextmanager
def recorded_spans():
    handler = Spans()
    dispatcher = get_dispatcher()
    dispatcher.add_span_handler(handler)
    try:
        yield handler
    finally:
        dispatcher.span_handlers.remove(handler)
