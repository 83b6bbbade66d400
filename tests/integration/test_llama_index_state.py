"""The LlamaIndex adapter's settings: refused when wrong, and the same after a journey."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore
from llama_index_parts import QUERY, make_nodes, results, snapshot
from pydantic import ValidationError

from icr_rag import RerankerConfig
from icr_rag.errors import ConfigError, InputError
from icr_rag.integrations.compat.llama_index import SentenceTransformerRerank
from icr_rag.integrations.llama_index import ICRRerank


def shout(query):
    return query.upper()


def json_types_only(value):
    if isinstance(value, dict):
        return all(type(key) is str and json_types_only(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(json_types_only, value))
    return value is None or type(value) in (str, int, float, bool)


# --- wrong settings ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"top_n": -1}, "top_n=-1.*greater than or equal to 0"),
        ({"top_n": "many"}, "top_n='many'"),
        ({"metadata_mode": "some"}, "metadata_mode='some'.*'embed'"),
        ({"keep_retrieval_score": "perhaps"}, "keep_retrieval_score='perhaps'"),
        ({"top_k": 3}, "unknown setting 'top_k'"),
    ],
)
def test_wrong_settings_are_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        ICRRerank(**fields)


def test_what_is_assigned_later_is_checked_too():
    adapter = ICRRerank(top_n=2)
    adapter.top_n = None
    adapter.callback_manager = CallbackManager()
    assert adapter.top_n is None
    with pytest.raises(ValidationError, match="top_n"):
        adapter.top_n = -1
    # The engine has been chosen; another configuration would be ignored.
    with pytest.raises(ValidationError, match="config"):
        adapter.config = RerankerConfig(layers="all")
    assert adapter.top_n is None


def test_every_field_is_described():
    own = {**ICRRerank.model_fields}
    del own["callback_manager"]
    assert sorted(own) == [
        "config", "keep_retrieval_score", "metadata_mode", "report_answerable", "report_passage",
        "report_truncation", "top_n"
    ]  # fmt: skip
    assert all(field.description for field in own.values())


# --- as JSON -------------------------------------------------------------------------------------


@given(
    top_n=st.none() | st.integers(0, 50),
    mode=st.sampled_from(MetadataMode),
    keep=st.booleans(),
    report=st.booleans(),
    layers=st.sampled_from(["auto", "all", (3, 5)]),
    threshold=st.none() | st.floats(-5, 5),
)
def test_every_setting_survives_json(top_n, mode, keep, report, layers, threshold):
    adapter = ICRRerank(
        top_n=top_n, metadata_mode=mode, keep_retrieval_score=keep,
        report_truncation=report, layers=layers,
        heads=((3, 0), (4, 1)) if layers == (3, 5) else None, score_threshold=threshold,
    )  # fmt: skip
    values = adapter.to_dict()
    assert json_types_only(values)
    twin = ICRRerank.from_dict(json.loads(json.dumps(values)))
    assert twin.to_dict() == values
    assert twin.config == twin.reranker.config == adapter.config


def test_an_engine_on_foreign_weights_keeps_its_settings_in_json(tiny_reranker):
    twin = ICRRerank.from_json(ICRRerank(tiny_reranker, top_n=3).to_json())
    assert (twin.config, twin.top_n) == (tiny_reranker.config, 3)


# --- pickles and copies --------------------------------------------------------------------------


@pytest.mark.parametrize("transform", [None, shout])
@pytest.mark.parametrize("make", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_copy_reads_queries_in_the_same_way(transform, make, model_folder):
    adapter = ICRRerank(model=model_folder, layers=(1, 2), query_transform=transform, top_n=3)
    twin = make(adapter)
    twin = pickle.loads(twin) if isinstance(twin, bytes) else twin
    query = "\ninput is which metal melts?\n"
    given_ = make_nodes()
    expected = results(adapter.postprocess_nodes(given_, query_str=query))
    assert results(twin.postprocess_nodes(given_, query_str=query)) == expected
    plain = ICRRerank(model=model_folder, layers=(1, 2), top_n=3)
    assert results(plain.postprocess_nodes(given_, query_str=query)) != expected


def test_pickling_leaves_the_living_object_alone(caplog, own_records):
    handler = LlamaDebugHandler(print_trace_on_end=False)
    handler.lock = threading.Lock()
    adapter = ICRRerank(callback_manager=CallbackManager([handler]))
    with caplog.at_level(logging.WARNING):
        twin = pickle.loads(pickle.dumps(adapter))
    assert adapter.callback_manager.handlers == [handler]
    assert twin.callback_manager.handlers == []
    assert not own_records()


def test_what_cannot_be_pickled_is_an_error_and_not_left_out(tiny_reranker):
    with pytest.raises(InputError, match="from_model cannot be pickled"):
        pickle.dumps(ICRRerank(tiny_reranker))
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(ICRRerank(query_transform=lambda query: query))


def test_a_pickle_of_a_replacement_is_one():
    twin = pickle.loads(pickle.dumps(SentenceTransformerRerank(model="no/such", top_n=7)))
    assert type(twin) is SentenceTransformerRerank
    assert (twin.top_n, twin.config.model) == (7, "no/such")


def test_making_and_copying_load_nothing():
    adapter = ICRRerank(model="no/such-model")
    for twin in (adapter, copy.deepcopy(adapter), pickle.loads(pickle.dumps(adapter))):
        assert twin.reranker._scorers.made is None


# --- nodes without text --------------------------------------------------------------------------


@given(
    kinds=st.lists(st.sampled_from(["text", "image", "blank", "scoreless"]), max_size=8),
    top_n=st.none() | st.integers(0, 9),
)
def test_nodes_without_text_follow_in_input_order(tiny_reranker, kinds, top_n):
    nodes = make_nodes([f"Metal number {i}." for i in range(len(kinds))])
    for place, kind in enumerate(kinds):
        if kind == "image":
            image = ImageNode(image="aGk=", id_=f"n{place}", metadata={"i": place})
            nodes[place] = NodeWithScore(node=image, score=5.0)
        elif kind == "blank":
            nodes[place].node.set_content(" ")
        elif kind == "scoreless":
            nodes[place].score = None
    before = snapshot(nodes)
    found = ICRRerank(tiny_reranker, top_n=top_n).postprocess_nodes(nodes, query_str=QUERY)
    ids = [node.node.node_id for node in found]
    read = [f"n{i}" for i, kind in enumerate(kinds) if kind in ("text", "scoreless")]
    unread = [f"n{i}" for i, kind in enumerate(kinds) if kind in ("image", "blank")]
    kept = len(kinds) if top_n is None else top_n
    assert set(ids[: len(read)]) <= set(read)
    assert ids[len(read) :] == unread[: max(0, kept - len(read))]
    assert snapshot(nodes) == before
