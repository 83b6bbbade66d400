"""Queries of a log, and where queries come from."""

from __future__ import annotations

import json

import pytest
from test_cli_profile import run, small
from test_profiling_queries import CORPUS

from icr_rag import Document, Reranker
from icr_rag.errors import ConfigError, DataError, InputError
from icr_rag.profiles import Profile
from icr_rag.profiling.query_log import log_task, read_queries
from icr_rag.profiling.samples import load_samples
from icr_rag.profiling.sources import Wanted, load_queries, read_documents
from icr_rag.profiling.teacher_scores import wanted_pairs

ASKED = ["where is the harbour", "tide and moon", "zzz", "tide and moon", "crab or gull", "reef"]


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("\n\n".join(ASKED) + "\n")
    return path


def test_lines_and_objects_are_queries(log, tmp_path):
    distinct = list(dict.fromkeys(ASKED))
    assert read_queries(log) == distinct
    objects = tmp_path / "log.jsonl"
    rows = [{"query": text} if n % 2 else {"text": text, "user": 3} for n, text in enumerate(ASKED)]
    objects.write_text("\n".join(map(json.dumps, rows)))
    assert read_queries(objects) == distinct


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.txt", " \n", "holds no queries"),
        ("a.jsonl", "{", r"a\.jsonl:1: not JSON"),
        ("a.jsonl", '{"q": "x"}', "'query' or 'text'"),
        ("a.jsonl", '{"query": 3}', "'query' or 'text'"),
        ("a.jsonl", "[]", "'query' or 'text'"),
    ],
)
def test_malformed_logs_are_told(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=said):
        read_queries(tmp_path / name)


def test_candidates_share_a_word_and_nothing_is_known_of_them(log):
    task = log_task(log, CORPUS, 10, 5)
    assert sorted(task.dataset.queries.values()) == sorted({*ASKED} - {"zzz"})
    assert (task.dataset.judgements, task.unlabelled, task.labels) == ({}, True, "none")
    for query, names in task.candidates.items():
        words = set(task.dataset.queries[query].split())
        assert 2 <= len(names) <= 5
        assert all(words & set(CORPUS[name].content.split()) for name in names)
    few = log_task(log, CORPUS, 2, 5)
    assert len(few.queries) == 2
    assert few.queries == log_task(log, CORPUS, 2, 5).queries
    with pytest.raises(InputError, match="none has a word in common"):
        log_task(log, {"a": Document("nothing"), "b": Document("at all")}, 2, 5)


def test_logs_are_searched_for_in_all_documents(log, notes, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"id": "d1", "text": "the harbour at night"}))
    wanted = Wanted(str(log), (), 9, None, 31)
    (task,) = load_queries([notes, other], wanted)
    assert task.name == "log, log"
    assert len(task.dataset.documents) == 31
    first = next(q for q, text in task.dataset.queries.items() if "harbour" in text)
    assert f"{other}:d1" in task.candidates[first]
    both = load_queries([notes], Wanted(f"label-free,{log}", ("title",), 4, None, 4))
    assert [task.labels for task in both] == ["made", "none"]
    with pytest.raises(InputError, match=r"'absent\.txt' is no file"):
        load_queries([notes], Wanted("label-free,absent.txt", ("title",), 4, None, 4))
    with pytest.raises(ConfigError, match="PyStemmer"):
        load_queries([notes], Wanted(str(log), (), 4, None, 4, "elvish"))


def test_origins_of_one_name_are_told_apart(log, notes, tmp_path):
    folders = [tmp_path / name / "notes" for name in ("a", "b", "c")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "corpus.jsonl").write_text(notes.read_text())
    tasks = load_queries(folders, Wanted(f"label-free,{log}", ("title",), 4, None, 4))
    first = "notes, label-free"
    assert [task.name for task in tasks] == [first, f"{first} (2)", f"{first} (3)", "log, log"]
    assert len(wanted_pairs(tasks)) == sum(len(task.queries) for task in tasks)


def test_a_folder_of_texts_is_read(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "empty").mkdir()
    for name in ("a.md", "sub/b.py", ".git/c.md", "d.png"):
        (tmp_path / name).write_text(name)
    assert {k: d.text for k, d in read_documents(tmp_path).items()} == {
        "a.md": "a.md", "sub/b.py": "sub/b.py",
    }  # fmt: skip
    with pytest.raises(DataError, match=r"no corpus\.jsonl, and no file \.md"):
        read_documents(tmp_path / "empty")


def test_heads_are_learned_from_a_log_alone(log, notes, model_folder, tmp_path):
    out = tmp_path / "p.json"
    result = run(notes, "--out", out, "--queries", log, *small(model_folder))
    assert result.exit_code == 0, result.output
    profile = Profile.load(out)
    assert (profile.held_out, profile.curve) == (None, None)
    assert profile.measured == {"queries": 4}
    assert profile.data["unlabelled"] == ["log, log"]
    assert profile.data["taught by"] == "likelihood"
    assert "nothing is measured" in " ".join(result.output.split())
    assert {s.group for s in load_samples(tmp_path / "p.json.samples.npz")} == {"log, log"}
    with Reranker(model=model_folder, profile=str(out)) as reranker:
        assert len(reranker.rank("tide?", ["tide and moon", "sand"]).scores) == 2
    # Beside others figures are theirs.
    result = run(notes, "--out", out, "--queries", f"label-free,{log}", *small(model_folder))
    assert result.exit_code == 0, result.output
    profile = Profile.load(out)
    assert profile.held_out.queries == 6
    assert set(profile.measured["transfer"]["log, log"]) == {"notes, label-free"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--teacher", "labels"], "labels cannot teach"),
        (["--method", "core"], "labels cannot teach"),
        (["--plot", "study.svg"], "nothing is known to be relevant"),
        (["--framework", "pointwise", "--calibrate", "logistic"], "--calibrate needs queries"),
    ],
)
def test_what_needs_labels_is_refused(arguments, said, log, notes, model_folder, tmp_path):
    result = run(notes, "--out", tmp_path / "p.json", "--queries", log,
                 *small(model_folder, *arguments))  # fmt: skip
    assert isinstance(result.exception, InputError), result.output
    assert said in str(result.exception)
