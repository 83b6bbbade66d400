"""Numbers as other libraries hold them: taken where they are numbers, refused by name else."""

from __future__ import annotations

import array
import math
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker
from icr_rag.arguments import check_retrieval_scores, check_top_n
from icr_rag.errors import InputError

#: Ways to hold numbers that single precision has.
HOLDERS = {
    "list": list,
    "tuple": tuple,
    "array.array": lambda values: array.array("d", values),
    "numpy": np.array,
    "numpy, single": lambda values: np.array(values, dtype=np.float32),
    "numpy, every second": lambda values: np.array([v for v in values for _ in "ab"])[::2],
    "numpy scalars": lambda values: [np.float32(value) for value in values],
    "numpy, of no dimension": lambda values: [np.array(value) for value in values],
    "numpy objects": lambda values: np.array(values, dtype=object),
    "torch": torch.tensor,
    "torch, with gradients": lambda values: torch.tensor(values, requires_grad=True),
    "torch scalars": lambda values: [torch.tensor(value) for value in values],
    "torch elements": lambda values: list(torch.tensor(values)),
    "pandas": lambda values: pandas.Series(values, index=range(len(values))[::-1]),
}
NUMBERS = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=6)


@given(NUMBERS, st.sampled_from(sorted(HOLDERS)))
def test_numbers_are_taken_however_they_are_held(values, holder):
    taken = check_retrieval_scores(HOLDERS[holder](values), len(values))
    assert taken == values
    assert {type(value) for value in taken} == {float}


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=6))
def test_whole_numbers_are_numbers(values):
    for holder in (list, np.array, torch.tensor, pandas.Series):
        assert check_retrieval_scores(holder(values), len(values)) == values
    assert check_retrieval_scores([Fraction(value, 2) for value in values], len(values)) == [
        value / 2 for value in values
    ]


@pytest.mark.parametrize("holder", sorted(HOLDERS))
def test_another_length_is_told(holder):
    scores = HOLDERS[holder]([1.0, 2.0])
    with pytest.raises(InputError, match=r"has length 2; .* per document \(3\)"):
        check_retrieval_scores(scores, 3)


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    "value",
    [
        NAN, INFINITE, None, True, "1.0", b"1", 1j, [1.0], (), {}, 10**400, Decimal("NaN"),
        np.float32(NAN), np.float64(-INFINITE), np.bool_(True), np.array([1.0]), np.complex64(1),
        np.str_("1"), torch.tensor(NAN), torch.tensor(True), torch.tensor([1.0]), pandas.NA,
    ],
    ids=lambda value: f"{type(value).__name__} {value!r}"[:40],
)  # fmt: skip
def test_what_is_no_finite_number_is_named_with_its_position(value):
    with pytest.raises(InputError, match=r"^retrieval_scores\[1\] is "):
        check_retrieval_scores([1.0, value, 2.0], 3)


@pytest.mark.parametrize(
    "scores",
    [
        np.array([True, False]), np.array([1.0, NAN]), np.array(["1", "2"]), np.zeros((2, 1)),
        torch.tensor([True, False]), torch.tensor([1.0, INFINITE]), torch.zeros(2, 1),
        pandas.Series([1.0, None]), pandas.Series([True, True]),
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'dtype', '')} {value.shape}",
)  # fmt: skip
def test_arrays_of_something_else_are_refused(scores):
    with pytest.raises(InputError, match=r"^retrieval_scores\[[01]\] is "):
        check_retrieval_scores(scores, 2)


@pytest.mark.parametrize(
    ("scores", "kind"),
    [
        (0.5, "float"), ("ab", "str"), (b"ab", "bytes"), ({0: 1.0, 1: 2.0}, "dict"),
        ({1.0, 2.0}, "set"), ((value for value in (1.0, 2.0)), "generator"),
        (np.array(0.5), "ndarray of no dimension"), (torch.tensor(0.5), "Tensor of no dimension"),
        (pandas.DataFrame({"score": [1.0, 2.0]}), "DataFrame"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_numbers_is_named(scores, kind):
    with pytest.raises(InputError, match=rf"^retrieval_scores is a {kind}; give a list, "):
        check_retrieval_scores(scores, 2)


def test_no_scores_are_none():
    assert check_retrieval_scores(None, 3) is None
    for nothing in ([], np.array([]), torch.tensor([])):
        assert check_retrieval_scores(nothing, 0) == []


@given(st.integers(0, 1000))
def test_a_count_is_taken_however_it_is_held(count):
    kinds = (int, np.int64, np.int32, np.uint16, np.array, torch.tensor)
    for kind in kinds:
        taken = check_top_n(kind(count), 7)
        assert taken == count
        assert type(taken) is int
    assert check_top_n(None, count) == count


@pytest.mark.parametrize(
    "count",
    [
        True, -1, 3.0, "3", [3], NAN, np.bool_(True), np.int64(-1), np.float64(3), np.array([3]),
        torch.tensor(True), torch.tensor(3.0), torch.tensor(-1),
    ],
    ids=repr,
)  # fmt: skip
def test_other_counts_are_refused(count):
    with pytest.raises(InputError, match=r"^top_k=.*; allowed are None \(all\) and whole numbers"):
        check_top_n(count, None, "top_k")


def test_a_ranking_takes_them():
    texts = ["Tin melts at 232 degrees.", "Lead is soft.", "Copper conducts heat."]
    ranker = Reranker.from_model(
        tiny_model("llama"), byte_tokenizer(), layers=(1, 2), fusion="weighted"
    )
    values = [0.5, 2.0, 1.0]
    wanted = ranker.rank("Which metal?", texts, 2, retrieval_scores=values)
    assert len(wanted) == 2
    for holder in HOLDERS.values():
        found = ranker.rank("Which metal?", texts, np.int64(2), retrieval_scores=holder(values))
        assert found.hits == wanted.hits
    assert all(math.isfinite(score) for score in wanted.scores)


def test_no_library_is_imported_for_it():
    script = (
        "import sys; from icr_rag.arguments import *; check_retrieval_scores([1.0], 1); "
        "check_top_n(3, None); print(sorted({'numpy', 'torch', 'pandas'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
