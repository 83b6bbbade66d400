"""What a step costs, when it is begun, and rankings that ran out of time; without any model."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_rag import deadline as deadlines
from icr_rag.deadline import Deadline, OutOfTime, Pace, Timing, in_parts, most, step, timed
from icr_rag.frameworks.combine import combine, prior, rule_of
from icr_rag.frameworks.listwise import rank_listwise
from icr_rag.frameworks.pairwise import rank_pairwise
from icr_rag.frameworks.pointwise import rank_in_parts, rank_pointwise
from icr_rag.frameworks.result import WindowedScores
from icr_rag.frameworks.setwise import rank_setwise
from icr_rag.frameworks.unscored import among, none_of


class Hands:
    """A clock that is set by hand."""

    now = 5.0

    def __call__(self):
        return self.now


# --- the deadline -------------------------------------------------------------------------------


def test_a_deadline_counts_from_its_call_and_keeps_something_back():
    clock = Hands()
    due = Deadline(1000, clock, already=0.25)
    assert (due.seconds, due.elapsed, due.until) == (1.0, 0.25, 0.75)
    assert due.until - due.left == pytest.approx(0.005)
    clock.now += 1
    assert due.until == -0.25
    with due.keep_back(0.5):
        assert due.left == pytest.approx(-0.755)
    assert due.left == pytest.approx(-0.255)
    assert Deadline(10, clock).until - Deadline(10, clock).left == pytest.approx(0.0005)


# --- paces --------------------------------------------------------------------------------------


def test_an_estimate_is_what_most_of_the_latest_took():
    pace = Pace()
    assert pace.expect("a", 100) is None
    pace.note("a", 100, 1.0)
    assert pace.expect("b", 100) is None
    assert pace.expect("a", 100) == 1.0
    pace.note("a", 100, 3.0)
    assert pace.expect("a", 100) == 3.0
    for _ in range(6):
        pace.note("a", 100, 1.0)
    # One slow moment of eight is none; what was long ago is forgotten.
    assert pace.expect("a", 100) == 1.0
    for _ in range(16):
        pace.note("a", 100, 2.0)
    for _ in range(12):
        pace.note("a", 100, 1.0)
    assert pace.expect("a", 100) == 2.0
    pace.note("a", 100, 1.0)
    assert pace.expect("a", 100) == 1.0


def test_estimates_of_other_sizes_lie_on_lines():
    pace = Pace()
    pace.note("a", 100, 1.0)
    # Of one size alone: upwards with the amount, downwards not quite.
    assert pace.expect("a", 200) == 2.0
    assert pace.expect("a", 5000) == 50.0
    assert pace.expect("a", 50) == pytest.approx(0.5625)
    pace.note("a", 400, 2.5)
    assert pace.expect("a", 200) == pytest.approx(1.5)
    assert pace.expect("a", 800) == pytest.approx(4.5)
    assert pace.expect("a", 50) == pytest.approx(0.75)
    # Less work is not slower; and more is never free.
    pace.note("b", 10, 9.0)
    pace.note("b", 1000, 1.0)
    assert pace.expect("b", 10) == 1.0
    assert pace.expect("b", 4000) == 2.0


@given(
    st.lists(st.integers(1, 5000), min_size=1),
    st.integers(1, 5000),
    st.floats(0, 1),
    st.floats(1e-5, 1e-2),
)
def test_of_work_that_is_a_line_estimates_are_close(steps, amount, fixed, rate):
    """Where two sizes were measured, or the work is as large as what was."""
    pace = Pace()
    for tokens in steps:
        pace.note("a", tokens, fixed + tokens * rate)
    found = pace.expect("a", amount)
    true = fixed + amount * rate
    low, high = min(steps), max(steps)
    if low <= amount <= high:
        # What is of one size is taken for alike.
        assert 0.6 * true <= found <= 1.5 * true
    assert found > 0


def test_what_kept_work_from_being_begun_is_doubted_until_it_is_measured():
    pace = Pace()
    pace.note("a", 10, 100.0)
    for _ in range(20):
        pace.doubt("a", 10)
    assert pace.expect("a", 10) < 0.1
    pace.trust("a", 10)
    assert pace.expect("a", 10) == 100
    # What was seen often is believed for longer.
    for _ in range(5):
        pace.note("b", 10, 100.0)
    for _ in range(20):
        pace.doubt("b", 10)
    assert 50 < pace.expect("b", 10) < 60
    for _ in range(20):
        pace.doubt("b", 10)
    assert pace.expect("b", 10) < 1
    pace.note("b", 10, 100.0)
    assert pace.expect("b", 10) == 100


def test_threads_may_note_together():
    pace = Pace()

    def work(number):
        for amount in range(1, 2000):
            pace.note(number % 2, amount, amount / 1000)
            pace.expect(number % 2, amount)
            pace.doubt(number % 2, amount)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 < pace.expect(0, 1999) <= 4


# --- steps --------------------------------------------------------------------------------------


def test_a_step_that_would_end_too_late_is_not_begun():
    clock, pace = Hands(), Pace()
    pace.note("a", 10, 2.0)
    begun = []
    with timed(Timing(pace, Deadline(1000, clock), clock)):
        with pytest.raises(OutOfTime), step("a", 10):
            begun.append(1)
        with step("b", 10):
            clock.now += 0.5
        assert pace.expect("b", 10) == 0.5
        with pytest.raises(OutOfTime), step("b", 10):
            begun.append(2)
        clock.now += 1
        with pytest.raises(OutOfTime), step("unknown", 10):
            begun.append(3)
    assert begun == []
    # Without a deadline it is measured only; outside of a call not even that.
    with timed(Timing(pace, None, clock)), step("c", 1):
        clock.now += 1
    with step("d", 1):
        pass
    assert (pace.expect("c", 1), pace.expect("d", 1)) == (1.0, None)


def test_a_step_that_was_given_up_tells_what_was_done():
    clock, pace = Hands(), Pace()

    def window():
        with step("window", 1000):
            for _ in range(9):
                with step("pass", 100, inner=True):
                    clock.now += 0.3

    with timed(Timing(pace, Deadline(1000, clock), clock)):
        with pytest.raises(OutOfTime):
            window()
        assert pace.expect("window", 300) == pytest.approx(0.9)
        with timed(None), step("pass", 100):
            # As loading: neither held back nor measured.
            assert deadlines.deadline() is None


def test_what_is_done_apart_counts_where_it_is_asked_for():
    clock, pace = Hands(), Pace()
    with timed(Timing(pace, None, clock)):
        for kind, with_apart in (("without", False), ("with", True)):
            with step(kind, 10, with_apart=with_apart):
                clock.now += 1
                with step("once", 10, apart=True), step("pass", 10, inner=True):
                    clock.now += 4
    found = [pace.expect(kind, 10) for kind in ("without", "with", "once", "pass")]
    assert found == [1.0, 5.0, 4.0, 4.0]


def test_parts_are_a_share_of_what_is_left():
    clock, pace = Hands(), Pace()
    assert in_parts("a", 1000, 10) == 1000
    with timed(Timing(pace, Deadline(1000, clock), clock)):
        assert in_parts("a", 1000, 10) == 10
        for amount in (8, 32, 128):
            pace.note("a", amount, amount * 0.01)
        part = in_parts("a", 1000, 10)
        assert 0.15 < part * 0.01 <= 0.25
        assert in_parts("a", 1, 10) == 1


def test_parts_are_not_so_small_that_they_take_as_long():
    clock, pace = Hands(), Pace()
    with timed(Timing(pace, Deadline(1000, clock), clock)):
        for amount in (10, 100):
            pace.note("a", amount, 0.3 + amount * 0.001)
        # Of half the size each would take 0.35 seconds, and both 0.7.
        assert in_parts("a", 100, 10) == 75
        # But for what there is no time as a whole.
        assert in_parts("a", 5000, 10) < 700


def test_as_many_as_there_is_time_for():
    clock, pace = Hands(), Pace()

    def steps(count):
        return [10] * count

    assert most("a", 7, steps) == 7
    with timed(Timing(pace, Deadline(1000, clock), clock)):
        assert most("a", 7, steps) == 7
        for _ in range(3):
            pace.note("a", 10, 0.1)
        assert most("a", 9, steps) == 9
        # A shortened list is meant to end well in time.
        assert most("a", 50, steps) == 7
        clock.now += 0.99
        assert most("a", 50, steps) == 1
        assert most("a", 1, steps) == 1


def test_a_list_that_one_slow_moment_made_too_long_is_tried_whole_again():
    clock, pace = Hands(), Pace()
    pace.note("a", 8, 3.0)
    counts = []
    for _ in range(20):
        with timed(Timing(pace, Deadline(1000, clock), clock)):
            counts.append(most("a", 8, lambda count: [count]))
    assert counts[0] < 8
    assert counts[-1] == 8


# --- frameworks that ran out of time ------------------------------------------------------------

KEYS = st.lists(st.integers(0, 5), min_size=1, max_size=12)


def check(ranked, count):
    """What is true of every outcome."""
    assert sorted(ranked.order) == list(range(count))
    along = [ranked.scores[item] for item in ranked.order]
    assert along == sorted(along, reverse=True)
    assert {item for item in range(count) if ranked.groups[item] == -1} == ranked.unscored
    left = [item for item in ranked.order if item in ranked.unscored]
    assert left == sorted(left)


def until(number, answer):
    """A function that runs out of time at its call of this number."""
    calls = []

    def limited(given):
        calls.append(1)
        if len(calls) > number:
            raise OutOfTime
        return answer(given)

    return limited


@given(KEYS, st.integers(0, 40), st.integers(2, 4), st.sampled_from(["heap", "bubble"]),
       st.none() | st.integers(0, 12))  # fmt: skip
def test_a_sort_keeps_what_it_has_found(keys, calls, size, sort, top):
    def pick(sets):
        return [max(range(len(s)), key=lambda p: (keys[s[p]], -p)) for s in sets]

    def rank(answer):
        return rank_setwise(len(keys), answer, set_size=size, sort=sort, top=top)

    whole = rank(pick)
    found = rank(until(calls, pick))
    check(found, len(keys))
    done = len(keys) - len(found.unscored)
    assert found.order[:done] == whole.order[:done]
    if found.unscored:
        assert done < len(keys) if top is None else done < top
    else:
        assert found == whole


@given(KEYS, st.integers(0, 12), st.integers(1, 9))
def test_all_pairs_rank_the_first_items(keys, calls, size):
    def prefer(pairs):
        return [float(keys[a] - keys[b]) for a, b in pairs]

    def rank(count, answer):
        return rank_pairwise(count, answer, sort="all_pairs", parts=lambda left: size)

    found = rank(len(keys), until(calls, prefer))
    check(found, len(keys))
    done = len(keys) - len(found.unscored)
    assert found.unscored == frozenset(range(done, len(keys)))
    alone = rank_pairwise(done, prefer, sort="all_pairs")
    assert found.order[:done] == alone.order
    assert found.scores[:done] == alone.scores


@given(KEYS, st.integers(0, 8), st.integers(2, 5))
def test_windows_that_were_not_read_stay_above(keys, calls, window):
    def score(items):
        return [float(keys[item]) for item in items]

    def rank(answer):
        return rank_listwise(len(keys), answer, lambda items: True, window)

    found = rank(until(calls, score))
    check(found, len(keys))
    reached = len(found.unscored)
    assert found.order[:reached] == list(range(reached))
    if not reached:
        assert found == rank(score)
    elif calls:
        # The best of what was read is right below.
        read = range(reached, len(keys))
        assert keys[found.order[reached]] == max(keys[item] for item in read)
    else:
        assert reached == len(keys)


@given(KEYS, st.integers(0, 12), st.integers(1, 4), st.randoms())
def test_parts_score_what_they_read(keys, calls, size, random):
    items = list(range(len(keys)))
    random.shuffle(items)
    found = rank_in_parts(
        items,
        until(calls, lambda some: [keys[item] for item in some]),
        lambda rows: [float(key) for row in rows for key in row],
        lambda left: size,
    )
    check(found, len(keys))
    assert found.unscored == frozenset(items[calls * size :])
    for item in set(items) - found.unscored:
        assert found.scores[item] == keys[item]
    if not found.unscored:
        assert found == rank_pointwise(len(keys), lambda some: [float(keys[i]) for i in some])


@given(KEYS, st.data())
def test_the_first_stage_counts_among_what_has_a_score(keys, data):
    count = len(keys)
    items = sorted(data.draw(st.sets(st.integers(0, count - 1))))
    scores = [float(keys[item]) for item in items]
    part = rank_pointwise(len(items), lambda some: scores)
    ranked = among(part, items, count)
    check(ranked, count)
    # Which kind of scores they are is told by all that are given, so that a part of them must be of
    # the same kind: never within -1 and 1, or always.
    first = [float(-2 - item) for item in range(count)]
    some = [first[item] for item in items]
    both = dict.fromkeys(("prior", "rrf", "weighted", "none", "auto"), (first, some))
    both["scores"] = ([0.01 * score for score in first], [0.01 * score for score in some])
    for name, (whole, own) in both.items():
        fusion = "auto" if name == "scores" else name
        found = combine(ranked, rule_of(fusion, 0.5, 0.0, {"scores": whole}))
        check(found, count)
        alone = combine(part, rule_of(fusion, 0.5, 0.0, {"scores": own}))
        assert [i for i in found.order if i not in found.unscored] == [
            items[place] for place in alone.order
        ]
        assert [found.scores[item] for item in items] == alone.scores
        assert found.unscored == ranked.unscored


def test_nothing_at_all():
    assert none_of(0) == WindowedScores([], [], [])
    check(none_of(3), 3)
    assert combine(none_of(3), prior(0.5)) == none_of(3)
