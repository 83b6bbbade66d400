"""What models write, and what is made of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_rag.scoring.parsing import Repairs, parse_choice, parse_permutation, parse_yes_no

CLEAN = [
    "[2] > [1] > [3]",
    "[2]>[1]>[3]",
    "2 > 1 > 3",
    "2, 1, 3",
    "2, 1 and 3.",
    "2 1 3",
    "2\n1\n3",
    "- 2\n- 1\n- 3\n",
    "[2, 1, 3]",
    '{"ranking": ["2", "1", "3"]}',
    "**[2]** > **[1]** > **[3]**",
    r"\[2\] > \[1\] > \[3\]",
    "Passage 2 > Passage 1 > Passage 3",
    "[Passage 2] > [Passage 1] > [Passage 3]",
    "Documents 2, 1 and 3",
    "doc_2, doc_1, doc_3",
    "1. Passage 2\n2. Passage 1\n3. Passage 3",
    "1. 2\n2. 1\n3. 3",
    "1) [2]\n2) [1]\n3) [3]",
    "[2] &gt; [1] &gt; [3]",
    "［２］ > ［１］ > ［３］",
    "【2】 > 【1】 > 【3】",
    "[٢] > [١] > [٣]",
    "The 3 passages are ranked as follows: [2] > [1] > [3]. I hope this helps 100%!",
    "The ranking of the 3 passages is 2 > 1 > 3.",
    "Ranking the 3 passages: 2, 1, 3",
    "[1], [2] and [3] were given. The ranking is [2] > [1] > [3].",
    "<think>Is [3] > [1]? No.</think>\n[2] > [1] > [3]",
    "2. It answers the question.\n1. It is close.\n3. It is about something else.",
    "The 3 given, best first: 【2】 【1】 【3】",
    "[1], [2], [3] are given: [2] &gt; [1] &gt; [3]",
    "Passage 2 names 3 cats. Passage 1 names 4 dogs; passage 3 none.",
    "The order of the 3 is 2, 1, 3",
    "The 3 in order.\n2\n1\n3",
    "All 3 passages\n2\n1\n3",
    "Passages: 2\n1\n3",
    "From the best passage\n2\n1\n3",
    "1. 2\n2. 1\n3. 3\n4.",
    "1. Passage 2\n1. Passage 1\n1. Passage 3",
    "1. Passage 2\n2. Passage 1\n3. Passage 3\n4.",
    "[Note of 3 May] 2 > 1 > 3",
    "2 first, for 3% of 0.3 and 3.5 cases of covid-3, the 3rd; 1 is second; 3 last",
    "Covid-19 in 2.5 of 30% for the 2nd time: [2] → [1] → [3]",
]


@pytest.mark.parametrize("text", CLEAN)
def test_the_usual_forms_need_no_repair(text):
    result = parse_permutation(text, 3)
    assert result.order == (1, 0, 2)
    assert result.repairs == Repairs()
    assert result.repairs.total == 0


@pytest.mark.parametrize(
    ("text", "order", "repairs"),
    [
        ("[3] > [1]", (2, 0, 1, 3), Repairs(missing=2)),
        ("[2] > [2] > [1] > [3] > [4]", (1, 0, 2, 3), Repairs(repeated=1)),
        ("[4] > [0] > [5] > [-1] > [1]", (3, 0, 1, 2), Repairs(missing=2, out_of_range=3)),
        ("[4] > [3] > [2] > [1", (3, 2, 1, 0), Repairs(missing=1)),
        ("[2] > [1] > 3 > 4", (1, 0, 2, 3), Repairs(missing=2)),
        ("3. 2 mice\n1. 1 cat\n2. 5 dogs", (2, 1, 0, 3), Repairs(1, 2, 1)),
        ("1. It has 3 legs\n2. It has 4", (0, 2, 1, 3), Repairs()),
        ("I cannot rank these.", (0, 1, 2, 3), Repairs(missing=4, unparsed=True)),
        ("", (0, 1, 2, 3), Repairs(missing=4, unparsed=True)),
        ("[7] > [8]", (0, 1, 2, 3), Repairs(missing=4, out_of_range=2, unparsed=True)),
        ("[" + "9" * 5000 + "]", (0, 1, 2, 3), Repairs(4, 0, 1, unparsed=True)),
        ("<think>[4] > [1]</think>", (0, 1, 2, 3), Repairs(missing=4, unparsed=True)),
    ],
)
def test_repairs_are_counted(text, order, repairs):
    result = parse_permutation(text, 4)
    assert (result.order, result.repairs) == (order, repairs)


def test_total_of_the_repairs():
    assert Repairs(missing=2, repeated=3, out_of_range=5).total == 10


GARBAGE = st.text() | st.text(alphabet="[]>0123 ,.\n-PassageA1٣９(*</think>", max_size=80)


@given(text=GARBAGE, count=st.integers(0, 12))
def test_garbage_never_loses_repeats_or_invents_a_document(text, count):
    result = parse_permutation(text, count)
    assert sorted(result.order) == list(range(count))
    repairs = result.repairs
    assert repairs.unparsed == (count > 0 and repairs.missing == count)
    # What was not named keeps its order, at the end.
    rest = result.order[count - repairs.missing :]
    assert list(rest) == sorted(rest)


@given(
    mentioned=st.lists(st.integers(-2, 15), max_size=20),
    count=st.integers(0, 12),
    form=st.sampled_from([("[{}]", " > "), ("[{}]", ", "), ("[{}]", "\n"), ("[Passage {}]", " ")]),
)
def test_every_repair_of_a_bracketed_list_is_counted(mentioned, count, form):
    item, separator = form
    if "Passage" in item:
        mentioned = [abs(number) for number in mentioned]
    result = parse_permutation(separator.join(item.format(n) for n in mentioned), count)
    valid = [number - 1 for number in mentioned if 1 <= number <= count]
    named = list(dict.fromkeys(valid))
    assert list(result.order) == named + [n for n in range(count) if n not in named]
    assert result.repairs == Repairs(
        missing=count - len(named),
        repeated=len(valid) - len(named),
        out_of_range=len(mentioned) - len(valid),
        unparsed=count > 0 and not named,
    )


@given(order=st.permutations(range(9)), form=st.sampled_from(["[{}]", "{}", "Passage {}"]))
def test_a_permutation_written_out_is_read_back(order, form):
    for separator in (" > ", ", ", "\n", " >\n"):
        text = separator.join(form.format(n + 1) for n in order)
        result = parse_permutation(text, 9)
        assert result.order == tuple(order)
        assert result.repairs == Repairs()


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("B", 1),
        ("b.", 1),
        ("[B]", 1),
        ("(c)", 2),
        ("**C**", 2),
        ("Passage C", 2),
        ("passage_c", 2),
        ("Passage-C is best", 2),
        ("The answer is B.", 1),
        ("Output: [C] > [A]", 2),
        ("B is better than Passage A", 1),
        ("B\n\nA relevant passage must ...", 1),
        ("<think>A? A!</think>C", 2),
        ("【Ｂ】 [B]", 1),
        # The article.
        ("A", 0),
        ("a", 0),
        (" a.\n", 0),
        ("a\n\nIt is about cats.", 0),
        ("[a]", 0),
        ("Passage A", 0),
        ("Passage A directly answers it", 0),
        ("passage a is better", 0),
        ("The answer is a", 0),
        ("A is the most relevant", 0),
        ("A and B are close, A wins", 0),
        ("A: it names the year", 0),
        ("A, because it names the year", 0),
        ("A - it names the year", 0),
        ("A's first sentence says so", 0),
        ("A passage about cats is B", 1),
        ("The passage a user would want is B", 1),
        ('It is a "relevant" passage: C', 2),
        ("That is a difficult question.", None),
        ("The most relevant one is a", None),
        ("A difficult question", None),
        ("of a B-cell: C", 2),
        ("a b-cell and a C++, see B", 1),
        # No label.
        ("", None),
        ("None of them.", None),
        ("Cab, Abc, B2", None),
        ("D", None),
    ],
)
def test_choices_by_letter(text, choice):
    assert parse_choice(text, ["A", "B", "C"]) == choice


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("I", 8),
        ("Passage I", 8),
        ("[I]", 8),
        ("I is the most relevant", 8),
        ("I think it is H", 7),
        ("I'm sure: passage H", 7),
        ("I, as a model, say H", 7),
    ],
)
def test_the_pronoun_is_no_label(text, choice):
    assert parse_choice(text, list("ABCDEFGHI")) == choice


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("2", 1),
        ("[3]", 2),
        ("Of the 2 passages, [3] is better", 2),
        ("Of the 2 passages, passage 1 is better", 0),
        ("2 is better", 1),
        ("3.5 of 10", None),
        ("0.3 for 1", 0),
        ("10", None),
    ],
)
def test_choices_by_number(text, choice):
    assert parse_choice(text, ["1", "2", "3"]) == choice


def test_other_labels():
    assert parse_choice("The second, [2], is better", ["[1]", "[2]"]) == 1
    assert parse_choice("I prefer passage b to Passage A", ["Passage A", "Passage B"]) == 1
    assert parse_choice("AB", ["A", "AB"]) == 1
    assert parse_choice("see passage one", ["passage", "passage one"]) == 1
    assert parse_choice("see b.", ["B", "b"]) == 1
    assert parse_choice("see C+ here", ["C", "C+"]) == 1
    assert parse_choice("x", []) is None
    assert parse_choice("x", ["", " "]) is None


@given(text=GARBAGE, labels=st.lists(st.text(max_size=3), max_size=4))
def test_a_choice_is_a_label_or_none(text, labels):
    for options in (labels, list("ABC"), ["1", "2"]):
        choice = parse_choice(text, options)
        assert choice is None or 0 <= choice < len(options)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Yes", True),
        (" yes.", True),
        ("**Yes**, it does", True),
        ("_No_", False),
        ("NO\nbecause", False),
        ("No the passage is about cats", False),
        ("Answer: no", False),
        ("The answer is yes", True),
        ("The final answer is: **No**", False),
        ("No doubt, yes", True),
        ("There is no such passage, so yes.", True),
        ("I would say no.", False),
        ("Yes or No? No", False),
        ("(Yes/No): yes", True),
        ("<think>No.</think>Yes", True),
        ("yes/no", None),
        ("There is no way to tell", None),
        ("Not at all, yesterday, nobody knows", None),
        ("", None),
    ],
)
def test_yes_and_no(text, answer):
    assert parse_yes_no(text) is answer


@given(GARBAGE | st.text(alphabet="yesno YESNO.,/\n*_", max_size=30))
def test_yes_no_never_raises(text):
    assert parse_yes_no(text) in (True, False, None)
