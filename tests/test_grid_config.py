"""The file that describes a grid of evaluations: what it may say, and what its mistakes say."""

from __future__ import annotations

from pathlib import Path

import pytest

from icr_rag import RerankerConfig
from icr_rag.errors import ConfigError
from icr_rag.evaluation.grid_config import QuerySubset, load_grid, make_grid, systems


def grid(**changes):
    return make_grid({"data": ["tiny"], "depths": [3], "systems": {"keep": None}, **changes})


def test_lists_make_every_combination():
    given = grid(
        reranker={"max_document_tokens": 7},
        systems={
            "icr": {"layers": "all"},
            "pick": {
                "scoring": ["likelihood", "generation"],
                "set_size": [3, 5],
                "framework": "setwise",
            },
        },
    )
    found = systems(given)
    assert [system.name for system in found] == [
        "icr",
        "pick: scoring=likelihood, set_size=3",
        "pick: scoring=likelihood, set_size=5",
        "pick: scoring=generation, set_size=3",
        "pick: scoring=generation, set_size=5",
    ]
    assert found[3].config == RerankerConfig(
        scoring="generation", framework="setwise", set_size=3, max_document_tokens=7
    ).replace(near_duplicates=None)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("layers", [10, 13], [(10, 13)]),
        ("layers", ["all", "10-13", [1, 2]], ["all", (10, 13), (1, 2)]),
        ("heads", [[3, 1], [3, 2]], [((3, 1), (3, 2))]),
        ("heads", ["all", [[3, 1]]], ["all", ((3, 1),)]),
        ("double_query", [False, True], [False, True]),
        ("max_document_tokens", [None, 9], [None, 9]),
    ],
)
def test_a_list_that_is_itself_a_value_is_one(field, value, expected):
    found = systems(grid(systems={"a": {field: value}}))
    assert [getattr(system.config, field) for system in found] == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sytems": {}}, r"unknown key 'sytems'; did you mean 'systems'\?"),
        ({"data": [{"source": "x", "splitt": "dev"}]}, r"unknown key 'data\.0\.splitt'"),
        ({"data": []}, r"data="),
        ({"data": ["a/x", "b/x"]}, r"data: 'x' stands there twice"),
        (
            {"data": [{"source": "x", "queries": {"parity": "both"}}]},
            r"data\.0\.queries\.parity='both'",
        ),
        ({"depths": [0]}, r"depths=.*whole number from 1"),
        ({"orders": ["sorted"]}, r"orders.*'sorted'"),
        ({"orders": [1, 1]}, r"orders: 1 stands there twice"),
        ({"systems": {}}, r"nothing to evaluate"),
        ({"peers": ["keep"]}, r"'keep' stands there twice"),
        ({"baseline": "other"}, r"baseline='other' is none of the systems: keep"),
        ({"systems": {"a": {"on_error": "passthrough"}}}, r"on_error cannot be set in a grid"),
        ({"reranker": {"top_n": 3}}, r"top_n cannot be set in a grid"),
        ({"systems": {"a": {"layer": "all"}}}, r"systems\.a: unknown setting 'layer'"),
        (
            {"systems": {"a": {"scoring": ["attention", "luck"]}}},
            r"systems\.a: scoring=luck: scoring='luck'",
        ),
        ({"systems": {"a": {"scoring": []}}}, r"scoring: an empty list"),
        ({"significance": {"measure": "AP"}}, r"measure='AP' is not one of"),
    ],
)
def test_mistakes_name_the_key(changes, message):
    with pytest.raises(ConfigError, match=message):
        grid(**changes)


PAIRS = {"all": {"scoring": ["attention", "likelihood"], "framework": ["listwise", "pairwise"]}}


def test_settings_that_do_not_go_together_are_named():
    with pytest.raises(ConfigError) as caught:
        grid(
            systems={
                **PAIRS,
                "sort": {"scoring": "likelihood", "framework": "setwise", "sort": "all_pairs"},
            }
        )
    text = str(caught.value)
    assert "all: scoring=attention, framework=pairwise: scoring='attention' does not go" in text
    assert "sort: sort='all_pairs' does not go with framework='setwise'" in text
    assert "scoring=likelihood, framework=pairwise:" not in text
    assert "skip_invalid: true" in text
    # A misspelt value is a mistake, whatever is to be skipped.
    with pytest.raises(ConfigError, match="framework='lucky'"):
        grid(systems={"a": {"framework": "lucky"}}, skip_invalid=True)


def test_files_are_read(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(
        "data: [{source: x, queries: {parity: odd, limit: 5}}]\norders: [given, 3]\n"
        "systems: {icr: {layers: all}, plain: }\npeers: [bm25]\nbaseline: bm25\n"
    )
    given = load_grid(path)
    assert given.data[0].queries == QuerySubset(parity="odd", limit=5)
    assert given.orders == ("given", 3)
    assert [system.name for system in systems(given)] == ["icr", "plain"]
    path.write_text("data: x\n")
    with pytest.raises(ConfigError, match=r"grid\.yaml: data='x'"):
        load_grid(path)


def test_the_grids_of_the_benchmarks_are_valid():
    found = sorted((Path(__file__).parent.parent / "benchmarks").glob("*.yaml"))
    grids = [
        path for path in found if "data:\n" in path.read_text() or "data: [" in path.read_text()
    ]
    assert len(grids) >= 3
    for path in grids:
        if path.name != "reproduce.yaml":
            systems(load_grid(path))
