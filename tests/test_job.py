"""A job over many rows in one process: as single calls, every row once, going on where it ended."""

from __future__ import annotations

import json

import pytest

from icr_rag import Reranker, RerankerConfig
from icr_rag.cli import main
from icr_rag.errors import ConfigError, DataError
from icr_rag.server.job import Job, do_here, do_part
from icr_rag.server.job_input import JobInput, read_part
from icr_rag.server.job_rows import rank_rows


@pytest.fixture
def config(model_folder):
    return RerankerConfig(model=model_folder, device="cpu", dtype="float32", scoring="likelihood")


def rows(count=10):
    return [
        {
            "id": f"r{number}",
            "query": f"what melts at {number}?",
            "documents": [
                {"id": f"{number}-{place}", "text": f"Tin {place} melts at {number * place}."}
                for place in range(4)
            ],
        }
        for number in range(count)
    ]


def write(path, values):
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def done(source, out, config, part_rows=3):
    job = Job.begin(source, out, config, part_rows)
    list(do_here(job))
    return job.finish()


def test_a_job_gives_what_single_calls_give(tmp_path, config):
    counts = done(write(tmp_path / "in.jsonl", rows()), tmp_path / "out.jsonl", config)
    assert (counts.rows, counts.failed) == (10, 0)
    results = read(tmp_path / "out.jsonl")
    with Reranker(config) as reranker:
        for number, (row, result) in enumerate(zip(rows(), results, strict=True)):
            ranking = reranker.rank(row["query"], row["documents"])
            assert (result["row"], result["id"], result["error"]) == (number, row["id"], None)
            assert result["ids"] == [hit.document.id for hit in ranking]
            assert result["indices"] == [hit.index for hit in ranking]
            assert result["scores"] == pytest.approx([hit.score for hit in ranking], abs=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


WRONG = [
    ("not JSON", "DataError: the row is not JSON"),
    ("[1]", "DataError: the row is [1]"),
    ('{"query": "q"}', "DataError: 'documents' is None"),
    ('{"query": 1, "documents": []}', "DataError: 'query' is 1"),
    ('{"id": "x", "query": "q", "documents": [1]}', "DataError: documents[0] is 1"),
    ('{"query": "q", "documents": [{"t": 1}]}', "DataError: documents[0].text is None"),
    ('{"query": "q", "docs": []}', "DataError: unknown key 'docs'"),
    ('{"query": " ", "documents": ["a"]}', "InputError: the query is blank"),
    ('{"query": "q", "documents": ["a"], "retrieval_scores": [1, 2]}',
     "InputError: retrieval_scores has length 2"),
    ('{"id": "\\ud800", "query": "q", "documents": ["a"]}', "DataError: 'id' is '\\ud800'"),
]  # fmt: skip


def test_a_row_that_is_wrong_says_so_and_its_neighbours_are_ranked(tmp_path, config):
    good = json.dumps(rows(1)[0])
    lines = [line for text, _ in WRONG for line in (text, good)]
    (tmp_path / "in.jsonl").write_text("\n\n".join(lines))
    counts = done(tmp_path / "in.jsonl", tmp_path / "out.jsonl", config, 4)
    assert (counts.rows, counts.failed) == (2 * len(WRONG), len(WRONG))
    results = read(tmp_path / "out.jsonl")
    assert [result["row"] for result in results] == list(range(len(lines)))
    for result, (_, words) in zip(results[::2], WRONG, strict=True):
        assert result["error"].startswith(words)
        assert result["scores"] == []
    assert all(result["error"] is None and len(result["ids"]) == 4 for result in results[1::2])
    assert results[8]["id"] == "x"


def test_first_stage_scores_count_as_in_a_call(tmp_path, config):
    row = {**rows(1)[0], "retrieval_scores": [1, 2, None, 4]}
    done(write(tmp_path / "in.jsonl", [row]), tmp_path / "out.jsonl", config)
    with Reranker(config) as reranker:
        ranking = reranker.rank(row["query"], row["documents"], retrieval_scores=[1, 2, None, 4])
    assert read(tmp_path / "out.jsonl")[0]["scores"] == [hit.score for hit in ranking]


def test_an_interrupted_job_goes_on_and_does_nothing_twice(tmp_path, config):
    source, out = write(tmp_path / "in.jsonl", rows()), tmp_path / "out.jsonl"
    first = do_here(Job.begin(source, out, config, 3))
    assert [next(first).number, next(first).number] == [0, 1]
    first.close()
    job = Job.begin(source, out, config, 3)
    assert [part.number for part in job.unfinished()] == [2, 3]
    with pytest.raises(
        DataError, match=r"4 of 10 rows have no result \(parts 2, 3\); run the same"
    ):
        job.finish()
    assert [part.number for part in do_here(job)] == [2, 3]
    assert job.finish().rows == 10
    done(source, tmp_path / "whole.jsonl", config)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize("harm", ["cut", "other row", "not json", "empty"])
def test_a_part_that_is_not_whole_is_done_again(tmp_path, config, harm):
    source, out = write(tmp_path / "in.jsonl", rows(6)), tmp_path / "out.jsonl"
    job = Job.begin(source, out, config, 3)
    list(do_here(job))
    path = job.part_file(job.input.parts[0])
    lines = path.read_text().splitlines(keepends=True)
    other = lines[1].replace('"row": 1', '"row": 2')
    harmed = {"cut": lines[:2], "other row": [lines[0], other, lines[2]],
              "not json": [*lines[:2], lines[2][:9]], "empty": []}[harm]  # fmt: skip
    path.write_text("".join(harmed))
    assert [part.number for part in job.unfinished()] == [0]
    list(do_here(job))
    assert job.finish().rows == 6
    assert [result["row"] for result in read(out)] == list(range(6))


def test_a_part_that_is_done_twice_is_there_once(tmp_path, config):
    job = Job.begin(write(tmp_path / "in.jsonl", rows(3)), tmp_path / "out.jsonl", config, 3)
    with Reranker(config) as reranker:
        do_part(reranker, job, job.input.parts[0])
        do_part(reranker, job, job.input.parts[0])
    assert job.finish().rows == 3
    assert len(read(job.output)) == 3


def test_parts_of_another_job_are_refused(tmp_path, config):
    source, out = write(tmp_path / "in.jsonl", rows()), tmp_path / "out.jsonl"
    Job.begin(source, out, config, 3)
    with pytest.raises(DataError, match="other part_rows"):
        Job.begin(source, out, config, 4)
    with pytest.raises(DataError, match="other settings"):
        Job.begin(source, out, config.replace(top_n=2), 3)
    write(source, rows(9))
    with pytest.raises(DataError, match="other input"):
        Job.begin(source, out, config, 3)


def test_an_output_is_never_replaced(tmp_path, config):
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(DataError, match="exists"):
        Job.begin(write(tmp_path / "in.jsonl", rows()), tmp_path / "out.jsonl", config)


def test_no_rows_are_an_empty_output(tmp_path, config):
    assert done(write(tmp_path / "in.jsonl", []), tmp_path / "out.jsonl", config).rows == 0
    assert (tmp_path / "out.jsonl").read_text() == ""


@pytest.mark.parametrize("part_rows", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("end", ["", "\n", "\n\n  \n"])
def test_parts_are_all_rows_in_order(tmp_path, part_rows, end):
    path = tmp_path / "in.jsonl"
    path.write_bytes("\r\n".join(["1", "", "2", '"drei ü"', "4", "   ", "5", "6", "7"]).encode()
                     + end.encode())  # fmt: skip
    job_input = JobInput.of(path, part_rows)
    found = [row for part in job_input.parts for row in read_part(path, part)]
    assert found == list(enumerate([1, 2, "drei ü", 4, 5, 6, 7]))
    assert job_input.rows == 7


def test_an_input_that_changes_during_the_job_is_noticed(tmp_path):
    path = write(tmp_path / "in.jsonl", rows(4))
    job_input = JobInput.of(path, 2)
    write(path, rows(2))
    with pytest.raises(DataError, match="was changed during the job"):
        read_part(path, job_input.parts[1])


def test_parquet_in_and_out_is_jsonl_in_and_out(tmp_path, config):
    arrow = pytest.importorskip("pyarrow", reason="needs icr-rag[evaluation]")
    from pyarrow import parquet

    parquet.write_table(arrow.Table.from_pylist(rows(7)), tmp_path / "in.parquet", row_group_size=2)
    counts = done(tmp_path / "in.parquet", tmp_path / "out.parquet", config)
    assert counts.rows == 7
    done(write(tmp_path / "in.jsonl", rows(7)), tmp_path / "out.jsonl", config)
    assert parquet.read_table(tmp_path / "out.parquet").to_pylist() == read(tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    ("name", "words"),
    [("none.jsonl", "none.jsonl cannot be read"), ("in.csv", r"allowed are rows in \.jsonl")],
)
def test_inputs_that_cannot_be_read(tmp_path, config, name, words):
    with pytest.raises(DataError, match=words):
        Job.begin(tmp_path / name, tmp_path / "out.jsonl", config)


def test_what_is_wrong_with_all_rows_ends_the_job(config):
    class Broken:
        def rank_many(self, *arguments):
            raise ConfigError("no such profile")

    with pytest.raises(ConfigError, match="no such profile"):
        rank_rows(Broken(), [(0, rows(1)[0])])


def test_the_command_ranks_rows(tmp_path, config, capsys):
    source = write(tmp_path / "in.jsonl", [*rows(3), {"query": "q"}])
    flags = ["--model", config.model, "--scoring", "likelihood", "--dtype", "float32"]
    arguments = ["rerank", "--rows", str(source), "--out", str(tmp_path / "out.jsonl"), *flags]
    assert main(arguments) == 0
    told = capsys.readouterr()
    assert "4 rows in" in told.out
    assert "1 rows could not be ranked" in told.err
    assert [result["id"] for result in read(tmp_path / "out.jsonl")] == ["r0", "r1", "r2", None]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rows", "in.jsonl"], "--rows needs it"),
        (["q", "--rows", "in.jsonl", "--out", "o.jsonl"], "has queries of its own"),
        (["q", "a.txt", "--engine", "ray"], "go with it"),
        (["q", "a.txt", "--out", "o.jsonl"], "go with it"),
    ],
)
def test_options_that_do_not_go_together(arguments, words, capsys):
    assert main(["rerank", *arguments]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
