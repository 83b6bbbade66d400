"""What is composed of the fields of a document."""

from __future__ import annotations

import copy
import datetime
import decimal
import enum
import uuid

import numpy
import pytest
import yaml
from fields_parts import LINES, NAMES, SHOPS, content
from hypothesis import given, settings
from hypothesis import strategies as st

from icr_rag import Document
from icr_rag.errors import InputError
from icr_rag.fields import check_given


def test_lines():
    assert [content(shop, NAMES) for shop in SHOPS] == LINES
    assert content(SHOPS[1], ("rating", "name")) == "rating: 4.5\nname: Bread & Co"
    # The title stands as it always has.
    assert content(SHOPS[1], ("title", "rating")) == "A bakery\nrating: 4.5"


def test_yaml():
    for shop in SHOPS[:2]:
        wanted = {name: shop[name] for name in NAMES if name in shop}
        found = content(shop, NAMES, "yaml")
        assert found == yaml.safe_dump(wanted, sort_keys=False).rstrip("\n")
        assert yaml.safe_load(found) == wanted
    long = {"text": "word " * 60 + "end", "title": "Tür: 'n\"\nzwei"}
    found = content(long, ("title", "text"), "yaml")
    assert "Tür" in found
    assert yaml.safe_load(found) == {"title": long["title"], "text": long["text"]}
    shared = ["a"]
    assert "&" not in content({"a": shared, "b": shared}, ("a", "b"), "yaml")


@pytest.mark.parametrize("document", [
    {"text": "Body.", "title": "Head", "id": "x", "metadata": {"year": 1999, "text": "not this"}},
    Document("Body.", "Head", "x", {"year": 1999, "text": "not this"}),
])  # fmt: skip
def test_documents_have_their_own_before_their_metadata(document):
    given_, read = check_given([document], ("year", "id", "title", "text"), "lines")
    assert read[0] == Document("Body.", "year: 1999\nid: x\nHead")
    assert given_[0].metadata == {"year": 1999, "text": "not this"}
    assert content(document, ("text", "year")) == "Body.\nyear: 1999"
    assert content(document, ("text",)) == "Body."
    assert content(Document("a", metadata={"title": "T"}), ("title", "text")) == "T\na"


@given(st.text(max_size=20), st.none() | st.text(max_size=9))
def test_title_and_text_are_what_is_read_without_the_setting(text, title):
    document = Document(text, title)
    read = check_given([document], ("title", "text"), "lines").read[0]
    if title is None or title.strip():
        assert read.content == document.content
    assert read.text == text


class Colour(str, enum.Enum):
    RED = "red"


VALUES = [
    ("é", "é"), (Colour.RED, "red"), (True, "true"), (False, "false"), (0, "0"),
    (10**30, "1" + "0" * 30), (0.1, "0.1"), (numpy.float32(0.5), "0.5"), (numpy.int64(3), "3"),
    (numpy.bool_(True), "true"),
    (numpy.array([1, 2]), "1, 2"), (decimal.Decimal("1.50"), "1.50"),
    (datetime.datetime(2020, 1, 2, 3, 4), "2020-01-02T03:04:00"), (datetime.time(3, 4), "03:04:00"),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (("a", None, 2), "a, 2"), ([["a"], {"b": None, "c": float("nan"), 1: [True]}],
                               '[["a"], {"1": [true]}]'),
]  # fmt: skip


@pytest.mark.parametrize(("value", "written"), VALUES, ids=str)
def test_values_are_written_the_same_everywhere(value, written):
    assert content({"field": value}, ("field",)) == f"field: {written}"
    assert "field:" in content({"field": value}, ("field",), "yaml")


class Thing:
    def __repr__(self):
        return "a thing"


NESTED = []
NESTED.append(NESTED)


@pytest.mark.parametrize(
    "value",
    [Thing(), b"a", {1, 2}, 1j, [Thing()], {"a": Thing()}, {(1, 2): 3}, NESTED,
     datetime.timedelta(1)],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("layout", ["lines", "yaml"])
def test_what_cannot_be_written_is_named(value, layout):
    with pytest.raises(InputError, match=r"document 1 .*field 'what'.*(a [\w.]+|nested)"):
        check_given([{"what": 1}, {"what": value}], ("what",), layout)


def test_what_lacks_is_left_out_and_a_document_without_any_is_named():
    nothing = {"name": None, "rating": float("nan"), "tags": [], "address": {}, "open": ""}
    for layout in ("lines", "yaml"):
        assert content(nothing, NAMES, layout) == ""
        with pytest.raises(InputError, match=r"document 1 has none of the fields.*name.*colour"):
            check_given([SHOPS[0], {"colour": "red"}], NAMES, layout)
    with pytest.raises(InputError, match="document 0 has none of the fields"):
        check_given(["only a text"], NAMES, "lines")
    with pytest.raises(InputError, match="metadata of type list"):
        check_given([{"text": "a", "metadata": [1]}], ("year",), "lines")
    for wrong in ("a string", 5, None):
        with pytest.raises(InputError, match="documents is a"):
            check_given(wrong, NAMES, "lines")
    with pytest.raises(InputError, match="document 0 has a text of type int"):
        check_given([{"text": 5, "name": "a"}], ("name",), "lines")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from("abc"), JSON, min_size=1), st.permutations("abc"))
def test_whatever_json_holds_is_written_and_nothing_is_changed(document, names):
    before = copy.deepcopy(document)
    for layout in ("lines", "yaml"):
        first = check_given([document], tuple(names), layout)
        assert first == check_given([copy.deepcopy(document)], tuple(names), layout)
        assert first.documents[0].metadata is document
    found = yaml.safe_load(first.read[0].content)
    assert found is None or list(found) == [name for name in names if name in found]
    assert document == before or document != document
