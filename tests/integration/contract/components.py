"""What a re-ranking component is to the contract, and the list of those that are held to it.

One small adapter object per component builds it, gives it documents and a query, and reads back
ids, texts, scores and metadata. The adapters are in the modules ``on_*``, imported when needed.
"""

from __future__ import annotations

import copy
import importlib
import importlib.metadata
import importlib.util
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tiny_folders import Folders

#: More than any list here has: what "all documents" is to a component that must be told a number.
PLENTY = 50


class NotDefinedError(Exception):
    """The component's framework does not define a behaviour; the message says why."""


@dataclass(frozen=True)
class Item:
    """A document to rank, before it takes the form that a framework wants."""

    id: str
    text: Any
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Hit:
    """A document as a component returned it. ``score`` is None where there are no scores."""

    id: str
    text: str
    score: Any
    metadata: Mapping[str, Any]


class Component:
    """One re-ranking component. Subclasses say how it is made, called and read."""

    #: Column head, and the distributions whose versions decide how it behaves.
    title = ""
    distributions: tuple[str, ...] = ()
    has_scores = True
    #: What the framework calls the event that says that re-ranking has begun.
    start_event = "start event"
    #: Behaviours that this framework does not define, with the reason.
    not_defined: Mapping[str, str] = {}

    def __init__(self, folders: Folders) -> None:
        self.folders = folders

    def make(self, top_n: int | None = PLENTY) -> Any:
        """The component itself, or what is needed to call it."""
        raise NotImplementedError

    def documents(self, items: Sequence[Item]) -> list[Any]:
        """The items in the form that the framework uses."""
        raise NotImplementedError

    def run(self, subject: Any, documents: list[Any], query: Any) -> Any:
        """The framework's own synchronous call."""
        raise NotImplementedError

    async def arun(self, subject: Any, documents: list[Any], query: Any, **_: Any) -> Any:
        """The framework's own asynchronous call."""
        raise NotDefinedError("has no asynchronous call")

    def read(self, result: Any, items: Sequence[Item]) -> list[Hit]:
        """What came back, in order."""
        raise NotImplementedError

    def snapshot(self, documents: list[Any]) -> Any:
        """A copy of the documents that ``==`` compares by value, all the way down."""
        return copy.deepcopy(documents)

    def plain(self, result: Any) -> Any:
        """The result in the framework's own serialised form."""
        raise NotDefinedError("has no serialised form of a result")

    def restore(self, plain: Any) -> Any:
        """The result again from `plain`."""
        raise NotImplementedError

    def through_msgpack(self, result: Any) -> Any:
        """The result after msgpack and back."""
        import ormsgpack

        return self.restore(ormsgpack.unpackb(ormsgpack.packb(self.plain(result))))

    def through_json(self, result: Any) -> Any:
        """The result after JSON and back."""
        return self.restore(json.loads(json.dumps(self.plain(result))))

    def reconfigured(self, subject: Any) -> Any:
        """The component again, from its serialised settings, through JSON."""
        raise NotDefinedError("has no serialised form of the component")

    def events(
        self, subject: Any, call: Callable[[Any, dict[str, Any]], None]
    ) -> tuple[list[str], list[str]]:
        """Start and end events, each as a name or id, that were sent during ``call``."""
        raise NotDefinedError("has no events of its own")

    def versions(self) -> str:
        """What was run, for the column head."""
        return ", ".join(
            f"{name} {importlib.metadata.version(name)}" for name in self.distributions
        )


@dataclass(frozen=True)
class Entry:
    """Where a component's adapter is and what must be installed for it."""

    key: str
    place: str
    requires: tuple[str, ...]
    ours: bool

    def installed(self) -> bool:
        """Whether all it needs can be imported."""
        return all(_found(module) for module in self.requires)

    def load(self, folders: Folders) -> Component:
        """The adapter object."""
        module, name = self.place.split(":")
        with warnings.catch_warnings():
            # What other libraries deprecate when they are imported is not looked at here.
            warnings.simplefilter("ignore")
            component: Component = getattr(importlib.import_module(module), name)(folders)
        return component


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        # A parent package is missing.
        return False


_RANKERS = "haystack_integrations.components.rankers.sentence_transformers"

OURS: tuple[Entry, ...] = (
    Entry("icr_llama_index", "on_llama_index:ICRRerank", ("llama_index.core", "ormsgpack"), True),
    Entry("icr_langchain", "on_langchain:ICRRerank", ("langchain_core", "langgraph"), True),
    Entry(
        "icr_langchain_cross_encoder",
        "on_langchain_peers:ICRCrossEncoder",
        ("langchain_classic", "langchain_core.cross_encoders", "langgraph"),
        True,
    ),
    Entry("icr_haystack", "on_haystack:ICRRanker", ("haystack", "ormsgpack"), True),
    Entry("icr_rerankers", "on_others:ICRRerankers", ("rerankers",), True),
    Entry("icr_sentence_transformers", "on_others:ICRCrossEncoder", ("ormsgpack",), True),
    Entry("icr_pyterrier", "on_pyterrier:ICRRanker", ("pyterrier", "ormsgpack"), True),
)
PEERS: tuple[Entry, ...] = (
    Entry(
        "llama_index_sentence_transformer",
        "on_llama_index:SentenceTransformerRerank",
        ("llama_index.core", "sentence_transformers"),
        False,
    ),
    Entry("llama_index_llm", "on_llama_index:LLMRerank", ("llama_index.core",), False),
    Entry(
        "langchain_cross_encoder",
        "on_langchain_peers:CrossEncoderReranker",
        ("langchain_classic", "sentence_transformers"),
        False,
    ),
    Entry(
        "langchain_listwise", "on_langchain_peers:LLMListwiseRerank", ("langchain_classic",), False
    ),
    Entry("haystack_similarity", "on_haystack:SimilarityRanker", ("haystack", _RANKERS), False),
    Entry("haystack_llm", "on_haystack:LLMRanker", ("haystack",), False),
    Entry("rerankers_transformer", "on_others:TransformerRanker", ("rerankers",), False),
    Entry("sentence_transformers", "on_others:CrossEncoderRank", ("sentence_transformers",), False),
)
