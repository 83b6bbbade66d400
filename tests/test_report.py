"""The report: tables, files, and the plot of quality against time."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("matplotlib")

from icr_rag.evaluation.finished import Finished
from icr_rag.evaluation.frontier import GREY, draw_frontier, pareto, points_of, styles
from icr_rag.evaluation.grid_config import make_grid
from icr_rag.evaluation.grid_result import Difference, GridResult, Row, Slice, slug
from icr_rag.evaluation.harness import Evaluation, Setting
from icr_rag.evaluation.plot_labels import overlap, place_labels
from icr_rag.evaluation.report import to_dict, write_report
from icr_rag.evaluation.report_text import frontier_names, render_markdown, table_of
from icr_rag.evaluation.runs import read_run

GIVEN, SHUFFLED = Slice("tiny", "given", 20), Slice("tiny", "shuffled (seed 1)", 20)
NASTY = "<b>a|b</b> [x]*_"


def measured(quality, seconds, config=None, repairs=0):
    row = Finished([1, 0], seconds, 1900, 1, 0, [1], "cpu float32", 3, 12, repairs)
    values = {"nDCG@10": quality, "P@1": 0.5}
    return Evaluation(
        "tiny", values, values, {"q1": values, "q2": values}, {"q1": ["a", "b"]}, {"q1": row},
        Setting(20), {} if config is None else config,
    )  # fmt: skip


@pytest.fixture
def result():
    grid = make_grid(
        {
            "data": [{"source": "data/tiny", "queries": {"parity": "odd", "limit": 9}}],
            "orders": ["given", 1],
            "depths": [20],
            "measures": ["nDCG@10", "P@1"],
            "systems": {name: {} for name in ("slow", "fast", "dull", NASTY)},
            "peers": ["bm25", "rank_llm"],
            "baseline": "dull",
        }
    )
    rows = []
    for place in (GIVEN, SHUFFLED):
        rows += [
            Row(place, "slow", "generation", "done", evaluation=measured(0.6, 9.0, repairs=2)),
            Row(place, "fast", "attention", "done", evaluation=measured(0.5, 0.2)),
            Row(place, "dull", "likelihood", "done", evaluation=measured(0.4, 1.0)),
            Row(place, NASTY, "attention", "failed", f"ValueError: {NASTY}", traceback="Trace"),
            Row(place, "bm25", "peer", "done", evaluation=measured(0.45, 0.1, {"peer": "bm25"})),
            Row(place, "rank_llm", "peer", "not run", "no vllm"),
        ]
    rows[0].difference = Difference(0.2, 0.1, 0.3, 0.0001, 0.0003)
    rows[1].difference = Difference(0.1, -0.1, 0.3, 0.2, 0.2)
    given = {place: {"nDCG@10": 0.3, "P@1": 0.1} for place in (GIVEN, SHUFFLED)}
    return GridResult(grid, rows, given, ["a note"])


# --- the frontier ---------------------------------------------------------------------------


def test_the_frontier_is_what_nothing_beats():
    assert pareto([(1, 0.5), (2, 0.4), (3, 0.7), (0.5, 0.1), (3, 0.6)]) == [3, 0, 2]
    assert pareto([(1, 0.5), (1, 0.5)]) == [0]
    assert pareto([]) == []


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), max_size=12))
def test_the_frontier_equals_its_definition(points):
    kept = pareto(points)

    def beats(a, b):
        return a[0] <= b[0] and a[1] >= b[1] and a != b

    for number, point in enumerate(points):
        beaten = any(beats(other, point) for other in points)
        first = points.index(point) == number
        assert (number in kept) is (not beaten and first)
    assert [points[i][0] for i in kept] == sorted(points[i][0] for i in kept)


def test_the_first_stage_takes_no_time(result):
    points = points_of(result, GIVEN)
    assert [(point.label, point.seconds) for point in points] == [
        ("slow", 9.0), ("fast", 0.2), ("bm25", 0.0), ("dull", 1.0),
    ]  # fmt: skip
    assert frontier_names(result, GIVEN) == ["fast", "slow"]


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("ground", ["#ffffff", "#0d1117"])
def test_colours_stand_out_on_light_and_dark(ground):
    assert contrast(GREY, ground) >= 4
    for colour, _ in styles().values():
        assert contrast(colour, ground) >= 3
    assert len({marker for _, marker in styles().values()}) == len(styles())


def test_the_plot_is_drawn(result, tmp_path):
    paths = draw_frontier(result, tmp_path)
    assert [path.name for path in paths] == ["frontier.png", "frontier.svg"]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    svg = paths[1].read_text(encoding="utf-8")
    assert "<svg" in svg
    draw_frontier(result, tmp_path)
    # The same numbers give the same file, so that it can be kept under version control.
    assert paths[1].read_text(encoding="utf-8") == svg
    empty = GridResult(result.grid, [result.rows[3]], {GIVEN: {}})
    assert draw_frontier(empty, tmp_path / "none") == []


@pytest.mark.parametrize("systems", [1, 13, 40])
def test_the_plot_takes_any_number_of_systems(result, tmp_path, systems):
    rows = [
        Row(GIVEN, f"system {i}", "attention", "done", evaluation=measured(0.3 + i / 99, 1 + i))
        for i in range(systems)
    ]
    assert len(draw_frontier(GridResult(result.grid, rows, {GIVEN: {}}), tmp_path)) == 2


@given(
    st.lists(
        st.tuples(
            st.floats(0.1, 50), st.floats(0.2, 0.8), st.text("abc ", min_size=3, max_size=12)
        ),
        min_size=1,
        max_size=8,
        unique_by=(lambda point: round(point[0], 1), lambda point: round(point[1], 2)),
    )
)
@settings(max_examples=15)
def test_labels_cover_no_other_label(points):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5))
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.set_xscale("log")
    axis.set_xlim(0.05, 100)
    axis.set_ylim(0.1, 0.9)
    for x, y, _ in points:
        axis.plot(x, y, "o")
    figure.canvas.draw()
    labels = place_labels(axis, points)
    renderer = figure.canvas.get_renderer()
    boxes = [label.get_window_extent(renderer) for label in labels]
    boxes = [(box.x0, box.y0, box.x1, box.y1) for box in boxes]
    for number, box in enumerate(boxes):
        assert all(overlap(box, other) == 0 for other in boxes[number + 1 :])


def test_overlap():
    assert overlap((0, 0, 2, 2), (1, 1, 3, 3)) == 1
    assert overlap((0, 0, 2, 2), (2, 0, 3, 2)) == 0
    assert overlap((0, 0, 4, 4), (1, 1, 2, 3)) == 2


# --- the files ------------------------------------------------------------------------------


def test_every_file_is_written(result, tmp_path):
    out = tmp_path / "new" / "report"
    paths = write_report(result, out)
    assert {path.name for path in paths if path.parent == out} == {
        "results.json", "results.csv", "per_query.csv", "frontier.png", "frontier.svg",
        "report.md", "report.html",
    }  # fmt: skip
    assert all(path.stat().st_size > 0 for path in paths)
    assert len(list((out / "runs").iterdir())) == 8
    assert read_run(out / "runs" / f"{slug('tiny', 'given', 20, 'slow')}.trec") == {
        "q1": ["a", "b"]
    }


def test_without_the_plot(result, tmp_path):
    paths = write_report(result, tmp_path, plot=False)
    assert not any(path.name.startswith("frontier") for path in paths)
    assert "frontier.svg" not in (tmp_path / "report.md").read_text()


def test_json_tells_everything(result, tmp_path):
    write_report(result, tmp_path, plot=False)
    values = json.loads((tmp_path / "results.json").read_text())
    assert values["means"]["tiny/given/20"]["slow"] == {
        "nDCG@10": 0.6, "P@1": 0.5, "seconds": 9.0, "tokens": 1900, "calls": 3,
        "generated_tokens": 12, "repairs": 2,
    }  # fmt: skip
    assert values["given"]["tiny/shuffled (seed 1)/20"]["P@1"] == 0.1
    slow, _, _, failed, _, not_run = values["rows"][:6]
    assert slow["difference"]["p_holm"] == 0.0003
    assert "per_query" not in slow
    assert (failed["status"], failed["traceback"]) == ("failed", "Trace")
    assert (not_run["status"], not_run["reason"]) == ("not run", "no vllm")
    assert make_grid(values["grid"]) == result.grid
    assert to_dict(result)["versions"] == values["versions"]


def test_tables_for_other_programs(result, tmp_path):
    write_report(result, tmp_path, plot=False)
    with (tmp_path / "results.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 12
    assert (rows[0]["nDCG@10"], rows[0]["given nDCG@10"], rows[0]["low"]) == ("0.6", "0.3", "0.1")
    assert (rows[3]["system"], rows[3]["nDCG@10"], rows[3]["status"]) == (NASTY, "", "failed")
    assert rows[4]["seconds"] == ""
    with (tmp_path / "per_query.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * 4 * 2
    # q2 had no candidates, and counts.
    assert (rows[0]["query"], rows[0]["seconds"]) == ("q1", "9.0")
    assert (rows[1]["query"], rows[1]["P@1"], rows[1]["seconds"]) == ("q2", "0.5", "")


def test_an_id_that_no_run_can_hold_costs_only_that_run(result, tmp_path):
    result.rows[0].evaluation.run["q1"] = ["a b"]
    write_report(result, tmp_path, plot=False)
    assert len(list((tmp_path / "runs").iterdir())) == 7
    assert "has white space" in (tmp_path / "report.md").read_text()


def test_names_that_no_file_can_hold_do_not_meet(result, tmp_path):
    assert slug("a/b", 1) != slug("a:b", 1)
    assert re.fullmatch(r"[\w.-]+", slug("../a b", "\u00e9\u4e2d" * 200))
    assert len(slug("x" * 500)) < 100


# --- the report -----------------------------------------------------------------------------


def test_the_best_come_first_and_what_was_not_run_last(result):
    head, lines = table_of(result, GIVEN)
    assert head[:3] == ["system", "nDCG@10", "P@1"]
    names = [line[0] for line in lines]
    assert names == [
        "slow ◆", "fast ◆", "bm25", "dull", NASTY, "rank_llm", "order as given to the systems",
    ]  # fmt: skip
    assert lines[0][3:5] == ["+0.2000 (+0.1000 to +0.3000)", "< 0.001 *"]
    assert lines[1][4] == "0.200"
    assert lines[3][3] == "baseline"
    assert lines[2][-4:] == ["–"] * 4
    assert lines[5][1] == "not run: no vllm"
    # Nothing was tested in the other slice.
    assert not any("difference" in cell for cell in table_of(result, SHUFFLED)[0])


def test_markdown_tables_are_whole_whatever_names_hold(result):
    text = render_markdown(result, [])
    tables = [line for line in text.splitlines() if line.startswith("|")]
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in tables]
    assert set(widths) == {10, 8}
    assert "<b>" not in text.split("## The grid")[0]
    assert "2.00 mistakes in generated answers were mended per query" in text
    for words in ("queries with odd ids", "the first 9 queries", "a note", "## tiny, given order"):
        assert words in text


class Collector(HTMLParser):
    VOID = {"meta", "br", "link", "img"}

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_one_file_that_is_well_formed(result, tmp_path):
    write_report(result, tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Collector()
    page.feed(text)
    assert page.open == []
    tags = [tag for tag, _ in page.seen]
    assert tags.count("svg") == 1
    assert tags.count("table") == 2
    assert not {"script", "link", "img", "b"} & set(tags)
    # Nothing is fetched from anywhere.
    for _, attributes in page.seen:
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith("#")
    assert "prefers-color-scheme: dark" in text
    assert any(NASTY in part for part in page.text)
